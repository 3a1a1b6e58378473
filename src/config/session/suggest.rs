//! Suggestions of messages: "did you mean", and the known choices.

use crate::config::values::shorten;

/// Number of choices that are still listed in full.
const ALL: usize = 20;
/// Number of choices that are listed when there are more.
const SOME: usize = 12;

/// The end of a message about an unknown name: the nearest choice, and all of them when they are few;
/// of many without a near one the first.
pub(crate) fn choices<'a>(what: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let mut known: Vec<&str> = known.into_iter().collect();
    known.sort_unstable();
    known.dedup();
    let near = nearest(name, &known).map(|near| format!(", did you mean `{near}`?"));
    let list = |some: &[&str]| some.iter().map(|name| shorten(name)).collect::<Vec<_>>().join(", ");
    match (near, known.len()) {
        (_, 0) => format!(" (there are no {what})"),
        (near, 1..=ALL) => format!("{} (known {what}: {})", near.unwrap_or_default(), list(&known)),
        (Some(near), _) => near,
        (None, all) => format!(" (known {what}: {} and {} more)", list(&known[..SOME]), all - SOME),
    }
}

/// The choice that a typing mistake could have made into `name`.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    // Bounded: long names are no typing mistakes, and the distance costs their product.
    if name.len() > 64 || known.len() > 1000 {
        return None;
    }
    let name = name.to_lowercase();
    known
        .iter()
        .filter(|candidate| candidate.len() <= 64)
        .map(|candidate| (distance(&name, &candidate.to_lowercase()), *candidate))
        .filter(|(distance, candidate)| {
            let length = candidate.chars().count();
            *distance <= 1 + length / 4 && distance * 2 <= length
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edits between two texts; swapping neighbours is one edit.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_found() {
        assert_eq!(nearest("biuld", &["build", "test"]), Some("build"));
        assert_eq!(nearest("commnd", &["command", "name"]), Some("command"));
        assert_eq!(nearest("deploy", &["build", "test"]), None);
        assert_eq!(distance("abc", "acb"), 1);
    }

    #[test]
    fn few_choices_are_listed() {
        assert_eq!(choices("jobs", "x", []), " (there are no jobs)");
        assert_eq!(choices("jobs", "lint", ["test", "build"]), " (known jobs: build, test)");
        assert_eq!(
            choices("jobs", "biuld", ["test", "build"]),
            ", did you mean `build`? (known jobs: build, test)"
        );
        let many: Vec<String> = (10..40).map(|n| format!("job-{n}")).collect();
        let many = || many.iter().map(String::as_str);
        assert_eq!(choices("jobs", "jbo-10", many()), ", did you mean `job-10`?");
        let all = choices("jobs", "x", many());
        assert!(
            all.starts_with(" (known jobs: job-10, job-11, ") && all.ends_with("job-21 and 18 more)"),
            "{all}"
        );
    }
}
