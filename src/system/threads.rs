//! Starts threads by one function. The standard library compiles a few kilobytes for each type of closure that it
//! starts; boxed work has one type.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// Starts a thread with the usual stack.
pub fn start(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    start_boxed(Builder::new().name(name.to_owned()), Box::new(work))
}

/// Starts a thread with a stack of so many bytes.
pub fn start_small(
    name: &str,
    stack_bytes: usize,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    start_boxed(Builder::new().name(name.to_owned()).stack_size(stack_bytes), Box::new(work))
}

/// Does work that cannot be given a time on a thread of its own. `None` when it takes longer than `time`, or there is
/// no thread for it.
pub fn within<T: Send + 'static>(
    name: &str,
    time: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let place = Arc::new((Mutex::new(None), Condvar::new()));
    let done = Arc::clone(&place);
    let run = move || {
        let result = work();
        *done.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        done.1.notify_all();
    };
    start(name, run).ok()?;
    let waiting = place.0.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = place.1.wait_timeout_while(waiting, time, |result| result.is_none());
    waited.unwrap_or_else(PoisonError::into_inner).0.take()
}

fn start_boxed(thread: Builder, work: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
    thread.spawn(work)
}

#[cfg(test)]
mod tests {
    #[test]
    fn work_is_waited_for_and_given_up() {
        use std::time::Duration;
        assert_eq!(super::within("quick", Duration::from_secs(600), || 7), Some(7));
        let (never, nothing) = std::sync::mpsc::channel::<()>();
        assert!(super::within("slow", Duration::ZERO, move || nothing.recv().is_ok()).is_none());
        drop(never);
    }

    #[test]
    fn a_thread_has_its_name_and_does_its_work() -> std::io::Result<()> {
        let (sender, receiver) = std::sync::mpsc::channel();
        let name = || std::thread::current().name().map(str::to_owned);
        let second = sender.clone();
        super::start("one", move || drop(sender.send(name())))?;
        super::start_small("two", 64 * 1024, move || drop(second.send(name())))?;
        let mut names: Vec<_> = receiver.iter().collect();
        names.sort();
        assert_eq!(names, [Some("one".to_owned()), Some("two".to_owned())]);
        Ok(())
    }
}
