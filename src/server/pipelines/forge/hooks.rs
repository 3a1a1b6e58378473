//! Webhooks of a repository at its forge: the calls that list, make, change and try them, each in the form that the forge
//! takes, and what its refusals mean. No IO.

use crate::http::encoded;
use crate::server::pipelines::forge::words::{answered, path};
use crate::server::store::forge_states::Forge;
use serde_json::{Value, json};

/// The part of an address that is ours wherever the control plane is.
const PLACE: &str = "/api/v3/hooks/";
/// Beginning of the signing tokens of GitLab.
pub const SIGNING: &str = "whsec_";

/// Webhooks of one repository, and the one that leads here.
pub(super) struct Hooks {
    forge: Forge,
    /// Address of their list.
    list: String,
    /// Address that ours sends to.
    address: String,
    /// Secret that ours signs with.
    secret: String,
}

/// Webhooks of a page of the list that lead here.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Ours {
    /// Their ids, the oldest first.
    pub(super) ids: Vec<String>,
    /// There may be further pages.
    pub(super) has_more: bool,
}

impl Hooks {
    /// The webhooks of a repository; `None`: this forge cannot be asked for them.
    pub(super) fn of(forge: Forge, api: &str, name: &str, address: &str, secret: &str) -> Option<Self> {
        let list = match forge {
            Forge::GitHub | Forge::Gitea | Forge::Forgejo => format!("{api}/repos/{}/hooks", path(name)),
            Forge::GitLab => format!("{api}/projects/{}/hooks", encoded(name)),
            Forge::BitbucketCloud => format!("{api}/repositories/{}/hooks", path(name)),
            Forge::BitbucketDc => {
                let (project, repository) = name.split_once('/').unwrap_or((name, ""));
                let (project, repository) = (encoded(project), encoded(repository));
                format!("{api}/api/latest/projects/{project}/repos/{repository}/webhooks")
            }
            Forge::Git => return None,
        };
        Some(Self { forge, list, address: address.to_owned(), secret: secret.to_owned() })
    }

    /// Address of the list, to which new ones are posted.
    pub(super) fn list(&self) -> &str {
        &self.list
    }

    /// Address of a page of the list, from 1.
    pub(super) fn page(&self, page: u32) -> String {
        let list = &self.list;
        match self.forge {
            Forge::Gitea | Forge::Forgejo => format!("{list}?limit=50&page={page}"),
            Forge::BitbucketCloud => format!("{list}?pagelen=100&page={page}"),
            Forge::BitbucketDc => format!("{list}?limit=100&start={}", page.saturating_sub(1) * 100),
            _ => format!("{list}?per_page=100&page={page}"),
        }
    }

    /// Finds those in a page that lead here, also by an earlier address of the control plane.
    pub(super) fn ours(&self, page: &Value) -> Ours {
        let is_list = page.is_array();
        let items = page.as_array().or_else(|| page["values"].as_array());
        let items = items.map(Vec::as_slice).unwrap_or_default();
        let place = self.address.rfind(PLACE).map_or(self.address.as_str(), |at| &self.address[at..]);
        let leads_here = |item: &&Value| {
            let url = item.pointer("/config/url").or_else(|| item.get("url")).and_then(Value::as_str);
            url.is_some_and(|url| url.trim_end_matches('/').ends_with(place))
        };
        let has_more = if is_list {
            !items.is_empty()
        } else {
            page["next"].is_string() || page["isLastPage"] == json!(false)
        };
        Ours { ids: items.iter().filter(leads_here).filter_map(id_of).collect(), has_more }
    }

    /// Address of one of them.
    pub(super) fn one(&self, id: &str) -> String {
        format!("{}/{}", self.list, encoded(id))
    }

    /// Method that changes one of them, its secret too; `None`: its secret stays what it was, so that another takes its place.
    pub(super) fn change(&self) -> Option<&'static str> {
        match self.forge {
            Forge::GitHub => Some("PATCH"),
            Forge::GitLab | Forge::BitbucketCloud | Forge::BitbucketDc => Some("PUT"),
            Forge::Gitea | Forge::Forgejo | Forge::Git => None,
        }
    }

    /// Ours, as the forge is told of it.
    pub(super) fn body(&self) -> Value {
        let (address, secret) = (&self.address, &self.secret);
        let config = json!({ "url": address, "content_type": "json", "secret": secret });
        match self.forge {
            Forge::GitHub | Forge::Git => {
                json!({ "name": "web", "active": true, "events": ["push", "pull_request"], "config": config })
            }
            Forge::Gitea | Forge::Forgejo => json!({
                "type": self.forge, "active": true, "config": config,
                "events": ["push", "pull_request", "pull_request_sync"],
            }),
            Forge::GitLab => {
                let field = if self.signs() { "signing_token" } else { "token" };
                json!({
                    "url": address, field: secret, "push_events": true, "tag_push_events": true,
                    "merge_requests_events": true, "enable_ssl_verification": true,
                })
            }
            Forge::BitbucketCloud => json!({
                "description": "Runlet", "url": address, "active": true, "secret": secret,
                "events": [
                    "repo:push", "pullrequest:created", "pullrequest:updated", "pullrequest:fulfilled",
                    "pullrequest:rejected",
                ],
            }),
            Forge::BitbucketDc => json!({
                "name": "Runlet", "url": address, "active": true, "configuration": { "secret": secret },
                "events": [
                    "repo:refs_changed", "pr:opened", "pr:from_ref_updated", "pr:merged", "pr:declined", "pr:deleted",
                ],
            }),
        }
    }

    /// Whether it is a GitLab that is asked to sign.
    fn signs(&self) -> bool {
        self.forge == Forge::GitLab && self.secret.starts_with(SIGNING)
    }

    /// Ours for a GitLab that was asked to sign and does not know how, as its answer shows: it shows the secret itself.
    pub(super) fn unsigned(&self, answer: &Value) -> Option<Value> {
        if !self.signs() || answer["signing_token_present"] == json!(true) {
            return None;
        }
        let mut body = self.body();
        let secret = body["signing_token"].take();
        body["token"] = secret;
        Some(body)
    }

    /// Address of the call that has the forge send a test delivery by one of them; `None`: it sends none.
    pub(super) fn test(&self, id: &str) -> Option<String> {
        let what = match self.forge {
            Forge::GitHub => "pings",
            Forge::Gitea | Forge::Forgejo => "tests",
            Forge::GitLab => "test/push_events",
            Forge::BitbucketCloud | Forge::BitbucketDc | Forge::Git => return None,
        };
        Some(format!("{}/{what}", self.one(id)))
    }

    /// A refusal of the forge as a sentence about what to do. `is_of_app`: the token was got by a GitHub App.
    pub(super) fn refused(&self, status: u16, body: &str, is_of_app: bool) -> String {
        let said = answered(status, body);
        let is_limit = status == 429 || body.to_ascii_lowercase().contains("rate limit");
        let rights = match self.forge {
            Forge::GitHub if is_of_app => {
                "grant the App `Webhooks: Read and write`, and accept it where it is installed"
            }
            Forge::GitHub => {
                "it needs `Webhooks: Read and write` (fine-grained) or `admin:repo_hook` (classic), of an administrator of the repository"
            }
            Forge::GitLab => "it needs the scope `api` and the role Maintainer",
            Forge::Gitea | Forge::Forgejo => {
                "it needs `write:repository`, of an administrator of the repository"
            }
            Forge::BitbucketCloud => "it needs the scope `webhook`",
            Forge::BitbucketDc | Forge::Git => "it needs the right to administer the repository",
        };
        match status {
            _ if is_limit => format!("{said}; try again later"),
            401 => format!(
                "{said}; the forge does not know the token, or its time is over: set another (`--with-token`)"
            ),
            403 => format!("{said}; the token has no right to make webhooks: {rights}"),
            // A forge hides from a token whatever that may not see.
            404 => format!(
                "{said}; there is no such repository there, or the token has no right to its webhooks: {rights}"
            ),
            _ => said,
        }
    }
}

/// The id of a webhook, as the forge shows it.
pub(super) fn id_of(item: &Value) -> Option<String> {
    match (&item["id"], &item["uuid"]) {
        (Value::Number(id), _) => Some(id.to_string()),
        (Value::String(id), _) | (_, Value::String(id)) => Some(id.clone()),
        _ => None,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its forge should fail loudly")]
mod tests {
    use super::*;

    const ADDRESS: &str = "https://ci.example/api/v3/hooks/p-1";

    fn of(forge: Forge) -> Hooks {
        Hooks::of(forge, "https://api", "acme/app", ADDRESS, "whsec_c2VjcmV0").unwrap()
    }

    #[test]
    fn those_that_lead_here_are_found_in_every_list() {
        let (here, before) = (ADDRESS, "http://old.example:8080/ci/api/v3/hooks/p-1/");
        let other = "https://ci.example/api/v3/hooks/p-11";
        let config = |id: u64, url: &str| json!({ "id": id, "config": { "url": url } });
        let github = of(Forge::GitHub);
        let found = github.ours(&json!([config(1, other), config(2, before), config(3, here)]));
        assert_eq!(found, Ours { ids: vec!["2".to_owned(), "3".to_owned()], has_more: true });
        assert_eq!(github.ours(&json!([])), Ours::default());
        assert_eq!(github.ours(&json!({ "message": "x" })), Ours::default());
        assert_eq!(github.page(2), "https://api/repos/acme/app/hooks?per_page=100&page=2");
        let gitlab = of(Forge::GitLab).ours(&json!([{ "id": 9, "url": here }]));
        assert_eq!(gitlab.ids, ["9"]);
        let cloud = of(Forge::BitbucketCloud);
        let page = json!({ "values": [{ "uuid": "{u-1}", "url": here }], "next": "https://api/x" });
        let found = cloud.ours(&page);
        assert!(found.has_more && cloud.one(&found.ids[0]).ends_with("/hooks/%7Bu-1%7D"));
        let dc = of(Forge::BitbucketDc);
        let page = json!({ "values": [{ "id": 4, "url": other }], "isLastPage": true });
        assert_eq!(dc.ours(&page), Ours::default());
        assert!(dc.page(2).ends_with("/projects/acme/repos/app/webhooks?limit=100&start=100"));
        assert!(Hooks::of(Forge::Git, "", "", "", "").is_none());
    }

    #[test]
    fn every_forge_is_told_of_ours_in_its_own_form() {
        let gitlab = of(Forge::GitLab);
        let body = gitlab.body();
        assert!(body["signing_token"] == "whsec_c2VjcmV0" && body["token"].is_null(), "{body}");
        // A GitLab that knows of no signing says nothing of it.
        let body = gitlab.unsigned(&json!({ "id": 1 })).unwrap();
        assert!(body["token"] == "whsec_c2VjcmV0" && body["signing_token"].is_null(), "{body}");
        assert_eq!(gitlab.unsigned(&json!({ "signing_token_present": true })), None);
        let plain = Hooks::of(Forge::GitLab, "https://api", "a/b", ADDRESS, "rlh_x").unwrap();
        assert!(plain.body()["token"] == "rlh_x" && plain.unsigned(&json!({})).is_none());
        assert_eq!(of(Forge::GitHub).body()["config"]["secret"], "whsec_c2VjcmV0");
        assert_eq!((of(Forge::GitHub).change(), of(Forge::Gitea).change()), (Some("PATCH"), None));
        let test = |forge| of(forge).test("5");
        assert_eq!(test(Forge::GitHub).unwrap(), "https://api/repos/acme/app/hooks/5/pings");
        assert_eq!(test(Forge::Forgejo).unwrap(), "https://api/repos/acme/app/hooks/5/tests");
        assert_eq!(test(Forge::GitLab).unwrap(), "https://api/projects/acme%2Fapp/hooks/5/test/push_events");
        assert_eq!(test(Forge::BitbucketCloud), None);
    }

    #[test]
    fn refusals_say_which_right_is_missing() {
        let said = |forge, status, body: &str| of(forge).refused(status, body, false);
        assert!(said(Forge::GitHub, 404, "Not Found").contains("`admin:repo_hook`"));
        assert!(said(Forge::GitHub, 401, "Bad credentials").contains("--with-token"));
        assert!(said(Forge::GitHub, 403, "API rate limit exceeded").ends_with("try again later"));
        assert!(said(Forge::GitLab, 403, "insufficient_scope").contains("Maintainer"));
        assert!(said(Forge::Gitea, 403, "").contains("`write:repository`"));
        assert!(said(Forge::GitLab, 422, "Url is blocked").ends_with("Url is blocked"));
        assert!(of(Forge::GitHub).refused(403, "", true).contains("grant the App"));
    }
}
