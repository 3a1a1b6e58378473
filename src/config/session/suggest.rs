//! Suggestions of messages: "did you mean", and the known choices.

use crate::config::values::shorten;
use crate::system::suggest::nearest;

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

#[cfg(test)]
mod tests {
    use super::*;

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
