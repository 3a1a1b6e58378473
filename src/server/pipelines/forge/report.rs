//! Telling forges how it went: statuses of commits, from what has changed in the store to the forge's API.
//!
//! Forges are told the present state of a job, never its history: a state that was overtaken is not sent. Nothing here
//! holds up a build.

use crate::http::caller::LazyCaller;
use crate::logging::record;
use crate::server::ids::ProjectId;
use crate::server::pipelines::forge::installation;
use crate::server::pipelines::forge::reach::{NoAnswer, Reach, Reached, TokenSource, has_way, reach};
use crate::server::pipelines::forge::rounds::{Busy, Rounds};
use crate::server::pipelines::forge::words::{self, PREFIX, Reply};
use crate::server::secrets::app::Rights;
use crate::server::state::{ServerSettings, Shared};
use crate::server::store::forge_states::{Forge, ReportState};
use crate::server::store::read;
use crate::server::store::status::JobType;
use crate::server::store::tables::forge;
use crate::server::store::tables::projects::{self, ProjectSettings};
use crate::server::store::tables::reports::{self, Changed, CommitStatus, JobFacts, PipelineFacts};
use crate::server::store::{Error as StoreError, Tx, View};
use crate::server::time::Millis;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Pause between two looks for what has changed: a job that ends within it was never told to be running.
const BETWEEN: Duration = Duration::from_millis(250);
/// The longest time without a look.
const IDLE: Duration = Duration::from_secs(60);
/// Changes that are taken in one write.
const BATCH: u32 = 200;
/// How long a forge is tried to be told.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);
/// Wait while there is no token that opens anything, in seconds: one that is set ends it.
const NO_TOKEN_SECONDS: u64 = 300;
/// Wait while a forge says that the repository is elsewhere, in seconds: a delivery by its new name ends it.
const MOVED_SECONDS: u64 = 300;
/// How long it is remembered what a forge was told.
const KEPT: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Works until the control plane stops.
pub(super) async fn run(state: Shared) {
    let (caller, busy) = (Arc::new(LazyCaller::default()), Busy::new());
    let rounds = Rounds {
        what: "look for what forges are to be told",
        woken: Some(state.hub.reports()),
        idle: IDLE,
        least: BETWEEN,
        pause: BETWEEN,
    };
    rounds.run(&state, |now| pass(&state, &caller, &busy, now)).await;
}

/// Forgets what forges were told long ago.
pub(super) async fn forget(state: &Shared, now: Millis) -> Result<(), StoreError> {
    state.store.write(move |tx| reports::delete_before(tx, now.minus(KEPT))).await
}

/// Turns what has changed into what is wanted, and has it sent. Returns when something is due next.
async fn pass(
    state: &Shared,
    caller: &Arc<LazyCaller>,
    busy: &Busy<ProjectId>,
    now: Millis,
) -> Result<Option<Millis>, StoreError> {
    while state.store.read(reports::has_changed).await? {
        let settings = state.settings.clone();
        state.store.write(move |tx| collect(tx, &settings, now)).await?;
    }
    let working = busy.list();
    let due = state.store.read(move |view| reports::due(view, &working, now, BATCH)).await?;
    if due.is_empty() {
        return state.store.read(reports::next).await;
    }
    let mut by_project: BTreeMap<ProjectId, Vec<CommitStatus>> = BTreeMap::new();
    for report in due {
        by_project.entry(report.project.clone()).or_default().push(report);
    }
    for (project, due) in by_project {
        let at_work = busy.enter(project.clone());
        let (state, caller) = (state.clone(), Arc::clone(caller));
        tokio::spawn(async move {
            if let Err(error) = tell_all(&state, &caller, &project, due).await {
                record!(Error, project_id = project; "failed to write down what a forge was told: {error}");
            }
            drop(at_work);
            state.hub.reports().notify_one();
        });
    }
    Ok(None)
}

/// Makes of what has changed what forges are to be told.
fn collect(tx: &Tx<'_>, settings: &ServerSettings, now: Millis) -> Result<(), StoreError> {
    for changed in reports::take_changed(tx, BATCH)? {
        let report = match changed {
            Changed::Job(job) => match reports::job_facts(tx, &job)? {
                Some(facts) => of_job(tx, settings, &facts)?,
                None => None,
            },
            Changed::Pipeline(pipeline) => match reports::pipeline_facts(tx, &pipeline)? {
                Some(facts) => of_pipeline(tx, settings, &facts)?,
                None => None,
            },
        };
        if let Some(report) = report {
            let is_news = report.state != ReportState::NotRun
                || reports::is_known(tx, &report.project, &report.revision, &report.context)?;
            if is_news {
                reports::want(tx, &report, now)?;
            }
        }
    }
    Ok(())
}

/// The settings of a project that wants its statuses told, with its slug.
fn wants(view: &View, project: &ProjectId) -> Result<Option<(ProjectSettings, String)>, StoreError> {
    let settings = projects::settings(view, project)?.unwrap_or_default();
    if !settings.can_set_github_status {
        return Ok(None);
    }
    Ok(read::project_slug(view, project)?.map(|slug| (settings, slug)))
}

fn prefix(settings: &ProjectSettings) -> &str {
    if settings.status_prefix.is_empty() { PREFIX } else { &settings.status_prefix }
}

/// Sentences about settings of a project that do not do what they say, or more than they seem to: statuses that another project
/// replaces, forks that are not built where they are asked for, caches that forks may write.
pub fn warnings(view: &View, project: &ProjectId) -> Result<Vec<String>, StoreError> {
    let mut sentences = shared_names(view, project)?;
    let is_cloud =
        forge::connection(view, project)?.is_some_and(|connection| connection.forge == Forge::BitbucketCloud);
    let settings = projects::settings(view, project)?.filter(|settings| settings.enable_building_fork_prs);
    match settings {
        Some(_) if is_cloud => sentences.push(NO_FORKS.to_owned()),
        Some(settings) if settings.can_pass_secrets_to_fork_pr_jobs => {
            sentences.push(SHARED_CACHES.to_owned())
        }
        _ => {}
    }
    Ok(sentences)
}

/// The sentence about forks at Bitbucket Cloud.
const NO_FORKS: &str = "pull requests from forks are not built at Bitbucket Cloud, whatever `enable_building_fork_prs` says: it keeps no ref of them in the repository that they go to";

/// The sentence about forks that are trusted.
const SHARED_CACHES: &str = "with `can_pass_secrets_to_fork_pr_jobs` pull requests from forks also read and write the caches of the project: what one saves, the next build of the default branch may restore";

/// Sentences about other projects of the same repository whose statuses have the names that those of a project have: what
/// is told of one stands in the place of what was told of the other.
fn shared_names(view: &View, project: &ProjectId) -> Result<Vec<String>, StoreError> {
    let Some((settings, slug)) = wants(view, project)? else { return Ok(Vec::new()) };
    let mut sentences = Vec::new();
    for other in forge::of_same_repository(view, project)? {
        let Some((beside, other)) = wants(view, &other)? else { continue };
        let shared = prefix(&settings);
        if shared.eq_ignore_ascii_case(prefix(&beside)) {
            let name = slug.rsplit('/').next().unwrap_or_default();
            sentences.push(format!(
                "`{other}` is of the same repository, and the names of its statuses begin with `{shared}` too: a job of one replaces what was said of a job of that name of the other. Set another `status_prefix`: `runlet admin project settings {slug} 'status_prefix=ci/{name}: '`"
            ));
        }
    }
    Ok(sentences)
}

/// A ref as the forge of a project wants it: by its short name, or in full where that is what it knows. GitLab knows the head of
/// a pull request from a fork by nothing else.
fn reference(view: &View, project: &ProjectId, short: &str, full: &str) -> Result<String, StoreError> {
    let is_full = match forge::connection(view, project)?.map(|connection| connection.forge) {
        Some(Forge::BitbucketDc) => true,
        Some(Forge::GitLab) => words::is_of_fork(full),
        _ => false,
    };
    Ok(if is_full { full } else { short }.to_owned())
}

fn of_job(
    view: &View,
    server: &ServerSettings,
    facts: &JobFacts,
) -> Result<Option<CommitStatus>, StoreError> {
    let Some((settings, slug)) = wants(view, &facts.project)? else { return Ok(None) };
    let Some(revision) = &facts.revision else { return Ok(None) };
    if matches!(facts.kind, JobType::Lock | JobType::Unlock) {
        return Ok(None);
    }
    let (name, state, description) = if settings.is_status_per_workflow {
        let state = ReportState::from(facts.workflow_status);
        (facts.workflow.clone(), state, in_words(state, None, None, None))
    } else {
        let name = match facts.kind {
            JobType::Build => facts.name.clone(),
            _ => format!("{}/{}", facts.workflow, facts.name),
        };
        let took = facts.started_at.zip(facts.stopped_at).map(|(from, to)| to.since(from));
        let state = ReportState::from(facts.status);
        let text = in_words(state, took, facts.failed_step.as_deref(), facts.canceled_by.as_deref());
        (name, state, text)
    };
    let url = match facts.number {
        Some(number) => server.job_url(&slug, number),
        None => format!("{}/{slug}", server.public_url),
    };
    Ok(Some(CommitStatus {
        project: facts.project.clone(),
        revision: revision.clone(),
        context: format!("{}{name}", prefix(&settings)),
        reference: reference(view, &facts.project, &facts.reference, &facts.full_reference)?,
        state,
        description,
        url,
        sent_word: None,
        sent_text: None,
        attempts: 0,
        since: Millis(0),
    }))
}

fn of_pipeline(
    view: &View,
    server: &ServerSettings,
    facts: &PipelineFacts,
) -> Result<Option<CommitStatus>, StoreError> {
    let Some((settings, slug)) = wants(view, &facts.project)? else { return Ok(None) };
    let Some(revision) = &facts.revision else { return Ok(None) };
    let first = match &facts.errors {
        Ok(errors) => {
            errors.first().map_or("the config has errors", |error| error.message.as_str()).to_owned()
        }
        Err(unreadable) => {
            record!(Error, project_id = facts.project, number = facts.number;
                "the errors of a pipeline cannot be told to its forge: {unreadable}"
            );
            format!("The config has errors, and what they are cannot be read: {unreadable}")
        }
    };
    Ok(Some(CommitStatus {
        project: facts.project.clone(),
        revision: revision.clone(),
        context: format!("{}config", prefix(&settings)),
        reference: reference(view, &facts.project, &facts.reference, &facts.full_reference)?,
        state: ReportState::Error,
        description: first.lines().next().unwrap_or_default().to_owned(),
        url: format!("{}/{slug}/{}", server.public_url, facts.number),
        sent_word: None,
        sent_text: None,
        attempts: 0,
        since: Millis(0),
    }))
}

/// A state in words for people.
fn in_words(state: ReportState, took: Option<Duration>, step: Option<&str>, by: Option<&str>) -> String {
    match state {
        ReportState::Blocked => "Waits for other jobs".to_owned(),
        ReportState::Queued => "Queued".to_owned(),
        ReportState::Running => "Running".to_owned(),
        ReportState::OnHold => "Waiting for approval".to_owned(),
        ReportState::Success => match took.map(|took| took.as_secs()) {
            None => "Passed".to_owned(),
            Some(seconds) if seconds < 60 => format!("Passed in {seconds}s"),
            Some(seconds) if seconds < 3600 => format!("Passed in {}m {}s", seconds / 60, seconds % 60),
            Some(seconds) => format!("Passed in {}h {}m", seconds / 3600, seconds / 60 % 60),
        },
        ReportState::Failed => step.map_or_else(|| "Failed".to_owned(), |step| format!("Failed: {step}")),
        ReportState::Canceled => by.map_or_else(|| "Canceled".to_owned(), |by| format!("Canceled by {by}")),
        ReportState::NotRun => "Not run".to_owned(),
        ReportState::Unauthorized => "Not authorized".to_owned(),
        ReportState::InfrastructureFail | ReportState::TerminatedUnknown | ReportState::Error => {
            "The runner could not do its part".to_owned()
        }
    }
}

async fn tell_all(
    state: &Shared,
    caller: &Arc<LazyCaller>,
    project: &ProjectId,
    due: Vec<CommitStatus>,
) -> Result<(), StoreError> {
    let way = match reach(state, project, Rights::Statuses).await? {
        Reach::Open(way) => way,
        Reach::Later(why) => return later(state, due, |_| NO_TOKEN_SECONDS, why).await,
        Reach::Away(why) => {
            let least = installation::AGAIN.as_secs();
            return later(state, due, |attempts| words::doubled(attempts).max(least), why).await;
        }
        Reach::Closed(why) => {
            // A token that comes later tells of what changes from then on.
            let project = project.clone();
            let write = move |tx: &Tx<'_>| {
                // Unless it came just now: whoever set it wants these told.
                if has_way(tx, &project)? {
                    return Ok(());
                }
                due.iter().try_for_each(|report| reports::set_sent(tx, report, None, Some(&why)))
            };
            return state.store.write(write).await;
        }
    };
    for report in due {
        if *state.stopping.borrow() {
            return Ok(());
        }
        let key = report.clone();
        let Some(report) = state.store.read(move |view| reports::again(view, &key)).await? else { continue };
        if !tell(state, caller, &way, report).await? {
            return Ok(());
        }
    }
    Ok(())
}

/// Postpones all that is due, by how often the first of it was tried.
async fn later(
    state: &Shared,
    due: Vec<CommitStatus>,
    seconds: impl Fn(u32) -> u64,
    why: String,
) -> Result<(), StoreError> {
    let Some(first) = due.into_iter().next() else { return Ok(()) };
    let verdict = Reply::Later { seconds: seconds(first.attempts), whole: true, why };
    note(state, None, first, "", verdict, Millis::now()).await.map(drop)
}

/// Tells one status. False when nothing more is to be told by this token for now.
async fn tell(
    state: &Shared,
    caller: &Arc<LazyCaller>,
    way: &Reached,
    report: CommitStatus,
) -> Result<bool, StoreError> {
    let kind = way.connection.forge;
    let word = words::word(kind, report.state, report.sent_word.is_some());
    let is_same = word.is_some()
        && report.sent_word.as_deref() == word
        && (!report.state.is_end() || report.sent_text.as_deref() == Some(&report.description));
    let is_refused = words::is_refused_after(kind, report.sent_word.as_deref(), word);
    let Some(word) = word.filter(|_| !is_same && !is_refused) else {
        let told = word.filter(|_| !is_refused);
        state.store.write(move |tx| reports::set_sent(tx, &report, told, None)).await?;
        return Ok(true);
    };
    let call = words::call(kind, &way.api, &way.name, &report, word);
    let called = way.call(caller, "POST", call.url, Vec::new(), Some(&call.body)).await;
    let now = Millis::now();
    let verdict = match called {
        Err(NoAnswer::Paused(rest)) => {
            // The call was not tried: all reports with this token wait.
            let (project, until) = (report.project, now.plus(rest));
            let why = NoAnswer::Paused(rest).to_string();
            state.store.write(move |tx| reports::postpone_all(tx, &project, &why, until)).await?;
            return Ok(false);
        }
        Err(NoAnswer::Failed(error)) => {
            let seconds = words::doubled(report.attempts);
            Reply::Later { seconds, whole: false, why: error.to_string() }
        }
        Ok(answer) if (300..400).contains(&answer.status) => {
            Reply::Later { seconds: MOVED_SECONDS, whole: true, why: words::said(&answer) }
        }
        Ok(answer) => {
            let pause = way.pace.rest().map(|rest| rest.as_secs().max(1));
            words::verdict(kind, answer.status, &String::from_utf8_lossy(&answer.body), &report, pause)
        }
    };
    let verdict = match verdict {
        // Another installation, other rights: the App may get a token that is better than this one.
        Reply::BadToken(why) if way.by == TokenSource::App => {
            state.installations.forget(&way.token);
            // A new installation of the App takes kept tokens back: the next one is got at once.
            let seconds = if report.attempts == 0 { 1 } else { NO_TOKEN_SECONDS };
            Reply::Later { seconds, whole: true, why }
        }
        other => other,
    };
    note(state, Some(way), report, word, verdict, now).await
}

/// Writes down what came of telling a status, by this way where there was one. Nothing is written where the project was
/// connected anew meanwhile: the status is still to be told, by the new way. False when nothing more is to be told by this
/// one for now.
async fn note(
    state: &Shared,
    way: Option<&Reached>,
    report: CommitStatus,
    word: &'static str,
    verdict: Reply,
    now: Millis,
) -> Result<bool, StoreError> {
    let verdict = match verdict {
        Reply::Later { why, .. } if now.since(report.since) > PATIENCE => Reply::GiveUp(why),
        other => other,
    };
    let (way, sealer) = (way.cloned(), state.settings.sealer.clone());
    let (of, said) = (report.clone(), verdict.clone());
    let write = move |tx: &Tx<'_>| {
        let holds = match (&way, &verdict) {
            (None, _) => true,
            // A status that a forge has taken counts, whichever token it came with.
            (Some(way), Reply::Done) => way.is_same_place(tx)?,
            (Some(way), _) => way.is_same_way(tx, &sealer)?,
        };
        if !holds {
            return Ok(false);
        }
        match verdict {
            Reply::Done => reports::set_sent(tx, &report, Some(word), None)?,
            Reply::GiveUp(why) => reports::set_sent(tx, &report, None, Some(&why))?,
            Reply::BadToken(why) => {
                let until = now.plus(Duration::from_secs(NO_TOKEN_SECONDS));
                forge::set_token_message(tx, &report.project, Some(&why))?;
                reports::postpone(tx, &report, &why, until)?;
                reports::postpone_all(tx, &report.project, &why, until)?;
            }
            Reply::Later { seconds, whole, why } => {
                let until = now.plus(Duration::from_secs(seconds));
                reports::postpone(tx, &report, &why, until)?;
                if whole {
                    reports::postpone_all(tx, &report.project, &why, until)?;
                }
            }
        }
        Ok(true)
    };
    if !state.store.write(write).await? {
        return Ok(false);
    }
    let project = &of.project;
    Ok(match said {
        Reply::Done => true,
        Reply::GiveUp(why) => {
            record!(Warn, project_id = project, context = of.context; "a forge was not told a status: {why}");
            true
        }
        Reply::BadToken(why) => {
            record!(Warn, project_id = project; "the token of a project is not used any more: {why}");
            false
        }
        Reply::Later { whole, .. } => !whole,
    })
}

#[cfg(test)]
mod tests {
    use super::{ReportState, in_words};
    use std::time::Duration;

    #[test]
    fn states_are_told_in_words() {
        let passed = |seconds| in_words(ReportState::Success, Some(Duration::from_secs(seconds)), None, None);
        assert_eq!(
            (&*passed(5), &*passed(185), &*passed(7260)),
            ("Passed in 5s", "Passed in 3m 5s", "Passed in 2h 1m")
        );
        assert_eq!(in_words(ReportState::Failed, None, Some("run tests"), None), "Failed: run tests");
        assert_eq!(in_words(ReportState::Canceled, None, None, Some("ada")), "Canceled by ada");
    }
}
