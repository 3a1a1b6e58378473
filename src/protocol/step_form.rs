//! A step as it is read: all fields of all kinds of steps side by side. To read each kind by its own fields, a reader
//! would have to keep what it has read until it knows the kind, and would be in the runner twice.

use super::job::{CheckoutMethod, Run, Step, StepAction, When};
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

/// The fields of a step.
#[derive(Deserialize)]
struct StepForm {
    name: String,
    when: When,
    #[serde(rename = "type")]
    kind: Kind,
    command: Option<String>,
    shell: Option<String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    background: bool,
    working_directory: Option<String>,
    no_output_timeout_ms: Option<u64>,
    #[serde(default)]
    max_auto_reruns: u32,
    #[serde(default)]
    auto_rerun_delay_ms: u64,
    #[serde(default)]
    first_node_only: bool,
    path: Option<String>,
    method: Option<CheckoutMethod>,
    destination: Option<String>,
    key: Option<String>,
    keys: Option<Vec<String>>,
    root: Option<String>,
    paths: Option<Vec<String>>,
    at: Option<String>,
    fingerprints: Option<Vec<String>>,
}

/// The kinds of steps, as [`StepAction`] has them.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Run,
    Checkout,
    StoreArtifacts,
    StoreTestResults,
    SaveCache,
    RestoreCache,
    PersistToWorkspace,
    AttachWorkspace,
    AddSshKeys,
    SetupRemoteDocker,
    InstallSigningBundle,
}

impl<'de> Deserialize<'de> for Step {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        StepForm::deserialize(deserializer)?.step().map_err(Error::custom)
    }
}

impl StepForm {
    fn step(self) -> Result<Step, String> {
        let action = match self.kind {
            Kind::Run => StepAction::Run(Run {
                command: given(self.command, "command")?,
                shell: self.shell,
                environment: self.environment,
                background: self.background,
                working_directory: self.working_directory,
                no_output_timeout_ms: given(self.no_output_timeout_ms, "no_output_timeout_ms")?,
                max_auto_reruns: self.max_auto_reruns,
                auto_rerun_delay_ms: self.auto_rerun_delay_ms,
                first_node_only: self.first_node_only,
            }),
            Kind::Checkout => StepAction::Checkout {
                path: given(self.path, "path")?,
                method: given(self.method, "method")?,
            },
            Kind::StoreArtifacts => {
                StepAction::StoreArtifacts { path: given(self.path, "path")?, destination: self.destination }
            }
            Kind::StoreTestResults => StepAction::StoreTestResults { path: given(self.path, "path")? },
            Kind::SaveCache => {
                StepAction::SaveCache { key: given(self.key, "key")?, paths: given(self.paths, "paths")? }
            }
            Kind::RestoreCache => StepAction::RestoreCache { keys: given(self.keys, "keys")? },
            Kind::PersistToWorkspace => StepAction::PersistToWorkspace {
                root: given(self.root, "root")?,
                paths: given(self.paths, "paths")?,
            },
            Kind::AttachWorkspace => StepAction::AttachWorkspace { at: given(self.at, "at")? },
            Kind::AddSshKeys => {
                StepAction::AddSshKeys { fingerprints: given(self.fingerprints, "fingerprints")? }
            }
            Kind::SetupRemoteDocker => StepAction::SetupRemoteDocker,
            Kind::InstallSigningBundle => StepAction::InstallSigningBundle,
        };
        Ok(Step { name: self.name, when: self.when, action })
    }
}

fn given<T>(field: Option<T>, name: &str) -> Result<T, String> {
    field.ok_or_else(|| format!("missing field `{name}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn every_kind_is_read_as_it_is_written() {
        let run = Run {
            command: "make".to_owned(),
            shell: Some("sh".to_owned()),
            environment: BTreeMap::from([("A".to_owned(), "b".to_owned())]),
            background: true,
            working_directory: Some("x".to_owned()),
            no_output_timeout_ms: 600_000,
            max_auto_reruns: 2,
            auto_rerun_delay_ms: 3,
            first_node_only: true,
        };
        let path = || "p".to_owned();
        let all = [
            StepAction::Run(run),
            StepAction::Checkout { path: path(), method: CheckoutMethod::Shallow { depth: 3 } },
            StepAction::StoreArtifacts { path: path(), destination: Some("d".to_owned()) },
            StepAction::StoreTestResults { path: path() },
            StepAction::SaveCache { key: "k".to_owned(), paths: words(&["a", "b"]) },
            StepAction::RestoreCache { keys: words(&["k", "l"]) },
            StepAction::PersistToWorkspace { root: "r".to_owned(), paths: words(&["a"]) },
            StepAction::AttachWorkspace { at: "r".to_owned() },
            StepAction::AddSshKeys { fingerprints: words(&["f"]) },
            StepAction::SetupRemoteDocker,
            StepAction::InstallSigningBundle,
        ];
        for action in all {
            let step = Step { name: "n".to_owned(), when: When::OnFail, action };
            let text = serde_json::to_vec(&step).unwrap_or_default();
            assert_eq!(serde_json::from_slice::<Step>(&text).ok().as_ref(), Some(&step));
            assert_eq!(crate::protocol::json::read(&text).ok(), Some(step));
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let error = |text: &str| {
            crate::protocol::json::read::<Step>(text.as_bytes()).err().map(|error| error.to_string())
        };
        let unknown = error(r#"{"name":"n","when":"always","type":"teleport","to":[1]}"#).unwrap_or_default();
        assert!(unknown.starts_with("unknown variant `teleport`, expected one of `run`"), "{unknown}");
        let missing = error(r#"{"name":"n","when":"always","type":"save_cache","key":"k"}"#);
        assert_eq!(missing.as_deref(), Some("missing field `paths`"));
    }
}
