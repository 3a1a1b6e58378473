//! GitHub Apps, to a fake that believes only what GitHub believes: for statuses, for the control plane's own git, for jobs.

use crate::faults::Rogue;
use crate::forge_back::{Answer, Call, Fake};
use crate::private::HttpGit;
use crate::repositories::Work;
use crate::secrets::files_with;
use crate::server::Server;
use crate::support::poll;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rsa::KeyPair;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use runlet::http::Body;
use runlet::protocol::Secret;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const PROJECT: &str = "/api/v2/project/gh/acme/hello";

/// GitHub, as far as an App sees it.
struct GitHub {
    public: Vec<u8>,
    is_installed: bool,
    granted: Vec<&'static str>,
    lifetime: Duration,
    /// Tokens that were given out.
    given: u32,
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// A private key as GitHub gives it, and the half of it that GitHub keeps.
pub(crate) fn key() -> (String, Vec<u8>) {
    let made = Command::new("openssl").args(["genrsa", "2048"]).output().unwrap();
    let text = String::from_utf8(made.stdout).unwrap();
    let pair = match PrivateKeyDer::from_pem_slice(text.as_bytes()).unwrap() {
        PrivateKeyDer::Pkcs1(der) => KeyPair::from_der(der.secret_pkcs1_der()).unwrap(),
        PrivateKeyDer::Pkcs8(der) => KeyPair::from_pkcs8(der.secret_pkcs8_der()).unwrap(),
        other => panic!("{other:?}"),
    };
    (text, pair.public().as_ref().to_vec())
}

/// Longer than such tokens were for years.
fn token() -> String {
    format!("ghs_{}", "t".repeat(396))
}

impl GitHub {
    /// Whether a call shows a word of the App that holds now.
    fn believes(&self, call: &Call) -> bool {
        let word = call.headers.get("authorization").and_then(|text| text.strip_prefix("Bearer "));
        let Some((text, signature)) = word.and_then(|word| word.rsplit_once('.')) else { return false };
        let part =
            |text: &str| -> Value { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap() };
        let (head, claims) = text.split_once('.').unwrap();
        let (head, claims) = (part(head), part(claims));
        let (from, to, now) =
            (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap(), now().as_secs());
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.public);
        head["alg"] == "RS256"
            && claims["iss"] == "4711"
            && (from..to).contains(&now)
            && to <= now + 600
            && to - from <= 660
            && public.verify(text.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).is_ok()
    }

    fn answer(&mut self, call: &Call) -> Answer {
        let refused = |status, why: &str| (status, "", json!({ "message": why }).to_string());
        if call.headers.get("accept").map(String::as_str) != Some("application/vnd.github+json") {
            return refused(415, "Unsupported 'Accept' header");
        }
        match (&*call.method, &*call.path) {
            ("GET", "/repos/acme/hello/installation") | ("POST", "/app/installations/55/access_tokens")
                if !self.believes(call) =>
            {
                refused(401, "A JSON web token could not be decoded")
            }
            ("GET", "/repos/acme/hello/installation") if self.is_installed => {
                (200, "", json!({ "id": 55 }).to_string())
            }
            ("POST", "/app/installations/55/access_tokens") if self.is_installed => {
                let body = call.json();
                let wanted = body["permissions"].as_object().unwrap();
                if body["repositories"] != json!(["hello"]) || wanted.is_empty() {
                    return refused(422, "Validation Failed");
                }
                if !wanted.iter().all(|(name, level)| {
                    self.granted.contains(&format!("{name}: {}", level.as_str().unwrap()).as_str())
                }) {
                    return refused(422, "The permissions requested are not granted to this installation.");
                }
                self.given += 1;
                let until = UNIX_EPOCH + now() + self.lifetime;
                let until = runlet::system::clock::Rfc3339 { time: until, milliseconds: false }.to_string();
                (201, "", json!({ "token": token(), "expires_at": until, "permissions": wanted }).to_string())
            }
            ("POST", path) if path.starts_with("/repos/acme/hello/statuses/") => {
                let is_known = call.headers.get("authorization") == Some(&format!("Bearer {}", token()));
                if is_known && self.is_installed {
                    (201, "", "{}".to_owned())
                } else {
                    refused(401, "Bad credentials")
                }
            }
            _ => refused(404, "Not Found"),
        }
    }
}

/// A bare repository whose config checks out and fetches, and looks for the token; returns the folder around it.
fn repository(server: &Server) -> std::path::PathBuf {
    let folder = server.folder.path().join("bare");
    let work = Work::new(server.folder.path());
    let script = "git fetch --quiet origin main && echo fetched; cat \"$(dirname \"$GIT_CONFIG_VALUE_0\")\"/login; env | grep -c ghs_ || true";
    let config = json!({ "version": 2.1, "jobs": { "build": { "machine": true, "resource_class": "acme/linux",
        "steps": ["checkout", { "run": script }] } }, "workflows": { "w": { "jobs": ["build"] } } });
    work.commit_config(&config.to_string(), "main");
    work.git(&["clone", "--quiet", "--bare", ".", folder.join("app.git").to_str().unwrap()]);
    folder
}

#[test]
fn an_app_gets_in_for_statuses_for_configs_and_for_jobs() {
    let server = Server::start();
    server.project();
    let (private, public) = key();
    let github = Arc::new(Mutex::new(GitHub {
        public,
        is_installed: false,
        granted: Vec::new(),
        lifetime: Duration::from_secs(3600),
        given: 0,
    }));
    let answering = Arc::clone(&github);
    let fake = Fake::start(move |call| answering.lock().unwrap().answer(call));
    let root = repository(&server);
    let git =
        HttpGit::start(&root, &format!("Basic {}", STANDARD.encode(format!("x-access-token:{}", token()))));
    server.register(&git.url("app.git"));
    server.call("PUT", &format!("{PROJECT}/connection"), Some(json!({ "api_url": fake.url() })));

    // Set for all projects of the organisation; what it may do is said for each of them.
    let refused = server.admin_output(&["github-app", "set", "gh/acme", "4711"], "ghp_a-token");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("BEGIN RSA PRIVATE KEY"), "{said}");
    let said = server.admin(&["github-app", "set", "gh/acme", "4711"], &private);
    assert!(said.contains("gh/acme goes by the GitHub App 4711"), "{said}");
    assert_eq!(files_with(&server.data(), &["PRIVATE KEY"]), [""; 0], "it is sealed");
    let of_project = format!("{PROJECT}/github-app");
    let shown = server.call("GET", &of_project, None);
    assert!(shown["of"] == "organization", "the project has none of its own: {shown}");
    let said = server.admin(&["github-app", "set", "gh/acme/hello", "4711"], &private);
    assert!(said.contains("not installed on `acme/hello`"), "{said}");
    github.lock().unwrap().is_installed = true;
    let shown = server.call("GET", &of_project, None);
    assert!(
        shown["contents"].as_str().unwrap().contains("`Contents: Read-only`")
            && shown["statuses"].as_str().unwrap().contains("`Commit statuses: Read and write`"),
        "{shown}"
    );
    github.lock().unwrap().granted = vec!["contents: read", "statuses: write"];
    let shown = server.call("GET", &of_project, None);
    assert_eq!((&shown["contents"], &shown["statuses"]), (&json!("granted"), &json!("granted")));
    // A right that was granted and is no more is not told from memory.
    github.lock().unwrap().granted.clear();
    let shown = server.call("GET", &of_project, None);
    assert!(shown["contents"].as_str().unwrap().contains("`Contents: Read-only`"), "{shown}");
    github.lock().unwrap().granted = vec!["contents: read", "statuses: write"];
    assert_eq!(server.call("DELETE", &of_project, None)["message"], "Deleted.");

    // By that of the organisation from here on.
    let rogue = Rogue::of(&server, "acme/linux");
    let class = rogue.class.expose();
    let runner = server.runner("r", class);
    let (pipeline, why) = server.triggered_now();
    assert_eq!(why, "");
    let (job, said) = server.looked(&pipeline);
    assert_eq!(job["status"], "success", "{said}");
    assert!(
        said.contains("\nfetched\n") && said.contains("username=x-access-token\npassword=****\n"),
        "{said}"
    );
    assert!(said.ends_with("\n0\n"), "{said}");
    poll("the end of the job to be told", || {
        let calls = fake.calls();
        let told = calls
            .iter()
            .rev()
            .find(|call| call.path.contains("/statuses/"))
            .map(|call| call.json()["state"].clone());
        if told == Some(json!("success")) { Ok(()) } else { Err(format!("{told:?}")) }
    });
    assert_eq!(
        github.lock().unwrap().given,
        4,
        "two of the project's App, two of the organisation's, used again"
    );

    // A token that ends soon is not used: each look gets new ones.
    github.lock().unwrap().lifetime = Duration::from_secs(240);
    let set = json!({ "app_id": "4711", "installation_id": "55", "private_key": private });
    server.call("PUT", &of_project, Some(set.clone()));
    server.call("GET", &of_project, None);
    assert_eq!(github.lock().unwrap().given, 8);

    // A token is refused when a job is handed out: the job is told, and fails for want of it.
    drop(runner);
    let (pipeline, why) = server.triggered_now();
    assert_eq!(why, "");
    let wrong = json!({ "app_id": "4711", "private_key": key().0 });
    let shown = server.call("PUT", &of_project, Some(wrong));
    assert!(shown["statuses"].as_str().unwrap().contains("private key do not belong together"), "{shown}");
    // However often the same runner asks.
    let claims = [rogue.claim("one"), rogue.claim("one")];
    assert!(claims.iter().all(|(status, task)| *status == 200 && task["git_files"].is_null()), "{claims:?}");
    let task = &claims[1].1;
    let back =
        json!({ "task_id": task["id"], "task_token": task["token"], "reason": "runner", "message": "x" });
    let back = back.to_string();
    let token_of_task = Secret::new(task["token"].as_str().unwrap());
    let (status, answer) =
        rogue.send("POST", "/api/v3/runner/unclaim", &token_of_task, Body::Json(back.as_bytes()));
    assert_eq!(status, 200, "{answer}");
    let _runner = server.runner("s", class);
    let (job, said) = server.looked(&pipeline);
    assert!(job["status"] == "failed" && said.contains("could not read Username"), "{said}");
    let path = format!("{PROJECT}/job/{}", job["job_number"]);
    let messages = server.call("GET", &path, None)["messages"].to_string();
    assert_eq!(messages.matches("the GitHub App 4711 gets no token").count(), 1, "{messages}");
    assert_eq!(files_with(&server.data(), &[&token()]), [""; 0], "no token is kept on the disk");

    // The App of the organisation is not for a project at another forge.
    server.call("DELETE", &of_project, None);
    let elsewhere = json!({ "forge": "gitea", "api_url": fake.url() });
    let answer = server.call("PUT", &format!("{PROJECT}/connection"), Some(elsewhere));
    assert!(answer["forge"] == "gitea" && answer["found"]["forge_message"].is_null(), "{answer}");
}
