//! The table that people read.

use crate::account::Count;
use crate::fault::Victim;

const HEAD: [&str; 9] = [
    "fault",
    "times",
    "jobs",
    "declared",
    "bytes lost",
    "bytes twice",
    "processes left",
    "wrong status",
    "steps twice",
];

/// Prints rows with their sum, in Markdown, and beneath it every finding.
pub(crate) fn print(rows: &[(String, Count)]) {
    let cells = |name: &str, count: &Count| {
        let numbers = [
            count.times,
            count.jobs,
            count.declared,
            count.bytes_lost,
            count.bytes_twice,
            count.processes_left,
            count.wrong_status,
            count.steps_twice,
        ];
        let mut cells = vec![name.to_owned()];
        cells.extend(numbers.iter().map(u64::to_string));
        cells
    };
    let mut sum = Count::default();
    rows.iter().for_each(|(_, count)| sum.add(count.clone()));
    let mut lines = vec![HEAD.map(str::to_owned).to_vec()];
    lines.extend(rows.iter().map(|(name, count)| cells(name, count)));
    lines.push(cells("all", &sum));
    let widths: Vec<usize> = (0..HEAD.len())
        .map(|column| lines.iter().map(|line| line[column].len()).max().unwrap_or(0))
        .collect();
    for (number, line) in lines.iter().enumerate() {
        let padded = line.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        println!("| {} |", padded.collect::<Vec<_>>().join(" | "));
        if number == 0 {
            let rules = widths.iter().enumerate().map(|(column, width)| {
                if column == 0 { "-".repeat(*width) } else { format!("{}:", "-".repeat(*width - 1)) }
            });
            println!("| {} |", rules.collect::<Vec<_>>().join(" | "));
        }
    }
    let killed = Victim::NAMED.iter().zip(sum.killed).map(|((_, name), times)| format!("{name} {times}"));
    let killed = killed.collect::<Vec<_>>().join(", ");
    println!("killed: {killed}; the network was hurt {} times", sum.network);
    for (name, count) in rows {
        for finding in &count.findings {
            println!("{name}: {finding}");
        }
    }
}
