//! Orbs that are part of this program, in its own words: those that setup configs begin with. They have the commands,
//! jobs and parameters of the published ones; a folder of orbs that has the published one goes before.

/// The text of a built-in orb, whatever version of it is asked for, and the reference that it is shown by.
pub(super) fn find(namespace: &str, name: &str) -> Option<(String, &'static str)> {
    let text = match (namespace, name) {
        ("circleci", "continuation") => include_str!("continuation.yml"),
        ("circleci", "path-filtering") => include_str!("path-filtering.yml"),
        _ => return None,
    };
    Some((format!("{namespace}/{name} (built in)"), text))
}
