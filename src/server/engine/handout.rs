//! Contents of a task that is handed out: its job, its built-in variables, those of its project and
//! contexts, and the key that continues a setup pipeline.

use crate::config::JobKind;
use crate::protocol::{Secret, Source, Task, TaskId, Variable};
use crate::server::auth::{new_token, token_hash};
use crate::server::engine::task::LONGEST_BEGIN;
use crate::server::secrets::contexts;
use crate::server::secrets::sealer::{Place, SealError, Sealer};
use crate::server::state::ServerSettings;
use crate::server::store::tables::handout::{Described, Revision};
use crate::server::store::tables::keys;
use crate::server::store::tables::variables::{self, SealedVariable};
use crate::server::store::{Effect, Error, Tx, View};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// Bytes of all variables of one task: more than a process can be started with.
const MOST_VARIABLE_BYTES: usize = 4 * 1024 * 1024;

/// Why a task gets no variables, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Withheld {
    /// A context does not exist (any more), or is restricted.
    Unauthorized(String),
    /// A stored value cannot be opened, or they are too many.
    Unusable(String),
}

/// The variables of a task that is as described: the project's, then those of its contexts in their order; of variables
/// with one name the last.
pub fn variables(
    view: &View,
    sealer: &Sealer,
    found: &Described,
) -> Result<Result<Vec<Variable>, Withheld>, Error> {
    let contexts = match contexts::of_names(view, &found.job, &found.definition.contexts)? {
        Ok(contexts) => contexts,
        Err(why) => return Ok(Err(Withheld::Unauthorized(why))),
    };
    let project = &found.project;
    let mut opened = Opened::default();
    for SealedVariable { name, sealed } in variables::list_sealed_of_project(view, project)? {
        let value = sealer.open(Place::Project(project, &name), &sealed);
        if let Err(why) = opened.add(name, value) {
            return Ok(Err(why));
        }
    }
    for context in contexts {
        for SealedVariable { name, sealed } in variables::list_sealed_of_context(view, &context)? {
            let value = sealer.open(Place::Context(&context, &name), &sealed);
            if let Err(why) = opened.add(name, value) {
                return Ok(Err(why));
            }
        }
    }
    let variables = opened.variables;
    let bytes: usize = variables.iter().map(|v| v.name.len() + v.value.expose().len()).sum();
    if bytes > MOST_VARIABLE_BYTES {
        let why = format!(
            "the variables of this job have {bytes} bytes together, the limit is {MOST_VARIABLE_BYTES}: use fewer contexts"
        );
        return Ok(Err(Withheld::Unusable(why)));
    }
    Ok(Ok(variables))
}

/// Variables in the order in which their names came first.
#[derive(Default)]
struct Opened {
    variables: Vec<Variable>,
    places: HashMap<String, usize>,
}

impl Opened {
    fn add(&mut self, name: String, value: Result<Secret, SealError>) -> Result<(), Withheld> {
        let value = value.map_err(|why| {
            Withheld::Unusable(format!("the variable `{name}` cannot be handed out: {why}; set it again"))
        })?;
        match self.places.get(&name) {
            Some(&at) => self.variables[at] = Variable { name, value },
            None => {
                self.places.insert(name.clone(), self.variables.len());
                self.variables.push(Variable { name, value });
            }
        }
        Ok(())
    }
}

/// Decisions of a claim about a task.
#[derive(Clone, Debug)]
pub struct Handed {
    /// Identifies the task.
    pub id: TaskId,
    /// The text of its token, of which only the hash is stored.
    pub token: String,
    /// The id of this handing out.
    pub allocation: String,
    /// Variables of its project and contexts, opened.
    pub variables: Vec<Variable>,
    /// How long it may be silent once it has begun.
    pub budget: Duration,
}

/// Describes a task that is handed out, for its agent.
pub fn describe(
    tx: &Tx<'_>,
    found: Described,
    handed: Handed,
    settings: &ServerSettings,
) -> Result<Task, Error> {
    let slug = format!("{}/{}/{}", found.vcs, found.org, found.repo);
    let job_url = settings.job_url(&slug, found.job_number);
    let mut built_in = built_in(&found, &job_url);
    let mut mask = Vec::new();
    if found.is_setup && !found.is_continued {
        // Every claim has a key of its own, of which only the hash is kept.
        let key = new_token("rlk_")?;
        keys::add_key(tx, &token_hash(&key), &found.pipeline)?;
        mask.push(Secret::new(key.clone()));
        built_in.insert("CIRCLE_CONTINUATION_KEY".to_owned(), key);
    }
    let JobKind::Build { job, .. } = found.definition.kind else {
        return Err(Error::Corrupt(format!("the task `{}` is of a job without steps", handed.id)));
    };
    tx.effect(Effect::Changed(found.pipeline.into()));
    Ok(Task {
        id: handed.id,
        token: Secret::new(handed.token),
        allocation: handed.allocation,
        job_name: found.job_name,
        job_url,
        job: *job,
        node_index: found.node_index,
        node_total: found.node_total,
        built_in,
        variables: handed.variables,
        mask,
        source: source(found.revision),
        has_test_timings: found.has_test_timings,
        lease_seconds: settings.lease_seconds,
        begin_seconds: LONGEST_BEGIN.as_secs() as u32,
        budget_seconds: handed.budget.as_secs() as u32,
        heartbeat_wait_seconds: settings.heartbeat_wait_seconds,
        max_step_output_bytes: settings.max_step_output_bytes,
        max_artifact_bytes: settings.max_artifact_bytes,
    })
}

/// The variables that every job has.
fn built_in(found: &Described, job_url: &str) -> BTreeMap<String, String> {
    let number = found.job_number.to_string();
    let always = [
        ("CI", "true"),
        ("CIRCLECI", "true"),
        ("CIRCLE_BUILD_NUM", number.as_str()),
        ("CIRCLE_BUILD_URL", job_url),
        ("CIRCLE_JOB", found.job_name.as_str()),
        ("CIRCLE_PIPELINE_ID", found.pipeline.as_str()),
        ("CIRCLE_WORKFLOW_ID", found.workflow.as_str()),
        ("CIRCLE_WORKFLOW_JOB_ID", found.job.as_str()),
        ("CIRCLE_WORKFLOW_WORKSPACE_ID", found.workspace.as_str()),
        ("CIRCLE_PROJECT_ID", found.project.as_str()),
        ("CIRCLE_ORGANIZATION_ID", found.organisation.as_str()),
        ("CIRCLE_PROJECT_USERNAME", found.org.as_str()),
        ("CIRCLE_PROJECT_REPONAME", found.repo.as_str()),
        ("CIRCLE_USERNAME", found.actor.as_str()),
    ];
    let revision = &found.revision;
    let known = [
        ("CIRCLE_REPOSITORY_URL", &revision.repository_url),
        ("CIRCLE_SHA1", &revision.revision),
        ("CIRCLE_BRANCH", &revision.branch),
        ("CIRCLE_TAG", &revision.tag),
    ];
    let known = known.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
    always.into_iter().chain(known).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The revision that `checkout` fetches, when there is a repository.
fn source(found: Revision) -> Option<Source> {
    Some(Source {
        repository_url: found.repository_url?,
        revision: found.revision?,
        branch: found.branch,
        tag: found.tag,
        reference: found.reference,
    })
}
