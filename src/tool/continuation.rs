//! `pipeline continue`: a job of a setup workflow sends the config that its pipeline goes on with.
//!
//! The key in `CIRCLE_CONTINUATION_KEY` authorises the call; where the control plane is, and how to
//! trust it, the task agent has left in a file of its scratch directory. Hosts need neither curl nor jq.

use super::halt::TASK_DATA;
use crate::http::{Body, Client, Endpoint, Request};
use crate::protocol::json;
use crate::protocol::task_input::TaskEndpoint;
use serde::Serialize;
use serde_json::Value;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Variable that holds the key, in jobs of a setup workflow only.
const KEY: &str = "CIRCLE_CONTINUATION_KEY";

/// Longest config and longest parameters, in bytes.
const LONGEST: u64 = crate::protocol::limits::SOURCE_BYTES as u64;

/// The file of a scratch directory that says where the control plane is. It holds no token.
pub(crate) fn endpoint_file(scratch: &Path) -> PathBuf {
    scratch.join("endpoint.json")
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Continuation<'a> {
    continuation_key: &'a str,
    configuration: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Value>,
}

/// Sends the config in the file `config` (`-` is standard input); `parameters` is a JSON object or the
/// name of a file that holds one.
pub(super) fn go_on(
    config: &str,
    parameters: Option<&str>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<(), String> {
    let outside = |name: &str| {
        format!(
            "cannot continue the pipeline: `{name}` is not set; only jobs of a setup workflow (`setup: true`) can, once"
        )
    };
    let key = variable(KEY).and_then(|v| v.into_string().ok()).filter(|v| !v.is_empty());
    let key = key.ok_or_else(|| outside(KEY))?;
    let scratch = variable(TASK_DATA).filter(|v| !v.is_empty()).ok_or_else(|| outside(TASK_DATA))?;
    let configuration = read(config)?;
    let parameters = parameters.map(parse_parameters).transpose()?;

    let file = endpoint_file(Path::new(&scratch));
    let text = std::fs::read(&file)
        .map_err(|e| format!("cannot continue the pipeline: failed to read `{}`: {e}", file.display()))?;
    let place: TaskEndpoint = json::read(&text)
        .map_err(|e| format!("cannot continue the pipeline: `{}` is damaged: {e}", file.display()))?;
    let client = Client::new(&Endpoint {
        url: place.url,
        ca_file: place.ca_file,
        client_certificate: place.client_certificate_file.zip(place.client_key_file),
    })
    .map_err(|e| e.to_string())?;
    let call = Continuation { continuation_key: &key, configuration: &configuration, parameters };
    let body = serde_json::to_vec(&call).map_err(|e| e.to_string())?;
    let request = Request {
        method: "POST",
        path: "/api/v2/pipeline/continue",
        token: None,
        body: Body::Json(&body),
        timeout: Duration::from_secs(60),
    };
    client.json::<Value>(&request).map_err(|e| format!("failed to continue the pipeline: {e}"))?;
    Ok(())
}

fn parse_parameters(given: &str) -> Result<Value, String> {
    let text = if given.trim_start().starts_with('{') { given.to_owned() } else { read(given)? };
    let value =
        json::tree(text.as_bytes()).map_err(|e| format!("the parameters in `{given}` are not JSON: {e}"))?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(format!("the parameters in `{given}` are not a JSON object"))
    }
}

fn read(name: &str) -> Result<String, String> {
    let mut text = String::new();
    let read = match name {
        "-" => std::io::stdin().take(LONGEST + 1).read_to_string(&mut text),
        name => std::fs::File::open(name).and_then(|file| file.take(LONGEST + 1).read_to_string(&mut text)),
    };
    read.map_err(|e| format!("failed to read `{name}`: {e}"))?;
    if text.len() as u64 > LONGEST {
        return Err(format!("`{name}` is longer than {LONGEST} bytes"));
    }
    Ok(text)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn it_needs_a_setup_job_and_readable_input() {
        let nothing = |_: &str| None;
        assert!(go_on("x.yml", None, nothing).unwrap_err().contains("setup: true"));
        let some = |_: &str| Some(OsString::from("/nonexistent"));
        assert!(
            go_on("/nonexistent/x.yml", None, some)
                .unwrap_err()
                .contains("failed to read `/nonexistent/x.yml`")
        );
    }

    #[test]
    fn parameters_are_an_object_given_or_in_a_file() {
        assert_eq!(parse_parameters(" {\"a\": 1}").unwrap()["a"], 1);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[1]").unwrap();
        let error = parse_parameters(file.path().to_str().unwrap()).unwrap_err();
        assert!(error.contains("not a JSON object"), "{error}");
        assert!(parse_parameters("{").unwrap_err().contains("not JSON"));
    }
}
