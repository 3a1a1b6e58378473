//! `triggers` of a workflow: schedules, kept as data; the control plane runs them.

use super::filter::NamePattern;
use crate::config::compiled::Schedule;
use crate::config::session::{NodeReader, present};
use crate::config::values::{Data, Map, Node};

/// Name and range of the five fields.
const FIELDS: [(&str, u32, u32); 5] = [
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of the month", 1, 31),
    ("month", 1, 12),
    ("day of the week", 0, 7),
];
const MONTHS: &[&str] = &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const DAYS: &[&str] = &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// Reads a substituted `triggers` list.
pub(crate) fn schedules(read: NodeReader<'_>, node: &Node, what: &str) -> Option<Vec<Schedule>> {
    let what = format!("`triggers` of {what}");
    let items = match &node.data {
        Data::Seq(seq) if !seq.items.is_empty() => seq.items.clone(),
        _ => {
            read.report.error(
                node.pos,
                format!("{what} must be a list of at least one `schedule`, not {}", node.describe()),
            );
            return None;
        }
    };
    let schedules: Vec<_> = items.iter().map(|item| schedule(read, item, &what)).collect();
    schedules.into_iter().collect()
}

fn schedule(read: NodeReader<'_>, item: &Node, what: &str) -> Option<Schedule> {
    let map = read.expect_map(item, format_args!("an item of {what}"))?;
    read.check_keys(map, what, &["schedule"], true);
    let Some(node) = present(map, "schedule") else {
        read.report.error(item.pos, format!("an item of {what} has no `schedule`"));
        return None;
    };
    let what = format!("`schedule` in {what}");
    let map = read.expect_map(node, &what)?;
    read.check_keys(map, &what, &["cron", "filters"], false);
    let cron = read.required_text(map, "cron", &what, node.pos)?;
    if let Err(message) = check_cron(&cron) {
        let pos = map.get("cron").map_or(node.pos, |node| node.pos);
        read.report.error(pos, format!("`{cron}` is not a schedule: {message}"));
        return None;
    }
    let branches =
        present(map, "filters").and_then(Node::as_map).and_then(|filters| present(filters, "branches"));
    let Some(branches) = branches.and_then(Node::as_map) else {
        read.report.error(node.pos, format!("{what} needs `filters` with `branches`"));
        return None;
    };
    let what = format!("`branches` of {what}");
    read.check_keys(branches, &what, &["only", "ignore"], true);
    let only = schedule_names(read, branches, "only", &what)?;
    let ignore = schedule_names(read, branches, "ignore", &what)?;
    if only.is_empty() && ignore.is_empty() {
        read.report.error(node.pos, format!("{what} needs `only` or `ignore`"));
        return None;
    }
    Some(Schedule { cron: cron.to_string(), only, ignore })
}

fn schedule_names(read: NodeReader<'_>, map: &Map, key: &str, what: &str) -> Option<Vec<String>> {
    let Some(node) = present(map, key) else { return Some(Vec::new()) };
    let names = read.text_list(node, format_args!("`{key}` of {what}"))?;
    if let Some(message) = names.iter().find_map(|name| NamePattern::new(name).err()) {
        read.report.error(node.pos, message);
        return None;
    }
    Some(names.iter().map(|name| name.to_string()).collect())
}

/// Five fields of `*`, a value, a list of values, or a range.
fn check_cron(text: &str) -> Result<(), String> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!("it has {} fields instead of five", fields.len()));
    }
    for (field, (name, least, most)) in fields.into_iter().zip(FIELDS) {
        if field == "*" {
            continue;
        }
        if field.contains('/') {
            return Err(format!(
                "steps such as `{field}` for the {name} are not supported, list the values instead (0,15,30,45)"
            ));
        }
        if let Some((from, to)) = field.split_once('-') {
            if field.contains(',') {
                return Err(format!(
                    "`{field}` for the {name} has a range in a list, list the values instead"
                ));
            }
            if field.bytes().any(|b| b.is_ascii_alphabetic()) {
                return Err(format!(
                    "`{field}` is a range of names for the {name}, list them instead, or say it in numbers"
                ));
            }
            match (number(from, name, least, most), number(to, name, least, most)) {
                (Some(from), Some(to)) if from <= to => continue,
                _ => return Err(format!("`{field}` is not a range of the {name} ({least} to {most})")),
            }
        }
        if !field.split(',').all(|value| number(value, name, least, most).is_some()) {
            return Err(format!("`{field}` is no value for the {name} ({least} to {most})"));
        }
    }
    Ok(())
}

fn number(text: &str, field: &str, least: u32, most: u32) -> Option<u32> {
    let upper = text.to_uppercase();
    let named = |names: &[&str], first: u32| {
        names
            .iter()
            .position(|name| *name == upper)
            .and_then(|at| u32::try_from(at).ok())
            .map(|at| at + first)
    };
    let word = match field {
        "month" => named(MONTHS, 1),
        "day of the week" => named(DAYS, 0),
        _ => None,
    };
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    word.or_else(|| text.parse().ok().filter(|_| digits)).filter(|value| (least..=most).contains(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_have_five_plain_fields() {
        for good in ["0 0 * * *", "0,15,30,45 8 1 1,7 MON,FRI", "5 9-17 * JAN 0", "0 0 1-5 * 1-5"] {
            assert_eq!(check_cron(good), Ok(()), "{good}");
        }
        for bad in [
            "* * * *",
            "*/5 * * * *",
            "0 0 * * 5-1",
            "0 0 1-32 * *",
            "60 0 * * *",
            "0 1-2,3 * * *",
            "0 0 0 * *",
            "x 0 * * *",
        ] {
            assert!(check_cron(bad).is_err(), "{bad}");
        }
        for (bad, field) in [
            ("*/5 * * * *", "minute"),
            ("5 4 * * 1,3-5,6", "day of the week"),
            ("0 0 * * Tue-Sat", "day of the week"),
            ("0 0 * JAN-MAR *", "month"),
        ] {
            let said = check_cron(bad).err().unwrap_or_default();
            assert!(said.contains(field), "{said}");
        }
    }
}
