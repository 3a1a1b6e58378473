//! A job of a workflow while its workflow is put together: read by the entries, joined by the edges.

use crate::config::compiled::{JobKind, RequiredStatus};
use crate::config::session::cost;
use crate::config::values::{Map, Pos};
use std::rc::Rc;

/// A job of a workflow before its name is final and its requirements are known.
#[derive(Debug)]
pub(crate) struct Draft {
    /// Number of the workflow entry it came from; the members of a matrix share it.
    pub(crate) entry: usize,
    /// 0 for the workflow, else the number of the job group it is inside of, or [`HIDDEN`].
    pub(crate) space: usize,
    pub(crate) pos: Pos,
    /// Name before numbering, as the config calls it within its space.
    pub(crate) label: String,
    /// Name of its job, as the entry begins.
    pub(crate) job: Option<Rc<str>>,
    /// Name of the whole matrix.
    pub(crate) alias: Option<Rc<str>>,
    /// Beginning of its name inside of a job group.
    pub(crate) prefix: String,
    pub(crate) kind: JobKind,
    /// Whether there is such a job.
    pub(crate) is_defined: bool,
    /// Whether its label is a name that it has; that of a member of a matrix over what its job does not take is not.
    pub(crate) is_named: bool,
    pub(crate) wanted: Vec<RequiresItem>,
    /// Further drafts that it waits for, by index: they hold a job group together.
    pub(crate) links: Vec<(usize, Vec<RequiredStatus>)>,
    /// For the end of a job group: its members, the last of which it waits for. The beginning of the
    /// group stands just before them.
    pub(crate) members: Option<std::ops::Range<usize>>,
    /// Whether its filters keep it.
    pub(crate) kept: bool,
    pub(crate) contexts: Vec<String>,
    pub(crate) serial_group: Option<String>,
}

impl Draft {
    /// A draft of a workflow, without requirements.
    pub(crate) fn new(entry: usize, pos: Pos, label: String, kind: JobKind) -> Self {
        Self {
            entry,
            space: 0,
            pos,
            job: None,
            label,
            alias: None,
            prefix: String::new(),
            kind,
            is_defined: true,
            is_named: true,
            wanted: Vec::new(),
            links: Vec::new(),
            members: None,
            kept: true,
            contexts: Vec::new(),
            serial_group: None,
        }
    }

    /// Name of the job in messages: for the author of the config the beginning of a job group is the group.
    pub(crate) fn said(&self) -> String {
        match self.label.strip_suffix("/start") {
            Some(group) if self.space == HIDDEN => format!("job group `{group}`"),
            _ => format!("job `{}`", self.label),
        }
    }

    /// Bytes for the budget: its texts, apart from its kind and requirements.
    pub(crate) fn cost(&self) -> usize {
        let Draft {
            entry: _,
            space: _,
            pos: _,
            label,
            job: _,
            alias: _,
            prefix,
            kind: _,
            is_defined: _,
            is_named: _,
            wanted: _,
            links: _,
            members: _,
            kept: _,
            contexts,
            serial_group,
        } = self;
        // Names of whole matrices are shared, and requirements were paid for as they were read.
        cost::text(label) + cost::text(prefix) + cost::list(contexts) + cost::optional(serial_group)
    }
}

/// Space of jobs that no `requires` can name: beginning and unlocking of a job group.
pub(crate) const HIDDEN: usize = usize::MAX;

/// An item of `requires` as written.
#[derive(Clone, Debug)]
pub(crate) struct RequiresItem {
    pub(crate) name: Rc<str>,
    pub(crate) statuses: Vec<RequiredStatus>,
    pub(crate) pos: Pos,
}

/// The drafts of one workflow while its entries are read.
pub(crate) struct Drafts {
    pub(crate) workflow: String,
    pub(crate) list: Vec<Draft>,
    pub(crate) entries: usize,
    pub(crate) spaces: usize,
}

/// The surroundings of an entry: a workflow, or an invocation of a job group.
#[derive(Clone, Default)]
pub(crate) struct Surroundings {
    pub(crate) space: usize,
    pub(crate) prefix: String,
    /// Draft that the first jobs of a group wait for.
    pub(crate) beginning: Option<usize>,
}

/// An entry as written.
pub(crate) struct EntryNode {
    pub(crate) job: Rc<str>,
    pub(crate) pos: Pos,
    pub(crate) options: Rc<Map>,
}

/// Every status, as `terminal` means it.
pub(crate) fn any_status() -> Vec<RequiredStatus> {
    use RequiredStatus::{Canceled, Failed, NotRun, Success, Unauthorized};
    vec![Success, Failed, Canceled, Unauthorized, NotRun]
}
