//! The container runner: `runlet container` claims tasks and runs each in a pod of the cluster it runs in.
//!
//! ```text
//!  claims (a thread a class) --task--> run (owns all tasks) --acts--> workers --> API server, control plane
//!                                        ^        ^      ^               |
//!  watch (one for the namespace) --pods--+        |      +--what became--+
//!  sweep (pods and secrets left behind) ----------+
//!  nodes (whether there are any for a class) --closes--> claims
//! ```
//!
//! `life` decides what happens to a task, `judge` what a pod says, `manifest` what is created; none of them does IO. The
//! agent in the pod is [`crate::pod`]: it gets the task by itself and answers for it from its begin on.

mod api;
mod check;
mod claims;
mod judge;
mod life;
mod logs;
mod manifest;
mod nodes;
mod plane;
mod run;
mod services;
mod settings;
mod slots;
mod story;
mod sweep;
mod tracked;
mod work;

use crate::http::Client;
use crate::logging;
use crate::outcome::{Failure, Outcome, exit, print};
use crate::protocol::Secret;
use api::Kube;
use lexopt::Arg::{Long, Short};
use settings::{ClassSettings, ContainerSettings};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use work::Tools;

/// Connections to the control plane that wait for the next call.
const CONNECTIONS: usize = 8;

pub(crate) const HELP: &str = include_str!("help.txt");

/// Runs `runlet container` with the arguments after the command.
pub fn command(args: Vec<OsString>) -> Outcome {
    crate::system::keep_memory_private();
    let mut file: Option<PathBuf> = None;
    let mut only_check = false;
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(arg) = parser.next()? {
        match arg {
            Long("config") | Short('c') => file = Some(parser.value()?.into()),
            Long("check") => only_check = true,
            Long("help") | Short('h') => return print(HELP),
            other => return Err(other.unexpected().into()),
        }
    }
    let settings = settings::load(file.as_deref()).map_err(Failure::usage)?;
    logging::init(&settings.logging).map_err(Failure::usage)?;
    for warning in &settings.warnings {
        log::warn!("{warning}");
    }
    let ready = Arc::new(AtomicBool::new(false));
    if let Some(address) = settings.health.as_deref().filter(|_| !only_check) {
        crate::system::probes::serve(address, Arc::clone(&ready));
    }
    let kube = Kube::new(&settings.cluster).map_err(|fault| Failure::new(fault.to_string()))?;
    if only_check {
        return check_all(&settings, &kube);
    }
    let (tools, classes) = prepare(settings, kube).map_err(Failure::new)?;
    log::info!(
        "claiming for {} resource classes in the namespace `{}`",
        classes.len(),
        tools.settings.cluster.namespace
    );
    let runner = run::Runner::start(tools, classes, stop_on_signals).map_err(Failure::new)?;
    ready.store(true, Ordering::Relaxed);
    runner.run().map(|()| exit::OK).map_err(Failure::new)
}

/// Makes the calls that precede the first claim, and reads the tokens of all classes.
fn prepare(settings: ContainerSettings, kube: Kube) -> Result<(Tools, Vec<(ClassSettings, Secret)>), String> {
    let plane = Client::of_busy_runner(&settings.endpoint, CONNECTIONS).map_err(|error| error.to_string())?;
    let classes = check::tokens(&settings, &kube)?;
    match check::missing_rights(&settings, &kube) {
        Ok(missing) if missing.is_empty() => {}
        Ok(missing) => return Err(lacks(&settings, &missing)),
        Err(fault) => log::warn!("the rights of the service account could not be checked: {fault}"),
    }
    let ca = settings.endpoint.ca_file.as_ref().map(|file| {
        std::fs::read_to_string(file).map_err(|error| format!("cannot read `{}`: {error}", file.display()))
    });
    let init_image = match &settings.init_image {
        Some(image) => image.clone(),
        None => own_image(&settings, &kube)?,
    };
    Ok((Tools { ca: ca.transpose()?, init_image, plane, kube, settings }, classes))
}

fn lacks(settings: &ContainerSettings, missing: &[String]) -> String {
    format!(
        "the service account lacks rights in the namespace `{}`: {} (the chart's roles grant them: `rbac.create`)",
        settings.cluster.namespace,
        missing.join(", ")
    )
}

/// The image that this agent runs from: it has this program in it, of this version.
fn own_image(settings: &ContainerSettings, kube: &Kube) -> Result<String, String> {
    let what =
        "the image of the init container is not named (`orchestrator.image`, or KUBE_RUNNER_INIT_IMAGE)";
    let pod = kube
        .pod(&settings.instance)
        .map_err(|fault| format!("{what}, and the pod of this agent cannot be read: {fault}"))?;
    let first = pod.spec.containers.into_iter().next().map(|container| container.image);
    first
        .filter(|image| !image.is_empty())
        .ok_or_else(|| format!("{what}, and the pod `{}` has none", settings.instance))
}

/// Runs `--check`: says of each condition whether it holds.
fn check_all(settings: &ContainerSettings, kube: &Kube) -> Outcome {
    let mut wrong = Vec::new();
    match check::missing_rights(settings, kube) {
        Ok(missing) if missing.is_empty() => print("ok: rights of the service account\n")?,
        Ok(missing) => {
            wrong.push(lacks(settings, &missing));
            exit::FAILED
        }
        Err(fault) => {
            wrong.push(format!("the API server `{}`: {fault}", settings.cluster.url));
            exit::FAILED
        }
    };
    match (check::tokens(settings, kube), Client::of_runner(&settings.endpoint)) {
        (Ok(classes), Ok(client)) => {
            for (class, token) in classes {
                match check::class_token(&client, &token, &settings.name, &class.name.to_string()) {
                    Ok(()) => drop(print(&format!("ok: token of `{}`\n", class.name))?),
                    Err(why) => wrong.push(format!("`{}`: {why}", class.name)),
                }
            }
        }
        (Err(why), _) => wrong.push(why),
        (_, Err(error)) => wrong.push(error.to_string()),
    }
    if settings.init_image.is_none() {
        wrong.extend(own_image(settings, kube).err());
    }
    match wrong.is_empty() {
        true => print("ok: the runner can start\n"),
        false => Err(Failure::new(wrong.join("\nrunlet: "))),
    }
}

fn stop_on_signals(sender: Sender<run::LoopEvent>) -> std::io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT])?;
    let thread = std::thread::Builder::new().name("signals".to_owned()).stack_size(64 * 1024);
    let listening = thread.spawn(move || {
        for _ in signals.forever() {
            if sender.send(run::LoopEvent::Stop).is_err() {
                return;
            }
        }
    });
    listening.map(drop)
}
