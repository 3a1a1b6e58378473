//! Answers without an end in sight: event streams and downloads, read as they arrive.

use super::{Client, Error};
use crate::protocol::Secret;
use std::io::Read;

impl Client {
    /// Gets `path` and returns its body for reading as it arrives. Any status but 200 is an error.
    pub fn open(&self, path: &str, token: &Secret) -> Result<impl Read + use<>, Error> {
        let url = if path.starts_with('/') { format!("{}{path}", self.url) } else { path.to_owned() };
        let call = self.agent.get(&url).header("Authorization", format!("Bearer {}", token.expose()));
        let answer = call.call().map_err(|error| {
            let why = self.explain(&error);
            Error::Transport(format!("failed to GET `{url}`: {why}"))
        })?;
        let status = answer.status().as_u16();
        if status != 200 {
            let message = format!("GET `{url}` was refused with status {status}");
            return Err(Error::Refused { status, retry_after: None, refusal: None, message });
        }
        Ok(answer.into_body().into_reader())
    }
}
