//! Calls of one command with the same arguments expand to the same steps: they are expanded once. In a
//! matrix, or where many jobs share an orb's commands, that is most of the work.
//!
//! Expansions with a message are not kept, so that every message stands at the call that it belongs to. No
//! more is kept than a config of ordinary size has, so that memory stays bounded.

use crate::config::definitions::Definition;
use crate::config::values::{Bindings, Data, ScalarKind, StepList};

use std::collections::HashMap;
use std::rc::Rc;

/// Most different calls of one command that are kept: each is compared with.
const MOST_CALLS: usize = 32;
/// Most steps of all calls that are kept.
const MOST_STEPS: usize = 5_000;
/// Most text of all calls that is kept, in bytes as the budget of expansion counts them.
const MOST_BYTES: usize = 4 << 20;

/// Expansions by command.
#[derive(Default)]
pub(crate) struct Repeated {
    calls: HashMap<(usize, Rc<str>), Vec<Expanded>>,
    steps: usize,
    bytes: usize,
}

/// A call with the steps that it expanded to.
#[derive(Clone)]
pub(crate) struct Expanded {
    arguments: Rc<Bindings>,
    pub(crate) list: Rc<StepList>,
    /// Steps and bytes that it took from the budget.
    pub(crate) spent: (usize, usize),
}

impl Repeated {
    /// The expansion of an earlier call with these arguments.
    pub(crate) fn find(&self, command: &Definition, arguments: &Bindings) -> Option<Expanded> {
        let calls = self.calls.get(&(command.package, command.name.clone()))?;
        calls.iter().find(|call| are_same(&call.arguments, arguments)).cloned()
    }

    /// Keeps an expansion, unless there is enough already.
    pub(crate) fn keep(
        &mut self,
        command: &Definition,
        arguments: Rc<Bindings>,
        list: Rc<StepList>,
        spent: (usize, usize),
    ) {
        let (steps, bytes) = (self.steps + list.steps.len(), self.bytes + spent.1);
        if steps > MOST_STEPS || bytes > MOST_BYTES {
            return;
        }
        let calls = self.calls.entry((command.package, command.name.clone())).or_default();
        if calls.len() < MOST_CALLS {
            (self.steps, self.bytes) = (steps, bytes);
            calls.push(Expanded { arguments, list, spent });
        }
    }
}

fn are_same(one: &Bindings, other: &Bindings) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|((name, value), (other_name, other_value))| {
            name == other_name
                && match (value, other_value) {
                    (Some(value), Some(other)) => is_same(value, other),
                    _ => false,
                }
        })
}

/// Compares more strictly than `equals` of conditions: a `1.10` and a `1.1` are written differently.
fn is_same(one: &Data, other: &Data) -> bool {
    match (one, other) {
        (Data::Scalar(one), Data::Scalar(other)) => {
            let kinds = match (one.kind, other.kind) {
                (ScalarKind::Float(_), ScalarKind::Float(_)) => true,
                (one, other) => one == other,
            };
            kinds && one.text == other.text
        }
        (Data::Steps(one), Data::Steps(other)) => Rc::ptr_eq(one, other),
        _ => false,
    }
}
