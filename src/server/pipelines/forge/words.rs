//! Words to forges about a commit: names, texts and calls, each in the form that the forge takes. No IO.

use crate::http::caller::AnyAnswer;
use crate::http::encoded;
use crate::server::store::forge_states::{Forge, ReportState};
use crate::server::store::tables::reports::CommitStatus;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use serde_json::{Value, json};

/// The name that statuses begin with unless a project says otherwise.
pub(super) const PREFIX: &str = "ci/circleci: ";
/// Longest key of a status at Bitbucket Cloud, in characters.
const BITBUCKET_KEY: usize = 40;

/// The forge's word for one of our states; `None`: it is told nothing. `was_told` is whether it was told anything of the
/// status before.
pub(super) fn word(forge: Forge, state: ReportState, was_told: bool) -> Option<&'static str> {
    use Forge::{BitbucketCloud, BitbucketDc, Forgejo, GitHub, GitLab, Gitea};
    let pick = |github, gitlab, cloud, dc| match forge {
        GitHub | Gitea | Forgejo => github,
        GitLab => gitlab,
        BitbucketCloud => cloud,
        BitbucketDc => dc,
        Forge::Git => "",
    };
    use ReportState::{
        Blocked, Canceled, Error, Failed, InfrastructureFail, NotRun, OnHold, Queued, Running, Success,
        TerminatedUnknown, Unauthorized,
    };
    let word = match state {
        Blocked | Queued | OnHold => pick("pending", "pending", "INPROGRESS", "INPROGRESS"),
        Running => pick("pending", "running", "INPROGRESS", "INPROGRESS"),
        Success => pick("success", "success", "SUCCESSFUL", "SUCCESSFUL"),
        Failed => pick("failure", "failed", "FAILED", "FAILED"),
        Canceled => pick("error", "canceled", "STOPPED", "CANCELLED"),
        NotRun if !was_told => return None,
        NotRun => pick("error", "canceled", "STOPPED", "CANCELLED"),
        // A config that is wrong, a runner that could not, a context that may not be used.
        Unauthorized | InfrastructureFail | TerminatedUnknown | Error => {
            pick("error", "failed", "FAILED", "FAILED")
        }
    };
    (!word.is_empty()).then_some(word)
}

/// Whether a forge refuses a word after the one that it was told last: GitLab knows no way back from running, which a new
/// pipeline of the same commit would be as long as the end of the one before was not told.
pub(super) fn is_refused_after(forge: Forge, last: Option<&str>, word: Option<&str>) -> bool {
    forge == Forge::GitLab && last == Some("running") && word == Some("pending")
}

/// Cuts a text to so many characters, with a mark.
pub(super) fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// Longest name of a status, in characters: what a longer one comes to differs by the forge, and no job needs it.
const MOST_NAME: usize = 255;

/// A name of a status that fits, and is another one than what any other name comes to.
fn name_that_fits(name: &str) -> String {
    if name.chars().count() <= MOST_NAME {
        return name.to_owned();
    }
    let sum = crate::system::hex(&digest(&SHA256, name.as_bytes()).as_ref()[..6]);
    let kept = cut(name, MOST_NAME - 1 - sum.len());
    format!("{kept} {sum}")
}

/// A call of a forge's API.
#[derive(Debug, PartialEq)]
pub(super) struct ApiCall {
    /// The whole address.
    pub(super) url: String,
    /// JSON that is sent.
    pub(super) body: Value,
}

/// Headers that every call of an API has; the token is in the first.
pub(super) fn headers(forge: Forge, token: &str) -> Vec<(&'static str, String)> {
    match forge {
        Forge::GitHub => vec![
            ("authorization", format!("Bearer {token}")),
            ("accept", "application/vnd.github+json".to_owned()),
            ("x-github-api-version", "2022-11-28".to_owned()),
        ],
        Forge::GitLab => vec![("private-token", token.to_owned())],
        Forge::Gitea | Forge::Forgejo => vec![("authorization", format!("token {token}"))],
        Forge::BitbucketCloud | Forge::BitbucketDc | Forge::Git => {
            vec![("authorization", format!("Bearer {token}"))]
        }
    }
}

/// `owner/name` with each part as it stands in an address.
pub(super) fn path(full_name: &str) -> String {
    full_name.split('/').map(encoded).collect::<Vec<_>>().join("/")
}

/// The call that tells a forge a status; `api` is the base of its API, `name` the repository there.
pub(super) fn call(forge: Forge, api: &str, name: &str, report: &CommitStatus, word: &str) -> ApiCall {
    let sha = &report.revision;
    let (url, body) = match forge {
        Forge::GitLab => (
            format!("{api}/projects/{}/statuses/{sha}", encoded(name)),
            json!({
                "state": word, "name": name_that_fits(&report.context), "description": cut(&report.description, 255),
                "target_url": cut(&report.url, 255), "ref": cut(&report.reference, 255),
            }),
        ),
        Forge::BitbucketCloud => {
            let context = &report.context;
            let key = if context.chars().count() <= BITBUCKET_KEY {
                context.clone()
            } else {
                crate::system::hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, context.as_bytes()).as_ref())
            };
            (
                format!("{api}/repositories/{}/commit/{sha}/statuses/build", path(name)),
                json!({
                    "key": key, "state": word, "name": name_that_fits(context), "description": report.description,
                    "url": report.url, "refname": report.reference,
                }),
            )
        }
        Forge::BitbucketDc => {
            let (project, repository) = name.split_once('/').unwrap_or((name, ""));
            let (project, repository) = (encoded(project), encoded(repository));
            (
                format!("{api}/api/latest/projects/{project}/repos/{repository}/commits/{sha}/builds"),
                json!({
                    "key": name_that_fits(&report.context), "state": word, "name": name_that_fits(&report.context),
                    "description": report.description, "url": cut(&report.url, 450), "ref": report.reference,
                }),
            )
        }
        Forge::GitHub | Forge::Gitea | Forge::Forgejo | Forge::Git => (
            format!("{api}/repos/{}/statuses/{sha}", path(name)),
            json!({
                "state": word, "target_url": report.url, "description": cut(&report.description, 140),
                "context": name_that_fits(&report.context),
            }),
        ),
    };
    ApiCall { url, body }
}

/// Addresses at which a forge tells of itself and of a repository.
#[derive(Debug, PartialEq)]
pub(super) struct AboutCalls {
    /// Tells of the repository.
    pub(super) repository: String,
    /// Place of the name of the default branch in what it tells, as a JSON pointer.
    pub(super) branch_at: &'static str,
    /// Path of the version in its answer; `None` when a header tells it, or nothing does.
    pub(super) version: Option<String>,
}

/// The calls that ask about a forge and a repository; `None`: this forge has no API.
pub(super) fn about_calls(forge: Forge, api: &str, name: &str) -> Option<AboutCalls> {
    let (repository, branch_at, version) = match forge {
        Forge::GitHub => (format!("{api}/repos/{}", path(name)), "/default_branch", None),
        Forge::Gitea | Forge::Forgejo => {
            (format!("{api}/repos/{}", path(name)), "/default_branch", Some(format!("{api}/version")))
        }
        Forge::GitLab => {
            (format!("{api}/projects/{}", encoded(name)), "/default_branch", Some(format!("{api}/version")))
        }
        Forge::BitbucketCloud => (format!("{api}/repositories/{}", path(name)), "/mainbranch/name", None),
        Forge::BitbucketDc => {
            let (project, repository) = name.split_once('/').unwrap_or((name, ""));
            let (project, repository) = (encoded(project), encoded(repository));
            (
                format!("{api}/api/latest/projects/{project}/repos/{repository}/default-branch"),
                "/displayId",
                Some(format!("{api}/api/latest/application-properties")),
            )
        }
        Forge::Git => return None,
    };
    Some(AboutCalls { repository, branch_at, version })
}

/// Meaning of the answer to a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The forge has it.
    Done,
    /// The forge will never take the status.
    GiveUp(String),
    /// The token opens nothing: no more of it until somebody changes it.
    BadToken(String),
    /// Later; `whole` is for everything that goes by this token.
    Later { seconds: u64, whole: bool, why: String },
}

/// Address that an answer leads on to, for what may be sent there as it is: a token is shown to no other host.
pub(super) fn leads_on(method: &str, url: &str, status: u16, location: Option<&str>) -> Option<String> {
    let is_for_it = match status {
        307 | 308 => true,
        301 | 302 => method == "GET",
        _ => false,
    };
    let location = location.filter(|_| is_for_it)?;
    let start = url.find("://")? + 3;
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at);
    let host = &url[..end];
    // A location that begins with the name of a host is of the scheme that was called.
    let location = match location.strip_prefix("//") {
        Some(place) => format!("{}{place}", &url[..start]),
        None => location.to_owned(),
    };
    if location.starts_with('/') {
        return Some(format!("{host}{location}"));
    }
    let is_same = location.get(..end).is_some_and(|other| other.eq_ignore_ascii_case(host))
        && location[end..].starts_with('/');
    is_same.then_some(location)
}

/// An answer without what was asked for, as a phrase.
pub(super) fn said(answer: &AnyAnswer) -> String {
    if !(300..400).contains(&answer.status) {
        return answered(answer.status, &String::from_utf8_lossy(&answer.body));
    }
    let place = answer.header("location").unwrap_or("a place that it does not name");
    let place: String = place.chars().filter(|c| !c.is_control()).take(200).collect();
    format!(
        "the forge answered {}: the repository has moved ({place}); say its name of now (`runlet admin project connect SLUG --repository-name NAME`), or where the API is (`--api URL`)",
        answer.status
    )
}

/// The answer of a forge as a phrase, with the beginning of its body.
pub(super) fn answered(status: u16, body: &str) -> String {
    let said: String = body.chars().filter(|c| !c.is_control()).take(200).collect();
    format!("the forge answered {status}: {said}")
}

/// Seconds to wait after so many tries, where the forge asks for no time of its own.
pub(super) fn doubled(attempts: u32) -> u64 {
    (1u64 << attempts.min(9)).min(300)
}

/// Whether a full ref is the head of a merge request of GitLab, which is built of forks only.
pub(super) fn is_of_fork(reference: &str) -> bool {
    reference.starts_with("refs/merge-requests/")
}

/// Reads an answer to a status, where `pause` is how long the token is not to be used.
pub(super) fn verdict(
    forge: Forge,
    status: u16,
    body: &str,
    report: &CommitStatus,
    pause: Option<u64>,
) -> Reply {
    let attempts = report.attempts;
    let (why, doubled) = (answered(status, body), doubled(attempts));
    match status {
        200..=299 => Reply::Done,
        // GitLab wants statuses of a fork in the fork, where the token has no rights: that says nothing of the token.
        403 | 404 if forge == Forge::GitLab && pause.is_none() && is_of_fork(&report.reference) => {
            Reply::GiveUp(why)
        }
        400 if forge == Forge::GitLab && body.contains("Cannot transition status via") => Reply::Done,
        403 if pause.is_some() => Reply::Later { seconds: pause.unwrap_or_default(), whole: true, why },
        429 => Reply::Later { seconds: pause.unwrap_or(60.max(doubled)), whole: true, why },
        401 | 403 => Reply::BadToken(why),
        // A push may not have reached all machines of the forge yet.
        404 if attempts < 2 => {
            Reply::Later { seconds: if attempts == 0 { 10 } else { 60 }, whole: false, why }
        }
        409 => Reply::Later { seconds: 1, whole: false, why },
        400..=499 => Reply::GiveUp(why),
        _ => Reply::Later { seconds: pause.unwrap_or(doubled), whole: pause.is_some(), why },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::time::Millis;

    fn report(context: &str) -> CommitStatus {
        CommitStatus {
            project: "p".into(),
            revision: "b".repeat(40),
            context: context.to_owned(),
            reference: "main".to_owned(),
            state: ReportState::Success,
            description: "😀".repeat(200),
            url: "https://ci.example/x".to_owned(),
            sent_word: None,
            sent_text: None,
            attempts: 0,
            since: Millis(0),
        }
    }

    #[test]
    fn every_forge_is_told_in_its_own_words_and_lengths() {
        assert_eq!(word(Forge::GitHub, ReportState::Running, true), Some("pending"));
        assert_eq!(word(Forge::GitLab, ReportState::Running, true), Some("running"));
        assert_eq!(word(Forge::BitbucketCloud, ReportState::Canceled, true), Some("STOPPED"));
        assert_eq!(word(Forge::BitbucketDc, ReportState::Canceled, true), Some("CANCELLED"));
        assert_eq!(word(Forge::Gitea, ReportState::InfrastructureFail, true), Some("error"));
        assert!(is_refused_after(Forge::GitLab, Some("running"), Some("pending")));
        assert!(!is_refused_after(Forge::GitLab, Some("success"), Some("pending")));
        assert!(!is_refused_after(Forge::GitHub, Some("running"), Some("pending")));
        assert_eq!(
            (word(Forge::GitHub, ReportState::NotRun, false), word(Forge::Git, ReportState::Success, true)),
            (None, None)
        );
        let github = call(Forge::GitHub, "https://api", "acme/app", &report("ci/circleci: build"), "success");
        let text = github.body["description"].as_str().unwrap_or_default();
        assert!(text.chars().count() == 140 && text.ends_with('…'));
        assert!(github.url.ends_with("/repos/acme/app/statuses/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"));
        let gitlab = call(Forge::GitLab, "https://api", "grp/sub/app", &report("x"), "success");
        assert!(gitlab.url.contains("/projects/grp%2Fsub%2Fapp/statuses/") && gitlab.body["ref"] == "main");
        const LONG: &str = "ci/circleci: a-very-long-job-name-for-a-matrix-build";
        let cloud = call(Forge::BitbucketCloud, "https://api", "acme/app", &report(LONG), "SUCCESSFUL");
        assert_eq!(cloud.body["key"], "63bd74ab0de8f8ce22cfe1d7996b8e61702b3121");
        assert_eq!(cloud.body["name"], LONG);
        let short =
            call(Forge::BitbucketCloud, "https://api", "acme/app", &report("ci/circleci: b"), "FAILED");
        assert_eq!(short.body["key"], "ci/circleci: b");
    }

    #[test]
    fn long_names_fit_and_stay_apart() {
        let long = format!("ci/circleci: {}", "é".repeat(300));
        for (forge, field) in [
            (Forge::GitHub, "context"),
            (Forge::Gitea, "context"),
            (Forge::Forgejo, "context"),
            (Forge::GitLab, "name"),
            (Forge::BitbucketCloud, "name"),
            (Forge::BitbucketDc, "key"),
            (Forge::BitbucketDc, "name"),
        ] {
            let named = |name: &str| {
                let call = call(forge, "https://api", "acme/app", &report(name), "success");
                call.body[field].as_str().unwrap_or_default().to_owned()
            };
            let names = [named(&long), named(&format!("{long}1")), named(&format!("{long}2"))];
            assert!(names.iter().all(|name| name.chars().count() == 255), "{forge} {field}: {names:?}");
            assert!(names[0] != names[1] && names[1] != names[2], "{forge} {field}: {names:?}");
            assert_eq!(named(&long[..255]), long[..255]);
        }
    }

    #[test]
    fn every_forge_is_asked_about_itself_where_it_answers() {
        let of = |forge| {
            about_calls(forge, "https://api", "acme/app").map(|calls| (calls.repository, calls.version))
        };
        let url = |path: &str| format!("https://api{path}");
        assert_eq!(of(Forge::GitHub), Some((url("/repos/acme/app"), None)));
        assert_eq!(of(Forge::GitLab), Some((url("/projects/acme%2Fapp"), Some(url("/version")))));
        assert_eq!(of(Forge::Gitea), Some((url("/repos/acme/app"), Some(url("/version")))));
        assert_eq!(of(Forge::BitbucketCloud), Some((url("/repositories/acme/app"), None)));
        let dc = of(Forge::BitbucketDc).unwrap_or_default();
        assert!(dc.0.ends_with("/projects/acme/repos/app/default-branch") && dc.1.is_some());
        assert_eq!(of(Forge::Git), None);
    }

    #[test]
    fn answers_say_what_to_do() {
        let told = report("x");
        let of = |status, body| verdict(Forge::GitHub, status, body, &told, None);
        assert_eq!(of(201, ""), Reply::Done);
        let transition = r#"{"message":"Cannot transition status via :run from :running"}"#;
        assert_eq!(verdict(Forge::GitLab, 400, transition, &told, None), Reply::Done);
        assert!(matches!(of(400, transition), Reply::GiveUp(_)));
        assert!(matches!(of(422, "maximum number of statuses"), Reply::GiveUp(_)));
        assert!(matches!(of(401, ""), Reply::BadToken(_)));
        let down = verdict(Forge::GitHub, 503, "", &told, Some(120));
        assert!(matches!(down, Reply::Later { whole: true, seconds: 120, .. }));
        let limited = verdict(Forge::GitHub, 403, "", &told, Some(30));
        assert!(matches!(limited, Reply::Later { whole: true, seconds: 30, .. }));
        assert!(matches!(of(404, ""), Reply::Later { seconds: 10, .. }));
        let tried = |attempts| CommitStatus { attempts, ..report("x") };
        assert!(matches!(verdict(Forge::GitHub, 404, "", &tried(2), None), Reply::GiveUp(_)));
        assert!(matches!(
            verdict(Forge::GitHub, 502, "", &tried(20), None),
            Reply::Later { seconds: 300, .. }
        ));
        let of_fork = CommitStatus { reference: "refs/merge-requests/12/head".to_owned(), ..report("x") };
        for (status, is_given_up) in [(404, true), (403, true), (401, false), (500, false)] {
            let reply = verdict(Forge::GitLab, status, "", &of_fork, None);
            assert_eq!(matches!(reply, Reply::GiveUp(_)), is_given_up, "{status}: {reply:?}");
        }
        let limited = verdict(Forge::GitLab, 403, "", &of_fork, Some(30));
        assert!(matches!(limited, Reply::Later { whole: true, .. }), "{limited:?}");
        assert!(matches!(verdict(Forge::GitLab, 404, "", &told, None), Reply::Later { .. }));
    }

    #[test]
    fn what_leads_on_stays_at_its_host() {
        const URL: &str = "https://api.example:8443/repos/a/b/statuses/c";
        let to = |method, status, location| leads_on(method, URL, status, Some(location));
        let moved = "https://API.example:8443/repositories/7/statuses/c";
        assert_eq!(to("POST", 307, moved).as_deref(), Some(moved));
        assert_eq!(to("POST", 308, "/x").as_deref(), Some("https://api.example:8443/x"));
        assert_eq!((to("POST", 301, moved), to("GET", 301, moved).as_deref()), (None, Some(moved)));
        let by_host = to("GET", 302, "//api.example:8443/x?y=1");
        assert_eq!(by_host.as_deref(), Some("https://api.example:8443/x?y=1"));
        for other in [
            "https://api.example/x",
            "http://api.example:8443/x",
            "https://api.example:84430/x",
            "https://api.example:8443@evil.example/x",
            "https://api.example:8443.evil.example/x",
            "//evil.example/x",
            "//api.example/x",
            "//api.example:8443",
            "//api.example:8443@evil.example/x",
            "///api.example:8443/x",
            "//",
            "x",
            "é",
        ] {
            assert_eq!(to("GET", 307, other), None, "{other}");
        }
        assert_eq!(leads_on("GET", URL, 307, None), None);
    }
}
