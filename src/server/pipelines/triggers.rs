//! From what a caller asks for to a [`Trigger`]: reads the repository where there is one, checks the
//! parameters against the config, and leaves the rest to `create`.

use crate::config::{self, GIVEN_PARAMETERS, PARAMETER_NAME_CHARS, PARAMETER_VALUE_CHARS};
use crate::logging::record;
use crate::server::pipelines::create;
use crate::server::pipelines::repository::address;
use crate::server::pipelines::repository::{Commit, Error as ReadError, Missing, Reference};
use crate::server::pipelines::types::{self, ConfigOrigin, CreatedPipeline, Revision, Trigger};
use crate::server::state::Shared;
use crate::server::store::read::Project;
use crate::server::store::status::TriggerType;
use crate::server::store::tables::pipelines::CommitFacts;
use serde_json::Value;
use std::collections::BTreeMap;

/// The wish of a caller.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TriggerRequest {
    /// The whole config, instead of one from the repository.
    pub content: Option<String>,
    /// The ref that the config is read from; the same as `checkout` unless given.
    pub config: Option<Reference>,
    /// The ref that jobs check out; the same as `config` unless given, else the default branch.
    pub checkout: Option<Reference>,
    /// Values of pipeline parameters as the call gives them, by name.
    pub parameters: BTreeMap<String, Value>,
}

/// The result of a trigger.
#[derive(Debug)]
pub enum Triggered {
    /// A pipeline, maybe an errored one.
    Created(CreatedPipeline),
    /// The commit says that nothing is to be built.
    Skipped,
}

/// The reason why there is no pipeline.
#[derive(Debug)]
pub enum Error {
    /// The caller asks for what does not exist or is not allowed; a sentence for people.
    Wrong(String),
    /// The pipeline could not be made.
    Pipeline(types::Error),
}

/// Reads `branch` and `tag` of a body; empty ones are absent. The error is a sentence for people.
pub fn reference(branch: Option<&str>, tag: Option<&str>) -> Result<Option<Reference>, String> {
    let given = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
    let reference = match (given(branch), given(tag)) {
        (Some(_), Some(_)) => return Err("give a branch or a tag, not both".to_owned()),
        (Some(branch), None) => Reference::Branch(branch),
        (None, Some(tag)) => Reference::Tag(tag),
        (None, None) => return Ok(None),
    };
    match &reference {
        Reference::Branch(name) | Reference::Tag(name) => address::check_ref(name)?,
        Reference::Pull(_) => {}
    }
    Ok(Some(reference))
}

/// Creates the wanted pipeline of a project.
pub async fn trigger(
    state: &Shared,
    project: &Project,
    wanted: TriggerRequest,
    actor: &str,
) -> Result<Triggered, Error> {
    check_sizes(&wanted.parameters).map_err(Error::Wrong)?;
    let is_sent_along = wanted.content.is_some();
    let mut trigger = Trigger {
        config: wanted.content.clone().unwrap_or_default(),
        parameters: wanted.parameters.clone(),
        actor: actor.to_owned(),
        is_sent_along,
        ..Trigger::new(&project.slug, ".circleci/config.yml", TriggerType::Api)
    };
    let wants_pipeline = match &project.repository_url {
        Some(url) => from_repository(state, project, url, &wanted, &mut trigger).await?,
        None if !is_sent_along || wanted.config.is_some() || wanted.checkout.is_some() => {
            return Err(Error::Wrong(format!(
                "the project `{}` has no repository to read from: register one with `runlet admin project set-repository`, or send the config along as `config.content`",
                project.slug
            )));
        }
        None => true,
    };
    if !wants_pipeline {
        return Ok(Triggered::Skipped);
    }
    if trigger.fetch_error.is_none() {
        config::check_parameters(&trigger.config, &wanted.parameters)
            .map_err(|wrong| Error::Wrong(wrong.to_string()))?;
    }
    let (slug, actor) = (trigger.slug.clone(), trigger.actor.clone());
    let created = create::create(state, trigger).await.map_err(Error::Pipeline)?;
    record!(Info, pipeline_id = created.id, project = slug, number = created.number, user = actor; "a pipeline was triggered");
    Ok(Triggered::Created(created))
}

/// Fills in the config and the revision. False when the commit says that nothing is to be built.
async fn from_repository(
    state: &Shared,
    project: &Project,
    url: &str,
    wanted: &TriggerRequest,
    trigger: &mut Trigger,
) -> Result<bool, Error> {
    let default = || Reference::Branch(project.default_branch.clone());
    let checkout = wanted.checkout.clone().or_else(|| wanted.config.clone()).unwrap_or_else(default);
    let config_at = wanted.config.clone().unwrap_or_else(|| checkout.clone());
    let read = match state.settings.mirrors.read(project.id.as_str(), url, &checkout).await {
        Ok(read) => read,
        Err(ReadError::UnknownRef(why) | ReadError::Missing(Missing { why, .. })) => {
            return Err(Error::Wrong(unknown(why, project, wanted)));
        }
        Err(ReadError::Failed(why)) => {
            trigger.fetch_error = Some(why);
            return Ok(true);
        }
    };
    trigger.revision = Some(revision(url, &checkout, &read.commit, &project.default_branch));
    if trigger.is_sent_along {
        return Ok(true);
    }
    if read.commit.skips_ci() {
        return Ok(false);
    }
    let read = if config_at == checkout {
        read
    } else {
        match state.settings.mirrors.read(project.id.as_str(), url, &config_at).await {
            Ok(other) => other,
            Err(ReadError::UnknownRef(why) | ReadError::Missing(Missing { why, .. })) => {
                return Err(Error::Wrong(unknown(why, project, wanted)));
            }
            Err(ReadError::Failed(why)) => {
                trigger.fetch_error = Some(why);
                return Ok(true);
            }
        }
    };
    trigger.config_origin =
        Some(ConfigOrigin { reference: config_at.full(), revision: read.commit.revision });
    match read.config {
        Ok(text) => trigger.config = text,
        Err(why) => trigger.fetch_error = Some(why),
    }
    Ok(true)
}

fn unknown(why: String, project: &Project, wanted: &TriggerRequest) -> String {
    if wanted.checkout.is_none() && wanted.config.is_none() {
        format!(
            "{why}, which is the default branch of `{}` here (change it with `runlet admin project set-repository --default-branch`)",
            project.slug
        )
    } else {
        why
    }
}

/// The revision of a pipeline, of what was read.
pub fn revision(url: &str, checkout: &Reference, commit: &Commit, default_branch: &str) -> Revision {
    let (branch, tag) = match checkout {
        Reference::Branch(name) => (Some(name.clone()), None),
        Reference::Tag(name) => (None, Some(name.clone())),
        Reference::Pull(pull) => (Some(pull.branch.clone()), None),
    };
    Revision {
        repository_url: url.to_owned(),
        revision: commit.revision.clone(),
        is_default_branch: branch.as_deref() == Some(default_branch),
        branch,
        tag,
        subject: commit.subject.clone(),
        body: commit.body.clone(),
        author: commit.author.clone(),
        made: CommitFacts {
            author_email: commit.author_email.clone(),
            authored_at: commit.authored_at.clone(),
            committer: commit.committer.clone(),
            committer_email: commit.committer_email.clone(),
            committed_at: commit.committed_at.clone(),
        },
        reference: match checkout {
            Reference::Pull(pull) => Some(pull.reference.clone()),
            _ => None,
        },
    }
}

/// Checks how many parameters there are, and how long; the error is a sentence for people.
pub fn check_sizes(parameters: &BTreeMap<String, Value>) -> Result<(), String> {
    if parameters.len() > GIVEN_PARAMETERS {
        return Err(format!("{} parameters were given, the limit is {GIVEN_PARAMETERS}", parameters.len()));
    }
    for (name, value) in parameters {
        if name.chars().count() > PARAMETER_NAME_CHARS {
            return Err(format!("the name of a parameter has at most {PARAMETER_NAME_CHARS} characters"));
        }
        if value.as_str().is_some_and(|text| text.chars().count() > PARAMETER_VALUE_CHARS) {
            return Err(format!("the parameter `{name}` has more than {PARAMETER_VALUE_CHARS} characters"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parameters_are_bounded() {
        let many = (0..101).map(|n| (n.to_string(), json!(1))).collect();
        assert!(check_sizes(&many).is_err());
        assert!(check_sizes(&BTreeMap::from([("x".repeat(129), json!(1))])).is_err());
        assert!(check_sizes(&BTreeMap::from([("x".to_owned(), json!("y".repeat(513)))])).is_err());
        assert!(check_sizes(&BTreeMap::from([("x".to_owned(), json!("y".repeat(512)))])).is_ok());
    }

    #[test]
    fn a_branch_excludes_a_tag_and_empty_is_absent() {
        assert_eq!(reference(Some(""), None), Ok(None));
        assert_eq!(reference(Some("main"), Some("")), Ok(Some(Reference::Branch("main".into()))));
        assert_eq!(reference(None, Some("v1")), Ok(Some(Reference::Tag("v1".into()))));
        assert!(reference(Some("main"), Some("v1")).is_err());
        // Legal, and never an option: git is told `refs/heads/--upload-pack=x`.
        let odd = "--upload-pack=x";
        assert_eq!(reference(Some(odd), None), Ok(Some(Reference::Branch(odd.into()))));
        assert!(reference(Some("a..b"), None).is_err());
    }
}
