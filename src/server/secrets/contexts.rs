//! Contexts: named sets of variables of an organisation, and who may use them.
//!
//! A context without restrictions is open to every project of its organisation. Restrictions of one kind
//! widen each other for projects and groups (any may match) and narrow each other for rules (all must
//! hold); every kind that is present must be satisfied.

use crate::config::{self, CONTEXT_CHARS};
use crate::server::ids::{ContextId, JobId, OrganisationId, RestrictionId};
use crate::server::store::status::RestrictionKind as Kind;
use crate::server::store::tables::contexts::{self, Context, Restriction, RestrictionFacts};
use crate::server::store::tables::trust;
use crate::server::store::{Error, Tx, View};
use crate::server::time::Millis;
use std::fmt;

/// Most contexts of one organisation.
pub const MOST_PER_ORGANISATION: usize = 500;
/// Most restrictions of one context.
pub const MOST_RESTRICTIONS: usize = 100;
/// Name of the context that exists in every organisation, made or not.
const ALWAYS_THERE: &str = "org-global";

/// The reason why something was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// There is one of this name.
    Exists,
    /// There are this many already, which is the limit.
    TooMany(usize),
}

/// The reason why a job may not have its contexts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unauthorized {
    /// The organisation has no such context.
    Unknown {
        /// Name that the config gives.
        context: String,
        /// Slug of the organisation, such as `gh/acme`.
        owner: String,
    },
    /// The pipeline comes from a fork.
    OfFork {
        /// Names of the contexts of the job.
        contexts: Vec<String>,
    },
    /// A restriction is not satisfied.
    Restricted {
        /// Name of the context.
        context: String,
        /// Restriction that keeps the job out.
        by: Restricted,
    },
}

/// The restriction of a context that a job does not satisfy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restricted {
    /// To other projects.
    ToProjects,
    /// To groups, of which there are none here.
    ToGroups,
    /// Refused by this rule, which does not hold.
    ByRule(String),
    /// Refused by a rule that cannot be evaluated.
    ByDamagedRule {
        /// Text of the rule.
        rule: String,
        /// Why not, for people.
        why: String,
    },
}

impl fmt::Display for Unauthorized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { context, owner } => write!(
                f,
                "this job uses the context `{context}`, which does not exist in the organisation `{owner}`"
            ),
            Self::OfFork { contexts } => write!(
                f,
                "this job may not use the context `{}`: the pipeline comes from a fork, which gets no secrets of this project",
                contexts.join("`, `")
            ),
            Self::Restricted { context, by } => {
                write!(f, "this job may not use the context `{context}`: {by}")
            }
        }
    }
}

impl fmt::Display for Restricted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ToProjects => f.write_str("it is restricted to other projects"),
            Self::ToGroups => {
                f.write_str("it is restricted to a group, and this control plane knows no groups")
            }
            Self::ByRule(rule) => write!(f, "its rule `{rule}` does not hold for this pipeline"),
            Self::ByDamagedRule { rule, why } => write!(f, "its rule `{rule}` cannot be evaluated: {why}"),
        }
    }
}

/// Checks a name; the error is a sentence for people.
pub fn check_name(name: &str) -> Result<(), String> {
    let count = name.chars().count();
    if name.trim().is_empty() || name.chars().any(char::is_control) {
        return Err("a context needs a name of visible characters".to_owned());
    }
    if count > CONTEXT_CHARS {
        return Err(format!(
            "the name of a context has at most {CONTEXT_CHARS} characters, this one has {count}"
        ));
    }
    Ok(())
}

/// Makes a context.
pub fn create(
    tx: &Tx<'_>,
    organisation: &OrganisationId,
    name: &str,
    now: Millis,
) -> Result<Result<Context, Full>, Error> {
    if contexts::find_context_by_name(tx, organisation, name)?.is_some() {
        return Ok(Err(Full::Exists));
    }
    if contexts::count_contexts(tx, organisation)? >= MOST_PER_ORGANISATION {
        return Ok(Err(Full::TooMany(MOST_PER_ORGANISATION)));
    }
    let (organisation, name) = (organisation.clone(), name.to_owned());
    let context = Context { id: ContextId::fresh(), organisation, name, created_at: now };
    let is_new = contexts::add_context(tx, &context)?;
    Ok(if is_new { Ok(context) } else { Err(Full::Exists) })
}

/// Adds a restriction; the same one again is the one that is there.
pub fn restrict(
    tx: &Tx<'_>,
    context: &ContextId,
    kind: Kind,
    value: &str,
) -> Result<Result<Restriction, Full>, Error> {
    let all = contexts::list_restrictions(tx, context)?;
    if let Some(same) = all.iter().find(|r| r.kind == kind && r.value == value) {
        return Ok(Ok(same.clone()));
    }
    if all.len() >= MOST_RESTRICTIONS {
        return Ok(Err(Full::TooMany(MOST_RESTRICTIONS)));
    }
    let restriction = Restriction { id: RestrictionId::fresh(), kind, value: value.to_owned() };
    contexts::add_restriction(tx, context, &restriction)?;
    Ok(Ok(restriction))
}

/// Finds the contexts of a job in their order, or says why the job may not have one of them.
pub fn of_job(view: &View, job: &JobId) -> Result<Result<Vec<ContextId>, Unauthorized>, Error> {
    of_names(view, job, &contexts::list_names_of_job(view, job)?)
}

/// Finds the contexts of a job by their names, which the caller has read.
pub fn of_names(
    view: &View,
    job: &JobId,
    names: &[String],
) -> Result<Result<Vec<ContextId>, Unauthorized>, Error> {
    if names.is_empty() {
        return Ok(Ok(Vec::new()));
    }
    if trust::fork_of_job(view, job)?.is_some_and(|fork| !fork.gets_secrets) {
        return Ok(Err(Unauthorized::OfFork { contexts: names.to_vec() }));
    }
    let facts = contexts::facts_of_job(view, job)?;
    let mut ids = Vec::new();
    for name in names {
        let Some(context) = contexts::find_context_by_name(view, &facts.organisation, name)? else {
            if name == ALWAYS_THERE {
                continue;
            }
            return Ok(Err(Unauthorized::Unknown { context: name.clone(), owner: facts.owner_slug }));
        };
        if let Err(by) = allows(&contexts::list_restrictions(view, &context.id)?, &facts) {
            return Ok(Err(Unauthorized::Restricted { context: name.clone(), by }));
        }
        ids.push(context.id);
    }
    Ok(Ok(ids))
}

/// Whether restrictions let a job use their context.
fn allows(restrictions: &[Restriction], facts: &RestrictionFacts) -> Result<(), Restricted> {
    let of = |kind: Kind| restrictions.iter().filter(move |r| r.kind == kind).map(|r| r.value.as_str());
    if of(Kind::Project).next().is_some() && !of(Kind::Project).any(|id| id == facts.project.as_str()) {
        return Err(Restricted::ToProjects);
    }
    // The organisation's own id stands for all its members; further groups do not exist here.
    if of(Kind::Group).next().is_some() && !of(Kind::Group).any(|id| id == facts.organisation.as_str()) {
        return Err(Restricted::ToGroups);
    }
    let look_up = |name: &str| match name.strip_prefix("pipeline.parameters.") {
        Some(parameter) => facts.parameters.get(parameter).cloned(),
        None => facts.values.get(name).cloned(),
    };
    for rule in of(Kind::Expression) {
        match config::rule_holds(rule, &look_up) {
            Ok(true) => {}
            Ok(false) => return Err(Restricted::ByRule(rule.to_owned())),
            Err(why) => {
                return Err(Restricted::ByDamagedRule { rule: rule.to_owned(), why: why.to_string() });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn verdict(restrictions: &[(Kind, &str)]) -> Result<(), Restricted> {
        let all: Vec<_> = restrictions
            .iter()
            .map(|(kind, value)| Restriction { id: "r".into(), kind: *kind, value: (*value).to_owned() })
            .collect();
        let map = |value: serde_json::Value| value.as_object().cloned().unwrap_or_default();
        let facts = RestrictionFacts {
            project: "p".into(),
            organisation: "o".into(),
            owner_slug: "gh/acme".to_owned(),
            values: map(json!({ "pipeline.git.branch": "main" })),
            parameters: map(json!({ "level": 3 })),
        };
        allows(&all, &facts)
    }

    #[test]
    fn every_kind_must_be_satisfied() {
        const MAIN: &str = "pipeline.git.branch == \"main\"";
        const LEVEL: &str = "pipeline.parameters.level > 2";
        assert_eq!(verdict(&[]), Ok(()));
        assert_eq!(verdict(&[(Kind::Project, "q"), (Kind::Project, "p")]), Ok(()));
        assert_eq!(verdict(&[(Kind::Project, "q")]), Err(Restricted::ToProjects));
        assert_eq!(verdict(&[(Kind::Expression, MAIN), (Kind::Expression, LEVEL)]), Ok(()));
        assert!(verdict(&[(Kind::Expression, MAIN), (Kind::Expression, "pipeline.number == 1")]).is_err());
        assert!(verdict(&[(Kind::Project, "q"), (Kind::Expression, MAIN)]).is_err());
        assert_eq!(verdict(&[(Kind::Group, "o")]), Ok(()));
        assert_eq!(verdict(&[(Kind::Group, "g")]), Err(Restricted::ToGroups));
        assert!(verdict(&[(Kind::Expression, "nonsense ==")]).is_err(), "a damaged rule opens nothing");
    }
}
