//! The part of the look that is of Windows: what it does without.

use crate::agent::settings::Settings;
use crate::protocol::finding::{FindingLevel, Findings};

/// Rights of the user are not looked at.
pub(super) fn user(_: &Settings, _: &mut Findings) {}

/// Looks for settings that mean nothing there.
pub(super) fn look(settings: &Settings, found: &mut Findings) {
    found.fine("system", format!("Windows, {}", std::env::consts::ARCH));
    if settings.quotas.is_any() {
        let text = "runner.quota is set, and tasks are not limited on Windows";
        found.add("quota", FindingLevel::Fail, text, "remove runner.quota");
    }
    if !settings.command_prefix.is_empty() {
        let text = "runner.command_prefix was never tried on Windows";
        found.add("prefix", FindingLevel::Note, text, "it must pass standard input and output on");
    }
}
