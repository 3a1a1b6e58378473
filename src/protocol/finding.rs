//! Findings about a host or its surroundings: one fact each, how bad it is, and what to do.

use serde::{Deserialize, Serialize};

/// How bad a fact is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingLevel {
    /// The fact is as it should be.
    Ok,
    /// Could not be looked at; the evidence says why.
    Skipped,
    /// Good to know.
    Note,
    /// Jobs may suffer from it.
    Warn,
    /// Jobs cannot run.
    Fail,
}

impl FindingLevel {
    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            FindingLevel::Ok => "ok",
            FindingLevel::Skipped => "skip",
            FindingLevel::Note => "note",
            FindingLevel::Warn => "warn",
            FindingLevel::Fail => "FAIL",
        }
    }
}

/// Fact about the host, how bad it is, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The check, in a word that stays the same.
    pub id: String,
    /// How bad it is.
    pub result: FindingLevel,
    /// The fact, for people.
    pub evidence: String,
    /// Advice; empty where there is nothing to do.
    pub advice: String,
}

/// Facts in the order in which they were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings(pub Vec<Finding>);

impl Findings {
    /// Adds a fact.
    pub fn add(&mut self, id: &str, result: FindingLevel, evidence: impl Into<String>, advice: &str) {
        self.push(id, result, evidence.into(), advice);
    }

    /// There are a hundred callers: in each of them it would be a quarter of a kilobyte.
    #[inline(never)]
    fn push(&mut self, id: &str, result: FindingLevel, evidence: String, advice: &str) {
        let (id, advice) = (id.to_owned(), advice.to_owned());
        self.0.push(Finding { id, result, evidence, advice });
    }

    /// Adds that something is as it should be.
    pub fn fine(&mut self, id: &str, evidence: impl Into<String>) {
        self.add(id, FindingLevel::Ok, evidence, "");
    }

    /// The worst of them.
    pub fn worst(&self) -> FindingLevel {
        self.0.iter().map(|finding| finding.result).max().unwrap_or(FindingLevel::Ok)
    }
}
