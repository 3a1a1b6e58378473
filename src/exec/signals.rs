//! Signals that end a run.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// Counts Ctrl-C, TERM and the terminal going away.
pub(super) struct Interrupts(Arc<Heard>);

#[derive(Default)]
struct Heard {
    count: AtomicU32,
    first: AtomicI32,
}

impl Interrupts {
    /// Begins to listen.
    pub(super) fn start() -> std::io::Result<Self> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let heard = Arc::new(Heard::default());
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let here = Arc::clone(&heard);
        let wait = move || {
            for signal in signals.forever() {
                if here.count.fetch_add(1, Ordering::SeqCst) == 0 {
                    here.first.store(signal, Ordering::SeqCst);
                }
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(wait)?;
        Ok(Self(heard))
    }

    /// Signals so far.
    pub(super) fn count(&self) -> u32 {
        self.0.count.load(Ordering::SeqCst)
    }

    /// The exit code of a run that was ended by a signal, as shells count them.
    pub(super) fn code(&self) -> u8 {
        let first = self.0.first.load(Ordering::SeqCst);
        u8::try_from(128 + first).unwrap_or(crate::outcome::exit::INTERRUPTED)
    }
}
