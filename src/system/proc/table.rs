//! Tables of `ps`: rows and families.

use super::facts::{Stat, Told};
use crate::system::clock;
use std::collections::BTreeSet;
use std::time::SystemTime;

/// A row: `  501     1   501 Ss   Fri Nov 27 05:12:23 2026 /bin/sleep 60`.
pub(super) fn row(line: &str) -> Option<Stat<Told>> {
    let (pid, rest) = word(line)?;
    let (parent, rest) = word(rest)?;
    let (group, rest) = word(rest)?;
    let (state, rest) = word(rest)?;
    let (_, rest) = word(rest)?;
    let (month, rest) = word(rest)?;
    let (day, rest) = word(rest)?;
    let (time, rest) = word(rest)?;
    let (year, arguments) = word(rest)?;
    let arguments = arguments.trim_start();
    let month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        .iter()
        .position(|name| *name == month)?;
    let mut clock = time.splitn(3, ':').map(str::parse::<u64>);
    let (hour, minute, second) = (clock.next()?.ok()?, clock.next()?.ok()?, clock.next()?.ok()?);
    let started =
        clock::unix_time(year.parse().ok()?, month as u64 + 1, day.parse().ok()?, hour, minute, second)?;
    let program = arguments.split(' ').next().unwrap_or_default();
    Some(Stat {
        pid: pid.parse().ok()?,
        parent: parent.parse().ok()?,
        group: group.parse().ok()?,
        session: 0,
        zombie: state.starts_with('Z'),
        stopped: state.starts_with('T'),
        start_time: started.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs(),
        name: program.rsplit('/').next().unwrap_or_default().to_owned(),
        told: Told { arguments: arguments.to_owned(), environment: String::new() },
    })
}

fn word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    (!text.is_empty()).then(|| text.split_once(' ').unwrap_or((text, "")))
}

/// Takes the environments out of rows that have arguments and environments.
pub(super) fn add_environments(all: &mut [Stat<Told>], full: &[Stat<Told>]) {
    for one in all {
        let same = |other: &&Stat<Told>| other.pid == one.pid && other.start_time == one.start_time;
        let text = full.iter().find(same).map_or("", |other| other.told.arguments.as_str());
        one.told.environment = text.strip_prefix(one.told.arguments.as_str()).unwrap_or_default().to_owned();
    }
}

/// The descendants of a process, what remains of groups, and what has this variable in its environment, as far as it has
/// not ended. What `pid` descends from is not among them.
pub(super) fn family(
    pid: i32,
    all: Vec<Stat<Told>>,
    groups: &BTreeSet<i32>,
    mark: Option<&str>,
) -> Vec<Stat<Told>> {
    // The first process has what lost its parents. Another one in the group says that its number was given away.
    let is_left = |one: &Stat<Told>| one.parent == 1 && groups.contains(&one.group);
    let is_marked = |one: &Stat<Told>| {
        mark.is_some_and(|mark| one.told.environment.split_ascii_whitespace().any(|word| word == mark))
    };
    let first = all.iter().filter(|one| is_left(one) || is_marked(one)).map(|one| one.pid);
    let mut family: BTreeSet<i32> = first.chain([pid]).collect();
    loop {
        let before = family.len();
        let children: Vec<i32> =
            all.iter().filter(|one| family.contains(&one.parent)).map(|one| one.pid).collect();
        family.extend(children);
        if family.len() == before {
            break;
        }
    }
    // Above this process are those that have the task as well: a wrapper, say.
    let mut above = BTreeSet::new();
    let mut next = Some(pid);
    while let Some(one) = next.and_then(|pid| all.iter().find(|one| one.pid == pid)) {
        next = above.insert(one.pid).then_some(one.parent);
    }
    let is_member = |one: &Stat<Told>| !one.zombie && family.contains(&one.pid) && !above.contains(&one.pid);
    all.into_iter().filter(is_member).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn rows(lines: &[&str]) -> Vec<Stat<Told>> {
        lines.iter().map(|line| row(line).unwrap()).collect()
    }

    #[test]
    fn a_row_is_read_whatever_its_arguments_are() {
        let line = "  501     1   500 Ss+  Fri Nov 27 05:12:23 2026     /usr/bin/make -j 8  all";
        let stat = row(line).unwrap();
        assert_eq!((stat.pid, stat.parent, stat.group, stat.session), (501, 1, 500, 0));
        assert_eq!((stat.start_time, stat.name.as_str()), (1_795_756_343, "make"));
        assert!(!stat.zombie && !stat.stopped);
        assert_eq!(stat.told.arguments, "/usr/bin/make -j 8  all");
        assert!(row(&line.replace("Ss+", "Z  ")).unwrap().zombie);
        assert!(row(&line.replace("Ss+", "T  ")).unwrap().stopped);
        assert_eq!(row("7 1 7 S Fri Nov  6 05:12:23 2026").unwrap().told.arguments, "");
        for other in
            ["", "  PID  PPID", "x 1 7 S Fri Nov 6 05:12:23 2026 sh", "7 1 7 S Fri 6 Nov 05:12:23 2026 sh"]
        {
            assert_eq!(row(other), None, "{other}");
        }
    }

    #[test]
    fn an_environment_is_the_rest_behind_the_arguments_of_the_same_process() {
        let mut all =
            rows(&["5 1 5 S Fri Nov 27 05:12:23 2026 sh -c x", "6 1 6 S Fri Nov 27 05:12:23 2026 sh"]);
        let full = rows(&[
            "5 1 5 S Fri Nov 27 05:12:23 2026 sh -c x A=b RUNLET_TASK_ID=t",
            "6 1 6 S Fri Nov 27 05:12:24 2026 sh A=b",
        ]);
        add_environments(&mut all, &full);
        assert_eq!(all[0].told.environment, " A=b RUNLET_TASK_ID=t");
        assert_eq!(all[1].told.environment, "", "its number was given away between the two looks");
    }

    #[test]
    fn a_family_has_what_descends_what_remains_of_groups_and_what_is_marked() {
        let at = "Fri Nov 27 05:12:23 2026";
        let lines = [
            (1, 0, 1, "S", ""),
            (9, 1, 9, "S", "RUNLET_TASK_ID=t"), // what has started the task agent
            (10, 9, 10, "S", "RUNLET_TASK_ID=t"), // the task agent
            (11, 10, 11, "S", ""),
            (12, 11, 11, "Z", ""),
            (13, 1, 20, "S", ""),                 // left of a group
            (14, 13, 30, "S", ""),                // its child, in a group of its own
            (15, 1, 40, "S", "RUNLET_TASK_ID=t"), // has left everything
            (16, 1, 50, "S", "RUNLET_TASK_ID=tt"),
            (17, 5, 21, "S", ""), // of a group whose number was given away
        ];
        let all: Vec<_> = lines
            .iter()
            .map(|(pid, parent, group, state, environment)| {
                let mut stat = row(&format!("{pid} {parent} {group} {state} {at} x")).unwrap();
                stat.told.environment = format!(" A=b {environment}");
                stat
            })
            .collect();
        let of = |groups: &[i32], mark| {
            let found = family(10, all.clone(), &groups.iter().copied().collect(), mark);
            found.iter().map(|one| one.pid).collect::<Vec<_>>()
        };
        assert_eq!(of(&[], None), [11]);
        assert_eq!(of(&[11, 20, 21], None), [11, 13, 14]);
        assert_eq!(of(&[20], Some("RUNLET_TASK_ID=t")), [11, 13, 14, 15]);
    }
}
