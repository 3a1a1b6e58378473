//! Why a machine runner could not begin.

use crate::http;
use std::fmt;

/// Why a runner could not begin.
#[derive(Debug)]
pub enum Error {
    /// Trust, URL or proxy cannot be set up.
    Http(http::Error),
    /// Another runner of the same name runs on this host; the message names its pid.
    Taken(String),
    /// The settings do not fit what they name.
    Settings(String),
    /// The system refused something essential.
    System(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Http(error) => error.fmt(f),
            Error::Taken(message) | Error::Settings(message) | Error::System(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {}
