//! `step halt`: the current step runs to its end, then the job ends as a success. A background step that
//! calls it does so while another one is the current step.
//!
//! The message to the task agent is a file in its scratch directory, named after the step record that
//! the calling process belongs to. So a process that outlives its step cannot halt a later one.

use crate::outcome::exit;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::path::PathBuf;

/// Variable that holds the scratch directory of the task.
pub(crate) const TASK_DATA: &str = "CIRCLE_INTERNAL_TASK_DATA";
/// Variable that holds the number of the step record.
pub(crate) const STEP: &str = "CIRCLE_INTERNAL_STEP";

/// Name of the file in the scratch directory by which step record `step` asks for a halt.
pub(crate) fn file_name(step: &str) -> String {
    format!("halt-{step}")
}

/// Asks for a halt, by the variables of the step.
pub(super) fn halt(variable: impl Fn(&str) -> Option<OsString>) -> Result<u8, String> {
    let outside = |name: &str| {
        format!(
            "cannot halt: `{name}` is not set, so this is not a step of a job (or its environment was cleared, as `sudo` does)"
        )
    };
    let folder = variable(TASK_DATA).filter(|v| !v.is_empty()).ok_or_else(|| outside(TASK_DATA))?;
    let step = variable(STEP).and_then(|v| v.into_string().ok()).ok_or_else(|| outside(STEP))?;
    if step.is_empty() || !step.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("cannot halt: `{STEP}` is not a number"));
    }
    let file = PathBuf::from(folder).join(file_name(&step));
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(&file)
        .map_err(|e| format!("cannot halt: failed to create `{}`: {e}", file.display()))?;
    Ok(exit::OK)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_the_calling_step_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let variable = |step: &'static str| {
            let folder = folder.path().as_os_str().to_owned();
            move |name: &str| match name {
                TASK_DATA => Some(folder.clone()),
                STEP => Some(step.into()),
                _ => None,
            }
        };
        halt(variable("7")).unwrap();
        halt(variable("7")).unwrap();
        assert!(folder.path().join("halt-7").exists());
        assert!(halt(variable("../7")).is_err());
        assert!(halt(|_| None).unwrap_err().contains("not a step of a job"));
    }
}
