//! The runners that a job is for: its queue, and the end of a job that no runner may take. No IO.

use crate::config::{Executor, JobKind};
use crate::protocol::TaskKind;
use crate::server::state::{Elsewhere, Routing};
use crate::server::store::status::JobStatus;
use crate::server::store::tables::jobs::CannotRun;

/// The queue of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement<'a> {
    /// The resource class that its tasks wait in; `None` for a job that has no tasks.
    pub resource_class: Option<&'a str>,
    /// The kind of runner that they are for.
    pub task_kind: TaskKind,
    /// Number of tasks.
    pub parallelism: u32,
    /// Set when no runner may take it.
    pub cannot_run: Option<CannotRun>,
    /// A remark for people on how it runs.
    pub remark: Option<String>,
}

/// The queue of a compiled job.
pub fn of<'a>(kind: &'a JobKind, routing: &'a Routing) -> Placement<'a> {
    let JobKind::Build { job, executor } = kind else {
        return Placement {
            resource_class: None,
            task_kind: TaskKind::Machine,
            parallelism: 1,
            cannot_run: None,
            remark: None,
        };
    };
    let class = job.resource_class.as_str();
    let task_kind = match (executor.task_kind(class), routing.elsewhere) {
        (Some(TaskKind::Container), Elsewhere::Skip) => None,
        (_, Elsewhere::OnHost) if executor.is_known() => Some(TaskKind::Machine),
        (kind, _) => kind,
    };
    let refused = executor.refused_in_containers().filter(|_| task_kind == Some(TaskKind::Container));
    let cannot_run = (task_kind.is_none() || refused.is_some()).then(|| {
        if let Some(why) = refused {
            return CannotRun {
                status: JobStatus::Failed,
                message: format!("no runner can take this job: {why}"),
            };
        }
        let status = match routing.elsewhere {
            Elsewhere::Skip | Elsewhere::OnHost if !executor.is_known() => JobStatus::NotRun,
            Elsewhere::Skip => JobStatus::NotRun,
            Elsewhere::Fail | Elsewhere::OnHost => JobStatus::Failed,
        };
        CannotRun { status, message: reason(executor, class, routing.elsewhere) }
    });
    Placement {
        resource_class: Some(routing.route_all_to.as_deref().unwrap_or(class)),
        task_kind: task_kind.unwrap_or(TaskKind::Machine),
        parallelism: job.parallelism,
        cannot_run,
        remark: (routing.elsewhere == Elsewhere::OnHost).then(|| remark(executor)).flatten(),
    }
}

/// Names the things that a job which wants to run elsewhere goes without on the host.
fn remark(executor: &Executor) -> Option<String> {
    if *executor == Executor::Machine || !executor.is_known() {
        return None;
    }
    let ignored = executor.ignored_on_host();
    let without = match ignored.as_slice() {
        [] => String::new(),
        ignored => format!(", without {}", ignored.join(", ")),
    };
    Some(format!("runs on this host{without}"))
}

fn reason(executor: &Executor, class: &str, elsewhere: Elsewhere) -> String {
    let what = executor.describe(class);
    match elsewhere {
        Elsewhere::Skip | Elsewhere::OnHost if !executor.is_known() => {
            format!("cannot run here: it wants {what} (`--orbs`)")
        }
        Elsewhere::Skip => {
            format!("cannot run here: it wants {what} (`--on-host` runs its steps on this host)")
        }
        Elsewhere::Fail | Elsewhere::OnHost => format!(
            "no runner can take this job: it wants {what} of the hosted service (for runners of your own write {})",
            executor.for_own_runners()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Image;
    use crate::protocol::Job;
    use std::collections::BTreeMap;

    fn build(executor: Executor, class: &str) -> JobKind {
        let job = Job { parallelism: 2, ..Job::without_steps(class.to_owned()) };
        JobKind::Build { job: Box::new(job), executor }
    }

    fn docker() -> Executor {
        Executor::Docker { images: vec![Image { image: "cimg/go:1.25".to_owned(), ..Image::default() }] }
    }

    #[test]
    fn a_job_without_its_orbs_runs_nowhere() {
        for elsewhere in [Elsewhere::Skip, Elsewhere::OnHost] {
            let routing = Routing { route_all_to: Some("runlet/exec".to_owned()), elsewhere };
            let kind = build(Executor::MissingOrbs { references: vec!["acme/x1@1".to_owned()] }, "a/b");
            let place = of(&kind, &routing);
            let end = place.cannot_run.expect("an end");
            let why = "cannot run here: it wants the orb `acme/x1@1`, which is not here (`--orbs`)";
            assert_eq!((end.status, &*end.message), (JobStatus::NotRun, why));
            assert_eq!(place.remark, None);
        }
    }

    #[test]
    fn no_machine_runner_is_for_a_container_and_what_nobody_takes_ends() {
        let routed = |elsewhere| Routing { route_all_to: Some("runlet/exec".to_owned()), elsewhere };
        let end = |executor: Executor, class: &str, routing: &Routing| {
            let kind = build(executor, class);
            let place = of(&kind, routing);
            let end = place.cannot_run.map(|end| (end.status, end.message));
            (place.resource_class.map(str::to_owned), place.task_kind, end.map(|(status, _)| status))
        };
        let (own, here) = (Some("a/b".to_owned()), Some("runlet/exec".to_owned()));
        let server = Routing::default();
        assert_eq!(end(Executor::Machine, "a/b", &server), (own.clone(), TaskKind::Machine, None));
        assert_eq!(end(docker(), "a/b", &server), (own, TaskKind::Container, None));
        let hosted = end(docker(), "large", &server);
        assert_eq!(hosted, (Some("large".to_owned()), TaskKind::Machine, Some(JobStatus::Failed)));
        let skipped = (here.clone(), TaskKind::Machine, Some(JobStatus::NotRun));
        assert_eq!(end(docker(), "a/b", &routed(Elsewhere::Skip)), skipped);
        assert_eq!(end(Executor::Macos { xcode: None }, "", &routed(Elsewhere::Skip)), skipped);
        assert_eq!(end(docker(), "", &routed(Elsewhere::OnHost)), (here, TaskKind::Machine, None));
    }

    #[test]
    fn a_login_that_container_runners_do_not_do_is_refused_by_name() {
        let login = BTreeMap::from([("aws_access_key_id".to_owned(), "$KEY".to_owned())]);
        let image = Image { image: "1.dkr.ecr/x".to_owned(), aws_auth: login, ..Image::default() };
        let kind = build(Executor::Docker { images: vec![image] }, "a/b");
        let end = of(&kind, &Routing::default()).cannot_run.expect("an end");
        assert_eq!(end.status, JobStatus::Failed);
        assert!(end.message.contains("`1.dkr.ecr/x` has `aws_auth`"), "{}", end.message);
        let here = Routing { route_all_to: Some("runlet/exec".to_owned()), elsewhere: Elsewhere::OnHost };
        assert_eq!(of(&kind, &here).cannot_run.map(|end| end.message), None);
    }

    #[test]
    fn the_reason_names_what_the_job_wants() {
        let kind = build(docker(), "");
        let end = of(&kind, &Routing::default()).cannot_run.map(|end| end.message).unwrap_or_default();
        assert!(end.contains("containers (`cimg/go:1.25`)") && end.contains("machine: true"), "{end}");
        let kind = build(Executor::HostedMachine { image: None, layer_caching: false }, "arm.medium");
        let end = of(&kind, &Routing::default()).cannot_run.map(|end| end.message).unwrap_or_default();
        assert!(end.contains("a virtual machine (`arm.medium`)"), "{end}");
    }
}
