//! Exit codes.

/// Everything went well.
pub const OK: u8 = 0;
/// A job failed, or the program could not do what it was asked.
pub const FAILED: u8 = 1;
/// The arguments or settings are wrong.
pub const USAGE: u8 = 2;
/// A config is not valid.
pub const INVALID_CONFIG: u8 = 7;
/// Interrupted by a person (128 + SIGINT).
pub const INTERRUPTED: u8 = 130;
