//! Requests to a machine runner from outside its tasks: to stop, to leave, to read its settings again; and what the
//! service manager is told of it.

use super::state::RunningTask;
use super::tasks::Tasks;
use super::watched::Watched;
use super::{check, place, tools};
use crate::agent::board::Activity;
use crate::agent::lifecycle::Next;
use crate::agent::service::Service;
use crate::agent::settings::{self, Settings};
use crate::agent::stop::Level;
use crate::logging::{self, record};
use crate::protocol::duration;
use crate::system::clock::Rfc3339;
use std::time::{Duration, Instant, SystemTime};

/// How long a runner that leaves waits for its task to be handed over.
const HANDING_OVER: Duration = Duration::from_secs(5);

/// Requests to read the settings again.
pub(super) struct Reloads {
    /// Number of requests that were heard.
    heard: u32,
    /// The last one waits for the end of the task.
    wait: bool,
}

impl Reloads {
    /// Begins with this number of requests heard and none open.
    pub(super) fn since(heard: u32) -> Self {
        Self { heard, wait: false }
    }

    /// Reads the settings again when that was requested. The log is opened again at once; the rest waits for the end of
    /// a running task, which has begun with what was set before.
    fn hear(&mut self, tasks: &mut Tasks) {
        let reloads = tasks.claims.stop.reloads();
        let is_new = std::mem::replace(&mut self.heard, reloads) != reloads;
        if !tasks.settings.owns_process || !(is_new || self.wait) {
            return;
        }
        if is_new {
            // The log file may have moved: the present place is opened anew before new settings are read.
            if let Err(why) = logging::reopen(&tasks.settings.logging) {
                log::error!("the log stays where it was: {why}");
            }
        }
        self.wait = tasks.watched.is_some();
        if self.wait {
            return if is_new {
                log::info!("the settings are read again after the running task")
            };
        }
        match settings::load(tasks.settings.file.as_deref()).and_then(|settings| take(tasks, settings)) {
            Ok(()) => log::info!("read the settings again"),
            Err(why) => log::error!("the settings stay as they were: {why}"),
        }
    }
}

/// Tells the service manager what this runner is at.
pub(super) fn tell(service: &mut Service, tasks: &Tasks, next: &Next) {
    let Tasks { settings, claims, watched, .. } = tasks;
    let (draining, away) = (claims.level() >= Level::Drain, claims.life.away(Instant::now()));
    let since = |time| SystemTime::now().checked_sub(time).unwrap_or(SystemTime::UNIX_EPOCH);
    service.round(|| match (watched, away, next) {
        (_, _, Next::Exit(_)) => "stopping".to_owned(),
        (Some(watched), _, _) if draining => format!("draining: {}", watched.text()),
        (Some(watched), _, _) => watched.text(),
        (None, Some(away), _) => format!(
            "no usable answer from {} since {}, trying on",
            settings.endpoint.url,
            Rfc3339 { time: since(away), milliseconds: false }
        ),
        (None, None, Next::Sleep(_)) => {
            "pausing: no task could begin here, or claims are answered too soon".to_owned()
        }
        (None, None, _) => "idle, waiting for a task".to_owned(),
    });
}

/// Takes notice of requests to this runner.
pub(super) fn hear(service: &mut Service, reloads: &mut Reloads, tasks: &mut Tasks) {
    if tasks.claims.stop.leaves() {
        leave(tasks);
    }
    reloads.hear(tasks);
    let Tasks { settings, claims, watched, .. } = tasks;
    if claims.stop.level() >= Level::Drain {
        service.stopping();
        claims.board.state(Activity::Draining, "it was told to stop");
    }
    match (claims.hear(), watched) {
        (Some(Level::Drain), Some(watched)) => record!(Info, task_id = watched.task.id;
            "draining: no further tasks; the running one may finish within {}",
            duration::format(settings.max_run_time)
        ),
        (Some(Level::Drain), None) => log::info!("draining: no further tasks, none is running"),
        _ => {}
    }
}

/// Leaves the task agent to the next runner: what that has to know is on the disk.
fn leave(tasks: &mut Tasks) {
    let deadline = Instant::now() + HANDING_OVER;
    while tasks.watched.as_ref().is_some_and(|watched| watched.agent.is_being_fed())
        && Instant::now() < deadline
    {
        tasks.claims.stop.pause(Duration::from_millis(20));
    }
    tasks.claims.life.leave();
}

/// Goes on with other settings. What this runner is known by stays until the next start.
fn take(tasks: &mut Tasks, mut settings: Settings) -> Result<(), String> {
    let old = &tasks.settings;
    settings.owns_process = true;
    if settings.name != old.name || settings.state_directory != old.state_directory {
        log::warn!("another `runner.name` or `runner.state_directory` is used from the next start on");
        settings.name = old.name.clone();
        settings.state_directory = old.state_directory.clone();
    }
    let directory = &settings.working_directory;
    if *directory != old.working_directory {
        tasks.place = Some(place::take(directory, settings.state_directory.as_deref())?);
    }
    logging::reopen(&settings.logging)?;
    tasks.claims.reset(&settings).map_err(|error| error.to_string())?;
    for warning in &settings.warnings {
        log::warn!("{warning}");
    }
    check::at_start(&settings);
    tasks.agents.tool_directory = tools::prepare(&settings, &tasks.agents.program);
    tasks.settings = settings;
    Ok(())
}

impl Watched {
    /// Describes the present work, for the status.
    fn text(&self) -> String {
        let since = Rfc3339 { time: self.since, milliseconds: false };
        let RunningTask { id, job_name, resource_class, .. } = &self.task;
        let what = match self.rest {
            Some(_) => "sending what is left of",
            None => "running",
        };
        format!("{what} {resource_class} job {job_name} since {since}, task {id}")
    }
}
