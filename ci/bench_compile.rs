//! Times the config compiler on generated configs; `ci/bench-compile` runs it.
//!
//! The first config is the one the budget is about: about 5,000 lines, 40 commands, 60 jobs, a
//! matrix of 128. Then sizes double, to show that the cost grows with the expanded size.

use runlet::config::probe::compile_text;
use std::fmt::Write;
use std::time::Instant;

const BUDGET_MS: f64 = 20.0;

fn main() {
    println!(
        "{:>8} {:>8} {:>6} {:>10} {:>10} {:>12}",
        "lines", "KiB", "jobs", "steps", "out KiB", "median ms"
    );
    let budgeted = measure(40, 60, 128);
    for factor in [1, 2, 4, 8] {
        measure(40 * factor, 30 * factor, 16);
    }
    if budgeted > BUDGET_MS {
        println!("over the budget of {BUDGET_MS} ms");
        std::process::exit(1);
    }
}

/// Prints a line and returns the least time in milliseconds: the one that other work on the machine
/// disturbed least.
fn measure(commands: usize, jobs: usize, matrix: usize) -> f64 {
    let source = generate(commands, jobs, matrix);
    let mut times = Vec::new();
    let mut compiled = None;
    for _ in 0..25 {
        let start = Instant::now();
        let result = compile_text(&source);
        times.push(start.elapsed().as_secs_f64() * 1000.0);
        match result {
            Ok(result) => compiled = Some(result),
            Err(diagnostics) => {
                println!("the generated config does not compile:\n{diagnostics}");
                std::process::exit(1);
            }
        }
    }
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    let Some(compiled) = compiled else { return times[0] };
    let all = || compiled.workflows.iter().flat_map(|workflow| &workflow.jobs);
    let steps: usize = all()
        .map(|job| match &job.kind {
            runlet::config::JobKind::Build { job, .. } => job.steps.len(),
            _ => 0,
        })
        .sum();
    println!(
        "{:>8} {:>8} {:>6} {:>8} {:>10} {:>10.2} {:>10.2}",
        source.lines().count(),
        source.len() / 1024,
        all().count(),
        steps,
        compiled.processed.len() / 1024,
        median,
        times[0]
    );
    times[0]
}

fn generate(commands: usize, jobs: usize, matrix: usize) -> String {
    let mut out =
        String::from("version: 2.1\nparameters:\n  deep: {type: boolean, default: true}\ncommands:\n");
    for command in 0..commands {
        let _ = writeln!(
            out,
            "  command-{command}:\n    parameters:\n      target: {{type: string, default: all}}\n      loud: {{type: boolean, default: false}}\n    steps:"
        );
        for step in 0..6 {
            let _ = writeln!(
                out,
                "      - run:\n          name: step {step} of << parameters.target >>\n          command: |\n            set -x\n            make -C dir-{step} << parameters.target >>\n            echo done >> log\n          environment:\n            TARGET: << parameters.target >>"
            );
        }
        out += "      - when:\n          condition:\n            or: [<< parameters.loud >>, << pipeline.parameters.deep >>]\n          steps:\n            - run: echo << parameters.target >>\n";
    }
    out += "executors:\n  box:\n    parameters:\n      class: {type: string, default: linux}\n    machine: true\n    resource_class: acme/<< parameters.class >>\n    environment:\n      COMMON: value\njobs:\n";
    for job in 0..jobs {
        let _ = writeln!(
            out,
            "  job-{job}:\n    parameters:\n      os: {{type: string, default: linux}}\n      version: {{type: integer, default: 1}}\n    executor:\n      name: box\n      class: << parameters.os >>\n    working_directory: ~/project\n    environment:\n      VERSION: << parameters.version >>\n    steps:\n      - checkout\n      - restore_cache:\n          keys:\n            - v1-{{{{ checksum \"Cargo.lock\" }}}}\n            - v1-"
        );
        for call in 0..3 {
            let command = (job + call * 7) % commands;
            let _ = writeln!(
                out,
                "      - command-{command}:\n          target: << parameters.os >>-{call}\n          loud: true"
            );
        }
        out += "      - run:\n          name: test\n          command: |\n            cargo test --workspace\n            cargo clippy\n          no_output_timeout: 20m\n      - save_cache:\n          key: v1-{{ checksum \"Cargo.lock\" }}\n          paths:\n            - target\n      - store_artifacts:\n          path: out\n      - store_test_results:\n          path: reports\n";
    }
    out += "workflows:\n  main:\n    jobs:\n";
    for job in 0..jobs {
        let _ = writeln!(out, "      - job-{job}:\n          context: [build]");
        if job > 0 {
            let _ = writeln!(out, "          requires:\n            - job-{}", job - 1);
        }
    }
    let versions: Vec<String> = (0..matrix / 4).map(|version| version.to_string()).collect();
    let _ = writeln!(
        out,
        "      - job-0:\n          name: matrix-<< matrix.os >>-<< matrix.version >>\n          matrix:\n            alias: every-platform\n            parameters:\n              os: [linux, macos, s390x, power]\n              version: [{}]",
        versions.join(", ")
    );
    out
}
