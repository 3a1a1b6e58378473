//! Contents of a task that is handed out: its job, its built-in variables, those of its project and
//! contexts, and the key that continues a setup pipeline.

use crate::config::{Executor, Image, JobKind};
use crate::protocol::limits::VARIABLE_BYTES;
use crate::protocol::{Container, RegistryLogin, Secret, Source, Task, TaskId, TaskKind, Variable};
use crate::server::auth::{new_token, token_hash};
use crate::server::ids::{JobId, PipelineId, ProjectId};
use crate::server::secrets::access;
use crate::server::secrets::contexts;
use crate::server::secrets::sealer::{SealError, SealedFor, Sealer};
use crate::server::secrets::tokens::{self, FallbackCredential, TokenUser};
use crate::server::state::ServerSettings;
use crate::server::store::status::MessageKind;
use crate::server::store::tables::handout::{Described, PipelineRevision};
use crate::server::store::tables::jobs;
use crate::server::store::tables::keys;
use crate::server::store::tables::pipelines::PullFacts;
use crate::server::store::tables::trust;
use crate::server::store::tables::variables::{self, SealedVariable};
use crate::server::store::{Effect, Error, Tx, View};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// Why a task gets no variables, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Withheld {
    /// A context does not exist (any more), or is restricted.
    Unauthorized(contexts::Unauthorized),
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
    if trust::fork_of_job(view, &found.job)?.is_some_and(|fork| !fork.gets_secrets) {
        return Ok(Ok(Vec::new()));
    }
    for SealedVariable { name, sealed } in variables::list_sealed_of_project(view, project)? {
        let value = sealer.open(SealedFor::Project(project, &name), &sealed);
        if let Err(why) = opened.add(name, value) {
            return Ok(Err(why));
        }
    }
    for context in contexts {
        for SealedVariable { name, sealed } in variables::list_sealed_of_context(view, &context)? {
            let value = sealer.open(SealedFor::Context(&context, &name), &sealed);
            if let Err(why) = opened.add(name, value) {
                return Ok(Err(why));
            }
        }
    }
    let variables = opened.variables;
    let bytes: usize = variables.iter().map(|v| v.name.len() + v.value.expose().len()).sum();
    if bytes > VARIABLE_BYTES {
        let why = format!(
            "the variables of this job have {bytes} bytes together, the limit is {VARIABLE_BYTES}: use fewer contexts"
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
    /// How long it may take to begin from now on.
    pub begin: Duration,
}

/// A task that is told by what git gets in once a GitHub App has got it a token.
#[derive(Clone, Debug)]
pub struct Unopened {
    /// The task without what lets git in.
    pub handed: Handout,
    /// Files that let git in besides.
    pub access: access::Access,
    /// Address of the repository.
    pub url: String,
    /// Project whose App it is.
    pub project: ProjectId,
    /// Job that is told when there is no token.
    pub job: JobId,
    /// Pipeline of the job.
    pub pipeline: PipelineId,
}

/// A task as its agent is told of it.
#[derive(Clone, Debug)]
pub struct Description {
    /// JSON of [`Task`], in which a token that is still to be got is not yet.
    pub text: Vec<u8>,
    /// Parts of a task whose token for git is still to be got: no transaction waits for that.
    pub unopened: Option<Box<Unopened>>,
}

/// Room in the answer to a claim for what lets git in: keys, known hosts, a token.
const MOST_ACCESS_BYTES: usize = 256 * 1024;

impl Description {
    /// Bytes that its text has at most once it is whole.
    pub fn most_bytes(&self) -> usize {
        self.text.len() + if self.unopened.is_some() { MOST_ACCESS_BYTES } else { 0 }
    }
}

/// A task as it is handed out.
#[derive(Clone, Debug, Serialize)]
pub struct Handout {
    /// Task for its agent.
    #[serde(flatten)]
    pub task: Task,
    /// Containers that its runner starts first; nothing for a runner that starts none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<Container>,
}

/// Describes a task that is handed out, for its agent, and with `in_containers` for a runner that starts its containers.
pub fn describe(
    tx: &Tx<'_>,
    found: Described,
    handed: Handed,
    in_containers: bool,
    settings: &ServerSettings,
) -> Result<Description, Error> {
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
    let (git_files, later) = match opening(tx, &found, settings, &mut mask)? {
        Opening::Files(files) => (files, None),
        Opening::ByApp(access, url) => (Vec::new(), Some((access, url))),
    };
    let JobKind::Build { job, executor } = found.definition.kind else {
        return Err(Error::Corrupt(format!("the task `{}` is of a job without steps", handed.id)));
    };
    tx.effect(Effect::Changed(found.pipeline.clone()));
    let mut job = *job;
    let containers = match executor {
        Executor::Docker { images } if in_containers => {
            images.into_iter().map(|image| container(image, &handed.variables)).collect()
        }
        // Steps that run without their image have its variables all the same.
        Executor::Docker { images } if found.kind == TaskKind::Machine => {
            for (name, value) in images.into_iter().next().into_iter().flat_map(|first| first.environment) {
                job.environment.entry(name).or_insert(value);
            }
            Vec::new()
        }
        _ => Vec::new(),
    };
    let task = Task {
        id: handed.id,
        token: Secret::new(handed.token),
        allocation: handed.allocation,
        job_name: found.job_name,
        job_url,
        job,
        node_index: found.node_index,
        node_total: found.node_total,
        built_in,
        variables: handed.variables,
        mask,
        git_files,
        source: source(found.revision),
        has_test_timings: found.has_test_timings,
        lease_seconds: settings.lease_seconds,
        begin_seconds: handed.begin.as_secs() as u32,
        budget_seconds: handed.budget.as_secs() as u32,
        heartbeat_wait_seconds: settings.heartbeat_wait_seconds,
        max_step_output_bytes: settings.max_step_output_bytes,
        max_artifact_bytes: settings.max_artifact_bytes,
    };
    let handed = Handout { task, containers };
    let text = serde_json::to_vec(&handed)?;
    let unopened = later.map(|(access, url)| {
        let (project, job, pipeline) = (found.project, found.job, found.pipeline);
        Box::new(Unopened { handed, access, url, project, job, pipeline })
    });
    Ok(Description { text, unopened })
}

/// The files that let git into a repository.
enum Opening {
    /// These files do.
    Files(Vec<Variable>),
    /// A GitHub App gets a login first, which this access is added to; with the address.
    ByApp(access::Access, String),
}

/// Finds what lets git into the repository of the project; nothing for a pull request from a fork, whatever else it is given.
fn opening(
    tx: &Tx<'_>,
    found: &Described,
    settings: &ServerSettings,
    mask: &mut Vec<Secret>,
) -> Result<Opening, Error> {
    let nothing = Opening::Files(Vec::new());
    let Some(url) = &found.revision.repository_url else { return Ok(nothing) };
    if trust::fork_of_job(tx, &found.job)?.is_some() {
        return Ok(nothing);
    }
    match access::open(tx, &settings.sealer, &found.project)? {
        Ok(mut access) => {
            if access.login.is_none() {
                match tokens::beside(tx, &found.project, TokenUser::Jobs)? {
                    Some(FallbackCredential::App) => return Ok(Opening::ByApp(access, url.clone())),
                    Some(FallbackCredential::Organisation(token)) => {
                        match tokens::login(&settings.sealer, &token, url) {
                            Some(Ok(login)) => access.login = Some(login),
                            Some(Err(why)) => {
                                let message = format!(
                                    "git gets no token of the organisation for the repository of the project: {why} (set it anew with `runlet admin forge-token set`)"
                                );
                                jobs::add_message_once(tx, &found.job, MessageKind::Warning, &message)?;
                            }
                            None => {}
                        }
                    }
                    None => {}
                }
            }
            mask.extend(access.masked());
            Ok(Opening::Files(access.files(url)))
        }
        Err(why) => {
            let message = format!(
                "git gets no keys for the repository of the project: {why} (set them again with `runlet admin project access`)"
            );
            // A task is described again for whoever asks again.
            jobs::add_message_once(tx, &found.job, MessageKind::Warning, &message)?;
            Ok(nothing)
        }
    }
}

/// A container as its runner starts it. A login is written with names of variables, which are replaced here; one that
/// lacks a part is none.
fn container(image: Image, variables: &[Variable]) -> Container {
    let part = |name: &str| image.auth.get(name).map(|text| with_variables(text, variables));
    let login = part("username").zip(part("password"));
    let login = login.map(|(username, password)| RegistryLogin { username, password: Secret::new(password) });
    Container {
        image: image.image,
        name: image.name,
        entrypoint: image.entrypoint,
        command: image.command,
        user: image.user,
        environment: image.environment,
        login,
    }
}

/// The text with the values of variables for `$NAME` and `${NAME}`; nothing for one that does not exist.
fn with_variables(text: &str, variables: &[Variable]) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let braced = after.strip_prefix('{').and_then(|inside| inside.split_once('}'));
        let (name, then) = braced.unwrap_or_else(|| {
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            after.split_at(after.find(|c| !is_name(c)).unwrap_or(after.len()))
        });
        match name.is_empty() {
            true => out.push('$'),
            false => {
                let found = variables.iter().find(|variable| variable.name == name);
                out.push_str(found.map_or("", |variable| variable.value.expose()));
            }
        }
        rest = then;
    }
    out.push_str(rest);
    out
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
    let all = always.into_iter().chain(known).map(|(name, value)| (name.to_owned(), value.to_owned()));
    all.chain(found.pull.iter().flat_map(of_pull)).collect()
}

/// The variables about pull requests. Scripts take those of forks, which are set for them only, as the sign of one.
fn of_pull(pull: &PullFacts) -> impl Iterator<Item = (String, String)> {
    let all = [
        ("CIRCLE_PULL_REQUEST", pull.urls.first().cloned()),
        ("CIRCLE_PULL_REQUESTS", Some(pull.urls.join(",")).filter(|urls| !urls.is_empty())),
        ("CIRCLE_PR_NUMBER", pull.number.map(|number| number.to_string())),
        ("CIRCLE_PR_USERNAME", pull.fork_owner.clone()),
        ("CIRCLE_PR_REPONAME", pull.fork_name.clone()),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)))
}

/// The revision that `checkout` fetches, when there is a repository.
fn source(found: PipelineRevision) -> Option<Source> {
    Some(Source {
        repository_url: found.repository_url?,
        revision: found.revision?,
        branch: found.branch,
        tag: found.tag,
        reference: found.reference,
        default_branch: Some(found.default_branch),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_written_with_names_of_variables() {
        let variables = [Variable { name: "USER_1".to_owned(), value: Secret::new("me$x") }];
        for (text, meant) in [
            ("$USER_1", "me$x"),
            ("a-${USER_1}-b$USER_1.c", "a-me$x-bme$x.c"),
            ("$NONE|$|a$", "|$|a$"),
            ("plain", "plain"),
            ("${USER_1", "${USER_1"),
        ] {
            assert_eq!(with_variables(text, &variables), meant, "{text}");
        }
    }
}
