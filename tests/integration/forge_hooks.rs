//! Webhooks that the control plane makes at a forge: one however often it is asked, and words about what it may not; and
//! secrets that a forge has made, such as signing tokens of GitLab.

use crate::forge::{push, signed};
use crate::forge_back::{Answer, Call, Fake};
use crate::server::Server;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

const PROJECT: &str = "/api/v2/project/gh/acme/hello";
const JSON: (&str, &str) = ("Content-Type", "application/json");

/// The webhooks that a forge keeps, by id, and its rights and habits.
#[derive(Default)]
struct Kept {
    hooks: BTreeMap<u64, Value>,
    next: u64,
    /// Status of whatever is asked about webhooks, where that is refused.
    refuses: Option<u16>,
    /// Whether a GitLab signs.
    signs: bool,
}

type Forge = Arc<Mutex<Kept>>;

fn refused(status: u16, why: &str) -> Answer {
    (status, "", json!({ "message": why }).to_string())
}

impl Kept {
    /// A call below the list of webhooks: what is behind its address, and what the forge does with it.
    fn answer(&mut self, call: &Call, list: &str, shown: impl Fn(u64, &Value, bool) -> Value) -> Answer {
        let Some(rest) = call.path.strip_prefix(list) else { return refused(404, "Not Found") };
        if let Some(status) = self.refuses {
            return refused(status, "no");
        }
        let id: Option<u64> = rest.strip_prefix('/').and_then(|id| id.split('/').next()?.parse().ok());
        match (&*call.method, id) {
            ("GET", None) if rest.ends_with("page=1") => {
                let all: Vec<Value> =
                    self.hooks.iter().map(|(id, hook)| shown(*id, hook, self.signs)).collect();
                (200, "", json!(all).to_string())
            }
            ("GET", None) => (200, "", "[]".to_owned()),
            ("POST", None) => {
                self.next += 1;
                let id = self.next;
                self.hooks.insert(id, call.json());
                (201, "", shown(id, &self.hooks[&id], self.signs).to_string())
            }
            ("PATCH" | "PUT", Some(id)) if self.hooks.contains_key(&id) => {
                self.hooks.insert(id, call.json());
                (200, "", shown(id, &self.hooks[&id], self.signs).to_string())
            }
            ("DELETE", Some(id)) if self.hooks.remove(&id).is_some() => (204, "", String::new()),
            // No test deliveries here.
            _ => refused(404, "Not Found"),
        }
    }
}

/// GitHub, which takes no second webhook with the same address, and never shows a secret.
fn github(call: &Call, kept: &Forge) -> Answer {
    let mut kept = kept.lock().unwrap();
    let list = "/repos/acme/hello/hooks";
    if call.method == "POST" && call.path == list && kept.refuses.is_none() {
        let url = call.json()["config"]["url"].clone();
        if kept.hooks.values().any(|hook| hook["config"]["url"] == url) {
            return refused(422, "Hook already exists on this repository");
        }
    }
    kept.answer(
        call,
        list,
        |id, hook, _| json!({ "id": id, "config": { "url": hook["config"]["url"], "secret": "********" } }),
    )
}

/// Gitea, which changes anything of a webhook but its secret.
fn gitea(call: &Call, kept: &Forge) -> Answer {
    if call.method == "PATCH" {
        return refused(500, "its secret would stay what it was");
    }
    kept.lock().unwrap().answer(
        call,
        "/repos/acme/hello/hooks",
        |id, hook, _| json!({ "id": id, "config": { "url": hook["config"]["url"] } }),
    )
}

/// GitLab, which ignores what it does not know, and says what it has.
fn gitlab(call: &Call, kept: &Forge) -> Answer {
    kept.lock().unwrap().answer(call, "/projects/acme%2Fhello/hooks", |id, hook, signs| {
        let mut shown = json!({ "id": id, "url": hook["url"], "token_present": hook["token"].is_string() });
        if signs {
            shown["signing_token_present"] = json!(hook["signing_token"].is_string());
        }
        shown
    })
}

fn start(answer: fn(&Call, &Forge) -> Answer) -> (Forge, Fake) {
    let kept = Forge::default();
    let answering = Arc::clone(&kept);
    (kept, Fake::start(move |call| answer(call, &answering)))
}

impl Server {
    fn set_hook(&self, more: Value) -> (bool, String, Value) {
        let mut wanted = json!({ "set_hook": true });
        wanted.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = self.call("PUT", &format!("{PROJECT}/connection"), Some(wanted));
        (answer["is_hook_set"] == true, answer["hook"].as_str().unwrap_or_default().to_owned(), answer)
    }
}

#[test]
fn a_webhook_is_made_once_however_often_it_is_asked_for() {
    for (name, answer) in
        [("github", github as fn(&Call, &Forge) -> Answer), ("gitea", gitea), ("gitlab", gitlab)]
    {
        let server = Server::start();
        server.project();
        let (kept, fake) = start(answer);
        // Others of the repository, one of them with an address like ours.
        for url in [
            "https://chat.example/hook",
            "https://ci.example/api/v3/hooks/00000000-0000-4000-8000-000000000000",
        ] {
            let mut kept = kept.lock().unwrap();
            kept.next += 1;
            let id = kept.next;
            kept.hooks.insert(id, json!({ "url": url, "config": { "url": url } }));
        }
        let wanted =
            json!({ "forge": name, "api_url": fake.url(), "token": "t", "repository_name": "acme/hello" });
        let (is_set, said, first) = server.set_hook(wanted);
        assert!(is_set && said.starts_with("it was set"), "{name}: {said}");
        let secret = first["secret"].as_str().unwrap().to_owned();
        let (is_set, said, _) = server.set_hook(json!({}));
        assert!(is_set && (said.contains("was there") || said.contains("in place of")), "{name}: {said}");
        let (is_set, said, rotated) = server.set_hook(json!({ "rotate_secret": true }));
        assert!(is_set, "{name}: {said}");
        let fresh = rotated["secret"].as_str().unwrap().to_owned();
        assert_ne!(secret, fresh);
        // An earlier version made a second one; an earlier address of the control plane leads nowhere.
        let earlier = first["address"].as_str().unwrap().replace("127.0.0.1", "old.example");
        {
            let mut kept = kept.lock().unwrap();
            let mut twin = kept.hooks.values().last().unwrap().clone();
            for place in ["/url", "/config/url"] {
                if let Some(url) = twin.pointer_mut(place) {
                    *url = json!(earlier);
                }
            }
            kept.hooks.insert(90, twin);
        }
        assert!(server.set_hook(json!({})).0);
        let hooks = kept.lock().unwrap().hooks.clone();
        assert_eq!(hooks.len(), 3, "{name}: {hooks:?}");
        let ours = hooks.values().find(|hook| hook.to_string().contains(first["address"].as_str().unwrap()));
        let ours = ours.unwrap_or_else(|| panic!("{name}: {hooks:?}"));
        assert!(ours.to_string().contains(&fresh), "{name}: the forge has the secret of now: {ours}");
    }
}

#[test]
fn a_token_that_may_not_make_webhooks_is_told_of_with_the_right_that_is_missing() {
    let server = Server::start();
    server.project();
    let (kept, fake) = start(github);
    server.connect(json!({ "api_url": fake.url(), "token": "t" }));
    for (status, why) in [
        (401, "--with-token"),
        (403, "`Webhooks: Read and write` (fine-grained) or `admin:repo_hook` (classic)"),
        (404, "`admin:repo_hook`"),
        (429, "try again later"),
    ] {
        kept.lock().unwrap().refuses = Some(status);
        let (is_set, said, answer) = server.set_hook(json!({}));
        assert!(!is_set && said.starts_with("it was not set") && said.contains(why), "{status}: {answer}");
        // Telling statuses needs another right: that goes on.
        assert!(answer["token_message"].is_null(), "{answer}");
    }
    // The command tells by its exit code as well, and prints all that it has to say.
    let output =
        server.admin_output(&["project", "connect", "gh/acme/hello", "--set-hook", "--rotate-secret"], "");
    let (said, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{said} {failed}");
    assert!(
        said.contains("secret of the webhook (shown this once)") && said.contains("it was not set"),
        "{said}"
    );
    assert!(failed.contains("its webhook is not set"), "{failed}");
    kept.lock().unwrap().refuses = None;
    // The one that was refused for its number of calls has to wait; another one has not.
    let (is_set, _, answer) = server.set_hook(json!({}));
    assert!(!is_set, "{answer}");
    let (is_set, _, answer) = server.set_hook(json!({ "token": "another" }));
    assert!(is_set, "{answer}");
}

/// The headers of a delivery that GitLab signs now.
fn gitlab_signature(token: &str, id: &str, body: &str) -> (String, String) {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().to_string();
    let key = STANDARD.decode(token.strip_prefix("whsec_").unwrap()).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let mac = hmac::sign(&key, format!("{id}.{time}.{body}").as_bytes());
    (time, format!("v1,{}", STANDARD.encode(mac.as_ref())))
}

#[test]
fn a_gitlab_that_signs_is_believed_by_its_signing_token() {
    let server = Server::start();
    server.project();
    let hook = server.connect(json!({ "forge": "gitlab", "repository_name": "acme/hello" }));
    assert!(hook.secret.starts_with("whsec_"), "good for both fields of GitLab: {}", hook.secret);
    let body = json!({ "object_kind": "star", "project_id": 15,
        "project": { "id": 15, "path_with_namespace": "acme/hello" } })
    .to_string();
    let send = |token: &str, id: &str| {
        let (time, signature) = gitlab_signature(token, id, &body);
        let headers = [
            JSON,
            ("X-Gitlab-Event", "Star Hook"),
            ("webhook-id", id),
            ("webhook-timestamp", &*time),
            ("webhook-signature", &*signature),
        ];
        hook.send(&headers, body.as_bytes()).status
    };
    assert_eq!(send(&hook.secret, "m1"), 200, "an event of no matter, believed");
    // A signing token that GitLab has made, entered where it can be: both hold until the next one.
    let made = format!("whsec_{}", STANDARD.encode([7u8; 32]));
    assert_eq!(send(&made, "m2"), 401);
    let output =
        server.admin_output(&["project", "connect", "gh/acme/hello", "--with-secret"], &format!("{made}\n"));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !said.contains(&made) && !said.contains("shown this once"), "{said}");
    assert_eq!((send(&made, "m3"), send(&hook.secret, "m4")), (200, 200));
    // Entered again it pushes out nothing.
    server.connect(json!({ "secret": made }));
    assert_eq!((send(&made, "m5"), send(&hook.secret, "m6")), (200, 200));
    for (wrong, why) in [
        (json!({ "secret": "short" }), "16 to 512"),
        (json!({ "secret": "with a space in the midst" }), "one word"),
        (json!({ "secret": "whsec_not*base64*at*all" }), "base64"),
        (json!({ "secret": "whsec_AAAAAAAAAAAAAAAA" }), "16 bytes"),
        (json!({ "secret": made, "rotate_secret": true }), "one of the two"),
    ] {
        let (status, answer) = server.answer("PUT", &format!("{PROJECT}/connection"), Some(wrong));
        assert!(status == 400 && answer["message"].as_str().unwrap().contains(why), "{answer}");
    }
    let output =
        server.admin_output(&["project", "connect", "gh/acme/hello", "--with-secret", "--with-token"], "");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn gitlab_is_asked_to_sign_and_shows_the_secret_where_it_cannot() {
    let server = Server::start();
    server.project();
    let (kept, fake) = start(gitlab);
    let wanted =
        json!({ "forge": "gitlab", "api_url": fake.url(), "token": "t", "repository_name": "acme/hello" });
    let (is_set, said, answer) = server.set_hook(wanted);
    let secret = answer["secret"].clone();
    let ours = || kept.lock().unwrap().hooks.values().next().unwrap().clone();
    assert!(is_set && !said.contains("signs"), "{said}");
    assert_eq!(ours()["token"], secret, "one that knows no signing tokens");
    kept.lock().unwrap().signs = true;
    let (is_set, said, _) = server.set_hook(json!({}));
    assert!(is_set && said.contains("and signs"), "{said}");
    assert!(ours()["signing_token"] == secret && !ours()["token"].is_string(), "{}", ours());
    assert_eq!(kept.lock().unwrap().hooks.len(), 1);
    // Secrets of other forges are no signing tokens.
    let hook = server.connect(json!({ "forge": "github", "rotate_secret": true }));
    let body = push("refs/heads/x", "a", "b").to_string();
    assert!(!hook.secret.starts_with("whsec_") && signed(&hook.secret, &body).len() == 71);
}
