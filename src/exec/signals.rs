//! Signals that end a run.

use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// Counts Ctrl-C, TERM and the terminal going away.
pub(super) struct Interrupts(&'static Heard);

/// Signals are sent to the process, and whatever it waits for asks here.
static HEARD: Heard = Heard { count: AtomicU32::new(0), first: AtomicI32::new(0) };

struct Heard {
    count: AtomicU32,
    first: AtomicI32,
}

impl Interrupts {
    /// Begins to listen.
    pub(super) fn start() -> std::io::Result<Self> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let wait = move || {
            for signal in signals.forever() {
                // The code of a signal that counts is known.
                let _ = HEARD.first.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst);
                HEARD.count.fetch_add(1, Ordering::SeqCst);
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(wait)?;
        Ok(Self(&HEARD))
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

/// Whether a signal has ended the run of this process.
pub(super) fn is_ended() -> bool {
    HEARD.count.load(Ordering::SeqCst) > 0
}
