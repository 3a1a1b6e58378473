//! Exit codes.

/// Everything went well.
pub const OK: u8 = 0;
/// A job failed, or the program could not do what it was asked.
pub const FAILED: u8 = 1;
/// The arguments or settings are wrong.
pub const USAGE: u8 = 2;
/// The control plane does not accept the token.
pub const AUTHENTICATION: u8 = 3;
/// The control plane refused the request.
pub const REFUSED: u8 = 4;
/// The control plane has no such thing.
pub const NOT_FOUND: u8 = 5;
/// A config is not valid.
pub const INVALID_CONFIG: u8 = 7;
/// Interrupted by a person (128 + SIGINT).
pub const INTERRUPTED: u8 = 130;
