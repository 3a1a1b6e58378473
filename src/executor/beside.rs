//! Work of a step that may hang, on a slow disk or in a call, beside the thread that runs the steps and hears of stops.

use super::child::TaskMessage;
use super::control::Control;
use super::end::{ChildEnd, StepEnd, end_of};
use crate::system::threads;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long work that hears of a stop may take to clean up, before it is left alone.
const LEAVE: Duration = Duration::from_secs(1);

/// Does work that may hang, on a slow disk or in a call, on a thread of its own, while this one hears of stops.
/// Then the work is told by its flag, and left alone. The error is the end of the step.
pub(super) fn beside<T: Send + 'static>(
    control: &mut Control,
    work: impl FnOnce(&AtomicBool) -> T + Send + 'static,
) -> Result<T, StepEnd> {
    let place = Arc::new(Mutex::new(None));
    let result = place.clone();
    wait_for(
        control,
        Box::new(move |stop| {
            let done = work(stop);
            *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
        }),
    )?;
    let done = place.lock().unwrap_or_else(PoisonError::into_inner).take();
    done.ok_or_else(|| StepEnd::failed("the work of the step ended in the middle"))
}

/// [`beside`] for work of any kind, so that there is one of it in the program.
fn wait_for(control: &mut Control, work: Box<dyn FnOnce(&AtomicBool) + Send>) -> Result<(), StepEnd> {
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (told, says, sender) = (stop.clone(), done.clone(), control.sender.clone());
    let run = move || {
        work(&told);
        says.store(true, Ordering::SeqCst);
        let _ = sender.send(TaskMessage::Done);
    };
    let started = threads::start("work", run);
    started.map_err(|error| StepEnd::by_error("cannot start a thread for the step", &error))?;
    let mut until = None;
    loop {
        // In this order: messages that were taken in may have told of the end.
        let reason = control.stopped();
        if done.load(Ordering::SeqCst) && until.is_none() {
            return Ok(());
        }
        let mut look = control.next_look(Instant::now());
        if let Some(reason) = reason {
            stop.store(true, Ordering::SeqCst);
            let until = *until.get_or_insert_with(|| Instant::now() + LEAVE);
            if done.load(Ordering::SeqCst) || Instant::now() >= until {
                return Err(end_of(ChildEnd::Stopped(reason)));
            }
            look = Some(until);
        }
        control.receive(look);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::background::Background;
    use crate::executor::output::report::Reporter;
    use crate::executor::output::secrets::Secrets;
    use crate::http::{Client, Endpoint};
    use crate::protocol::StepStatus;
    use std::sync::mpsc::{self, Sender};

    /// A task whose control plane nobody asks, and the sender of its messages.
    fn task() -> (Control, Sender<TaskMessage>) {
        let url = "http://127.0.0.1:1".to_owned();
        let client = Client::new(&Endpoint { url, ca_file: None, client_certificate: None });
        let task = crate::executor::example::task("1");
        let reporter = Reporter::new(client.expect("no connection yet"), &task, |_| ());
        let channel = mpsc::channel();
        let sender = channel.0.clone();
        let background = Background::new("/s".into(), reporter.clone(), Secrets::default());
        (Control::new(channel, reporter, Duration::ZERO, background), sender)
    }

    #[test]
    fn work_that_hangs_is_left_when_the_task_is_stopped() {
        let (mut task, sender) = task();
        assert_eq!(beside(&mut task, |stop| stop.load(Ordering::SeqCst)), Ok(false));
        // Nobody ever writes: as a read of a disk that is gone.
        let (never, nothing) = mpsc::channel::<()>();
        let begun = sender.clone();
        let hangs = move |_: &AtomicBool| {
            let _ = begun.send(TaskMessage::Cancel);
            nothing.recv().is_ok()
        };
        let end = beside(&mut task, hangs).expect_err("it was stopped");
        assert_eq!(end.status, StepStatus::Canceled);
        drop(never);
        // Work that hears of it ends by itself, and its result is no more than that of work that was left.
        let hears = |stop: &AtomicBool| {
            while !stop.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
        };
        assert_eq!(beside(&mut task, hears).expect_err("it was stopped").status, StepStatus::Canceled);
    }
}
