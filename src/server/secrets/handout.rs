//! The variables that a task is given: those of its project, then those of its job's contexts.

use crate::protocol::{Secret, Variable};
use crate::server::ids::JobId;
use crate::server::secrets::contexts;
use crate::server::secrets::sealer::{Place, Sealer};
use crate::server::store::tables::contexts::project_of_job;
use crate::server::store::tables::variables;
use crate::server::store::{Error, View};
use std::collections::HashMap;

/// Most bytes of all variables of one task: more than a process can be started with.
const MOST_TASK_BYTES: usize = 4 * 1024 * 1024;

/// The reason why a task gets no variables, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Withheld {
    /// A context does not exist (any more), or is restricted.
    Unauthorized(String),
    /// A stored value cannot be opened, or they are too many.
    Unusable(String),
}

/// Opens the variables of a job: the project's, then those of its contexts in their order; of variables with
/// one name the last one counts.
pub fn variables_of_job(
    view: &View,
    sealer: &Sealer,
    job: &JobId,
) -> Result<Result<Vec<Variable>, Withheld>, Error> {
    let contexts = match contexts::of_job(view, job)? {
        Ok(contexts) => contexts,
        Err(why) => return Ok(Err(Withheld::Unauthorized(why))),
    };
    let mut gathered = Gathered::default();
    let project = project_of_job(view, job)?;
    for row in variables::list_sealed_of_project(view, &project)? {
        let value = sealer.open(Place::Project(&project, &row.name), &row.sealed);
        match value {
            Ok(value) => gathered.add(row.name, value),
            Err(why) => return Ok(Err(unusable(&row.name, &why))),
        }
    }
    for context in contexts {
        for row in variables::list_sealed_of_context(view, &context)? {
            let value = sealer.open(Place::Context(&context, &row.name), &row.sealed);
            match value {
                Ok(value) => gathered.add(row.name, value),
                Err(why) => return Ok(Err(unusable(&row.name, &why))),
            }
        }
    }
    let variables = gathered.variables;
    let bytes: usize = variables.iter().map(|v| v.name.len() + v.value.expose().len()).sum();
    if bytes > MOST_TASK_BYTES {
        let why = format!(
            "the variables of this job have {bytes} bytes together, the limit is {MOST_TASK_BYTES}: use fewer contexts"
        );
        return Ok(Err(Withheld::Unusable(why)));
    }
    Ok(Ok(variables))
}

fn unusable(name: &str, why: &dyn std::fmt::Display) -> Withheld {
    Withheld::Unusable(format!("the variable `{name}` cannot be handed out: {why}; set it again"))
}

/// Variables in the order of their first appearance, each with its last value.
#[derive(Default)]
struct Gathered {
    variables: Vec<Variable>,
    positions: HashMap<String, usize>,
}

impl Gathered {
    fn add(&mut self, name: String, value: Secret) {
        match self.positions.get(&name) {
            Some(&at) => self.variables[at] = Variable { name, value },
            None => {
                self.positions.insert(name.clone(), self.variables.len());
                self.variables.push(Variable { name, value });
            }
        }
    }
}
