//! Repositories that an earlier task left, before the first step of a job.

use super::checkout::WorkTree;
use super::left;
use crate::executor::end::StepEnd;
use crate::executor::host::TaskHost;
use crate::protocol::task_input::TaskInput;
use crate::protocol::{Step, StepAction};

/// Takes the settings of an earlier job from the repositories that `steps` are to check out into, before one of them begins:
/// what the steps set up there is known by that from what was left.
pub(in crate::executor) fn take_over(input: &TaskInput, host: &TaskHost, steps: &[Step]) {
    let Some(source) = &input.task.source else { return };
    for step in steps {
        let StepAction::Checkout { path, .. } = &step.action else { continue };
        let directory = host.places.of(path);
        let repository = directory.join(".git");
        if left::is_old(&repository, host.began)
            && host.places.may_check_out(&directory).is_ok()
            && left::other_owner(&repository).is_none()
            && left::set_aside(&repository, input.local_source.is_none()).is_ok()
        {
            let tree = WorkTree { input, host, directory: &directory, source };
            // A failure here comes again in the step, which reports it.
            let _ = tree.set_up(&mut |_, args| tree.asks(args).map(drop).ok_or_else(StepEnd::success));
        }
    }
}
