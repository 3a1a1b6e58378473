//! Whether the refs of a repository at GitHub are still what they were: two conditional requests, which cost none of the
//! calls that a token may make as long as nothing has changed. What has changed is listed by git.

use crate::http::caller::LazyCaller;
use crate::server::ids::ProjectId;
use crate::server::pipelines::forge::reach::{Reach, Reached, reach};
use crate::server::pipelines::forge::words::path;
use crate::server::secrets::app::Rights;
use crate::server::state::Shared;
use crate::server::store::Error as StoreError;
use crate::server::store::forge_states::Forge;
use crate::server::time::Millis;
use ring::digest::{SHA256, digest};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// However often nothing has changed, git looks again after this: a cache in between may be wrong for ever.
const BY_GIT: Duration = Duration::from_secs(60 * 60);
/// The two lists of refs that are asked for.
const LISTS: [&str; 2] = ["heads/", "tags/"];

/// Marks of the lists of one repository, as one token was told them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    /// Hash of the token and the address.
    by: Vec<u8>,
    /// Marks of the two lists.
    of_lists: [String; 2],
    /// Time of the listing by git that they stand for.
    at: Millis,
}

/// The marks of all projects, since the start.
#[derive(Default)]
pub(super) struct Unchanged {
    known: Mutex<HashMap<ProjectId, Marks>>,
    caller: Arc<LazyCaller>,
}

/// The answer to whether anything has changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Neither list of refs has changed.
    Same,
    /// Git has to look. These marks are of a moment before it does; none where the API does not tell.
    Look(Option<Marks>),
}

impl Unchanged {
    /// Asks for a project that is connected to GitHub and has a token for it.
    pub(super) async fn ask(
        &self,
        state: &Shared,
        project: &ProjectId,
        now: Millis,
    ) -> Result<Asked, StoreError> {
        let Reach::Open(way) = reach(state, project, Rights::Contents).await? else {
            return Ok(Asked::Look(None));
        };
        if way.connection.forge != Forge::GitHub {
            return Ok(Asked::Look(None));
        }
        let by = digest(&SHA256, format!("{} {} {}", way.api, way.name, way.token.expose()).as_bytes());
        let by = by.as_ref().to_vec();
        let known = self.lock().get(project).filter(|known| known.by == by).cloned();
        let known = known.filter(|known| now.since(known.at) < BY_GIT);
        let mut of_lists = [String::new(), String::new()];
        let mut is_same = known.is_some();
        for (at, list) in LISTS.iter().enumerate() {
            let before = known.as_ref().map(|known| known.of_lists[at].clone());
            match self.mark(&way, list, before.clone()).await {
                Some(mark) => of_lists[at] = mark,
                None => return Ok(Asked::Look(None)),
            }
            is_same &= before.as_ref() == Some(&of_lists[at]);
        }
        Ok(if is_same { Asked::Same } else { Asked::Look(Some(Marks { by, of_lists, at: now })) })
    }

    /// The mark of a list as it is now; the one from before where it is the same. `None`: there is none to go by.
    async fn mark(&self, way: &Reached, list: &str, before: Option<String>) -> Option<String> {
        let url = format!("{}/repos/{}/git/matching-refs/{list}", way.api, path(&way.name));
        let condition = before.iter().map(|mark| ("if-none-match", mark.clone())).collect();
        let answer = way.call(&self.caller, "GET", url, condition, None).await.ok()?;
        match answer.status {
            304 => before,
            // The mark of one page says nothing about the others.
            200 if !answer.header("link").is_some_and(|link| link.contains("rel=\"next\"")) => {
                answer.header("etag").map(str::to_owned)
            }
            _ => None,
        }
    }

    /// Keeps the marks of a project whose refs were listed since, or forgets those that it had.
    pub(super) fn keep(&self, project: &ProjectId, marks: Option<Marks>) {
        match marks {
            Some(marks) => self.lock().insert(project.clone(), marks),
            None => self.lock().remove(project),
        };
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ProjectId, Marks>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
