//! What happens by the clock: leases lapse, waits end, old things go.

pub(super) mod retention;
