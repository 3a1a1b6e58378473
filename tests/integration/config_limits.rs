//! The limits of the compiler: what is just within works, what is above is an error that names the limit.

use runlet::config::{Input, OrbError, OrbSource, compile};
use serde_json::Value;
use std::collections::BTreeMap;

/// Orbs by reference or URL, each with its text.
struct Orbs(BTreeMap<String, String>);

impl OrbSource for Orbs {
    fn resolve(&self, reference: &str) -> Result<(String, String), OrbError> {
        self.fetch(reference).map(|text| (reference.to_owned(), text))
    }

    fn fetch(&self, url: &str) -> Result<String, OrbError> {
        self.0.get(url).cloned().ok_or_else(|| format!("there is no `{url}`").into())
    }
}

/// The outcome of a config that is made up: nothing, or the first error.
fn outcome(source: &str, parameters: &BTreeMap<String, Value>, orbs: &Orbs) -> Result<(), String> {
    let input = Input {
        source,
        file_name: "config.yml",
        parameters,
        values: &BTreeMap::new(),
        stand_ins: &BTreeMap::new(),
        orbs,
        default_resource_class: None,
    };
    compile(&input).map(|_| ()).map_err(|diagnostics| diagnostics.0[0].message.clone())
}

const JOB: &str = "jobs: {j: {machine: true, resource_class: a/b, steps: [checkout]}}\n";
const WORKFLOW: &str = "workflows: {w: {jobs: [j]}}\n";

/// Compiles a config at its limit, which works, and one above, which is an error that names it.
fn limit(named: &str, at: &str, above: &str, orbs: &Orbs) {
    let none = BTreeMap::new();
    assert_eq!(outcome(at, &none, orbs), Ok(()), "{named}");
    let message = outcome(above, &none, orbs).unwrap_err();
    assert!(message.contains(named), "{message}");
}

#[test]
fn names_of_pipeline_parameters_have_at_most_128_characters() {
    let given = |length: usize| {
        let name = "p".repeat(length);
        let source =
            format!("version: 2.1\nparameters: {{{name}: {{type: string, default: x}}}}\n{JOB}{WORKFLOW}");
        outcome(&source, &BTreeMap::from([(name, "y".into())]), &Orbs(BTreeMap::new()))
    };
    assert_eq!(given(128), Ok(()));
    assert!(given(129).unwrap_err().contains("at most 128 characters"));
}

#[test]
fn a_config_has_at_most_10_000_jobs_and_200_000_requirements() {
    let none = Orbs(BTreeMap::new());
    let jobs = |count: usize| {
        format!("version: 2.1\n{JOB}workflows:\n  w:\n    jobs:\n{}", "      - j\n".repeat(count))
    };
    limit("the limit of 10000 jobs", &jobs(10_000), &jobs(10_001), &none);
    // Every member of a matrix of 128 requires the 128 of the one before: 16,384 requirements.
    let layers = |count: usize| {
        let values: Vec<String> = (0..128).map(|n| n.to_string()).collect();
        let values = values.join(", ");
        let mut source = "version: 2.1\njobs: {j: {type: no-op, parameters: {n: {type: integer}}}}\nworkflows:\n  w:\n    jobs:\n".to_owned();
        for layer in 0..count {
            let requires = if layer == 0 { String::new() } else { format!(", requires: [l{}]", layer - 1) };
            source += &format!(
                "      - j: {{name: \"l{layer}-<< matrix.n >>\", matrix: {{alias: l{layer}, parameters: {{n: [{values}]}}}}{requires}}}\n"
            );
        }
        source
    };
    limit("the limit of 200000 requirements", &layers(13), &layers(14), &none);
}

#[test]
fn a_source_has_at_most_4_mebibytes() {
    let padded = |length: usize| {
        let config = format!("version: 2.1\n{JOB}{WORKFLOW}#");
        let padding = "x".repeat(length - config.len());
        config + &padding
    };
    let most = 4 << 20;
    limit("more than the limit of 4194304", &padded(most), &padded(most + 1), &Orbs(BTreeMap::new()));
}

#[test]
fn a_config_has_at_most_200_orbs_of_20_levels() {
    let none = Orbs(BTreeMap::new());
    let many = |count: usize| {
        let orbs: String = (0..count).map(|n| format!("  o{n}: {{commands: {{}}}}\n")).collect();
        format!("version: 2.1\norbs:\n{orbs}{JOB}{WORKFLOW}")
    };
    limit("more than 200 orbs", &many(200), &many(201), &none);
    let nested = |levels: usize| {
        let orbs = "{orbs: {o: ".repeat(levels) + "{}" + &"}}".repeat(levels);
        let orbs = orbs.strip_prefix("{orbs: ").unwrap().strip_suffix('}').unwrap().to_owned();
        format!("version: 2.1\norbs: {orbs}\n{JOB}{WORKFLOW}")
    };
    limit("nested deeper than 20 levels", &nested(20), &nested(21), &none);
}

#[test]
fn a_config_has_at_most_50_orbs_by_url_of_5_levels() {
    let url = |n: usize| format!("https://orbs.example/{n}.yml");
    let flat = Orbs((0..60).map(|n| (url(n), "commands: {}\n".to_owned())).collect());
    let many = |count: usize| {
        let orbs: String = (0..count).map(|n| format!("  o{n}: {}\n", url(n))).collect();
        format!("version: 2.1\norbs:\n{orbs}{JOB}{WORKFLOW}")
    };
    limit("more than 50 orbs are given by URL", &many(50), &many(51), &flat);
    // The first of five imports the second, and so on; from the zeroth it is one level more.
    let chain = Orbs(
        (0..5)
            .map(|n| (url(n), format!("orbs: {{o: '{}'}}\n", url(n + 1))))
            .chain([(url(5), "{}\n".to_owned())])
            .collect(),
    );
    let from = |n: usize| format!("version: 2.1\norbs: {{o: '{}'}}\n{JOB}{WORKFLOW}", url(n));
    limit("nested deeper than 5 levels", &from(1), &from(0), &chain);
}

#[test]
fn a_compiled_job_has_at_most_8_mebibytes() {
    // A command of 1 MiB of quotes, which JSON writes with two bytes each, and once more as the title of its step.
    let source = |uses: usize| {
        let command = "'".repeat(1 << 20).replace('\'', "\\\"");
        format!(
            "version: 2.1\ncommands: {{c: {{steps: [{{run: \"{command}\"}}]}}}}\njobs: {{j: {{machine: true, resource_class: a/b, steps: [{}]}}}}\n{WORKFLOW}",
            vec!["c"; uses].join(", ")
        )
    };
    limit("a runner takes 8388608", &source(1), &source(3), &Orbs(BTreeMap::new()));
}
