//! Private repositories: over HTTPS's plain brother on this host with a real `git http-backend`, by a login and by a
//! bearer token; over ssh with a real sshd; submodules of the same host; and nothing for strangers.

use crate::forge::pull;
use crate::repositories::Work;
use crate::server::{Runner, Server, runlet, write_private};
use crate::support::poll;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

const PROJECT: &str = "/api/v2/project/gh/acme/hello";
/// Token that opens the repositories over HTTP.
const TOKEN: &str = "hunter2-of-the-forge";

/// A server of bare repositories that lets in whoever shows this header.
pub(crate) struct HttpGit {
    address: SocketAddr,
    /// Answers 500, whatever it is asked.
    pub(crate) is_down: Arc<AtomicBool>,
    /// The header of whoever is let in.
    pub(crate) authorization: Arc<Mutex<String>>,
}

impl HttpGit {
    pub(crate) fn start(root: &Path, authorization: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (root, authorization) = (root.to_owned(), Arc::new(Mutex::new(authorization.to_owned())));
        let is_down = Arc::<AtomicBool>::default();
        let (down, of_now) = (Arc::clone(&is_down), Arc::clone(&authorization));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (root, authorization) = (root.clone(), of_now.lock().unwrap().clone());
                let down = down.load(Ordering::Relaxed);
                // A client that hangs up in the middle is no concern of the others.
                thread::spawn(move || serve(stream, &root, &authorization, down));
            }
        });
        Self { address, is_down, authorization }
    }

    pub(crate) fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }
}

/// Answers one request by the program that git has for it.
fn serve(mut stream: TcpStream, root: &Path, authorization: &str, is_down: bool) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let header = |name: &str| {
        let mut values = lines.iter().filter_map(|line| line.split_once(": "));
        values.find(|(known, _)| known.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    };
    let mut body = Vec::new();
    if header("Transfer-Encoding") == "chunked" {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let length = u64::from_str_radix(line.trim(), 16).unwrap_or(0);
            (&mut reader).take(length).read_to_end(&mut body)?;
            reader.read_line(&mut line)?;
            if length == 0 {
                break;
            }
        }
    } else {
        let length = header("Content-Length").parse().unwrap_or(0);
        (&mut reader).take(length).read_to_end(&mut body)?;
    }
    if is_down {
        let sorry = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        return stream.write_all(sorry.as_bytes());
    }
    if header("Authorization") != authorization {
        let refusal = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        return stream.write_all(refusal.as_bytes());
    }
    let mut words = lines[0].split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut git = Command::new("git")
        .arg("http-backend")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", header("Content-Type"))
        .env("HTTP_CONTENT_ENCODING", header("Content-Encoding"))
        .env("GIT_PROTOCOL", header("Git-Protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = git.stdin.take().unwrap();
    let writing = thread::spawn(move || input.write_all(&body));
    let output = git.wait_with_output()?.stdout;
    let _ = writing.join();
    let end = output.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(0);
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK");
    let length = output.len() - end - 4;
    write!(stream, "HTTP/1.1 {status}\r\n{head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")?;
    stream.write_all(&output[end + 4..])
}

/// A config whose job checks out and runs this.
fn config(script: &str) -> String {
    json!({ "version": 2.1, "jobs": { "look": { "machine": true, "resource_class": "acme/linux",
        "steps": ["checkout", { "run": script }] } }, "workflows": { "w": { "jobs": ["look"] } } })
    .to_string()
}

/// Script of a job that fetches by itself, and looks whether anything that lets it in can be seen anywhere. `needle` is in
/// no text of the script as it is looked for.
fn script(needle: &str) -> String {
    let (first, rest) = needle.split_at(4);
    format!(
        "git fetch --quiet origin main && git submodule --quiet update --init && cat sub/word\n\
         needle={first}; needle=$needle'{rest}'\n\
         look() {{ env; GIT_TRACE=1 git fetch origin main 2>&1; find . -type f -exec cat {{}} +; }}\n\
         echo leaks $(look | grep -c -- \"$needle\")\n\
         echo folder \"$(dirname \"$GIT_CONFIG_VALUE_0\")\" $(stat -c %a \"$(dirname \"$GIT_CONFIG_VALUE_0\")\" \"$GIT_CONFIG_VALUE_0\")\n\
         cat \"$(dirname \"$GIT_CONFIG_VALUE_0\")\"/*\n"
    )
}

/// The two repositories, bare: one with a config, and one that is a submodule of it.
fn repositories(server: &Server, submodule: &str, script: &str) -> (PathBuf, String) {
    let folder = server.folder.path().join("bare");
    let work = Work::new(server.folder.path());
    let other = tempfile::tempdir().unwrap();
    let sub = Work::new(other.path());
    sub.write("word", "the submodule\n");
    sub.git(&["add", "."]);
    sub.git(&["commit", "--quiet", "-m", "sub"]);
    let commit = sub.git(&["rev-parse", "HEAD"]);
    sub.git(&["clone", "--quiet", "--bare", ".", folder.join("sub.git").to_str().unwrap()]);
    let modules = format!("[submodule \"sub\"]\n\tpath = sub\n\turl = {submodule}\n");
    work.write(".gitmodules", &modules);
    work.git(&["add", "."]);
    work.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},sub")]);
    work.write(".circleci/config.yml", &config(script));
    work.git(&["add", ".circleci"]);
    work.git(&["commit", "--quiet", "-m", "main"]);
    let head = work.git(&["rev-parse", "HEAD"]);
    work.git(&["update-ref", "refs/pull/12/head", &head]);
    let app = folder.join("app.git");
    work.git(&["clone", "--quiet", "--mirror", ".", app.to_str().unwrap()]);
    (folder, head)
}

impl Server {
    fn access(&self, wanted: Value) -> Value {
        self.call("PUT", &format!("{PROJECT}/access"), Some(wanted))
    }

    /// The only job of a pipeline once it has ended, and the output of its last step.
    pub(crate) fn looked(&self, pipeline: &str) -> (Value, String) {
        let job = self.ended(pipeline).remove(0);
        let id = job["id"].as_str().unwrap();
        let read = |step: u32| {
            let path =
                format!("/api/v3/jobs/{id}/stdout?filter%5Bexecution%5D=0&filter%5Bstep_num%5D={step}");
            let request = runlet::http::Request {
                method: "GET",
                path: &path,
                token: Some(&self.token),
                body: runlet::http::Body::Empty,
                timeout: crate::server::ANSWER,
            };
            String::from_utf8_lossy(&self.client.send(&request).unwrap().body).into_owned()
        };
        let output = read(2);
        let checkout = read(1);
        (job, format!("{checkout}\n---\n{output}"))
    }

    /// The id of a pipeline of the default branch, and why there is nothing in it.
    pub(crate) fn triggered_now(&self) -> (String, String) {
        let created = self.call("POST", &format!("{PROJECT}/pipeline"), None);
        let id = created["id"].as_str().unwrap().to_owned();
        let pipeline = self.call("GET", &format!("/api/v2/pipeline/{id}"), None);
        (id, pipeline["errors"][0]["message"].as_str().unwrap_or_default().to_owned())
    }
}

/// Asserts what a job has said that was let in and fetched by itself.
fn assert_let_in(job: &Value, said: &str) -> PathBuf {
    assert_eq!(job["status"], "success", "{said}");
    assert!(said.contains("\nthe submodule\n") && said.contains("\nleaks 0\n"), "{said}");
    let folder = said.lines().find_map(|line| line.strip_prefix("folder ")).unwrap();
    let (folder, modes) = folder.split_once(' ').unwrap();
    assert_eq!(modes, "700 600", "{said}");
    // The folder went with the task.
    let folder = PathBuf::from(folder);
    assert!(folder.is_absolute() && !said.contains("folder /****"), "{said}");
    poll("the end of the files", || if folder.exists() { Err(format!("{folder:?}")) } else { Ok(()) });
    folder
}

#[test]
fn a_token_opens_repositories_of_its_host_and_is_seen_nowhere() {
    let server = Server::start();
    server.project();
    let root = server.folder.path().join("bare");
    std::fs::create_dir_all(&root).unwrap();
    let basic = format!("Basic {}", STANDARD.encode(format!("bot:{TOKEN}")));
    let forge = HttpGit::start(&root, &basic);
    let (_, head) = repositories(&server, &forge.url("sub.git"), &script(TOKEN));
    server.register(&forge.url("app.git"));
    let class = server.class_token("acme/linux");
    let _runner = server.runner("r", &class);
    let (_, why) = server.triggered_now();
    assert!(why.contains("failed to fetch"), "{why}");

    let shown = server.access(json!({ "token": TOKEN, "username": "bot" }));
    assert!(shown["has_token"] == true && !shown.to_string().contains("hunter2"), "{shown}");
    let (pipeline, why) = server.triggered_now();
    assert_eq!(why, "");
    let (job, said) = server.looked(&pipeline);
    assert_let_in(&job, &said);
    assert!(said.contains("username=bot\npassword=****\n"), "{said}");
    // Files with keys go while the control plane goes on with other work.
    let left = || {
        let entries = std::fs::read_dir(server.data().join("mirrors")).unwrap().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("access-")).count()
    };
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while left() > 0 {
        assert!(std::time::Instant::now() < patience, "what let git in is still there");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }

    // A pull request from a fork gets in nowhere, whatever else it is given.
    server.set(json!({ "enable_building_fork_prs": true, "can_pass_secrets_to_fork_pr_jobs": true }));
    server.takes_untrusted();
    let hook = server.connect(json!({}));
    let pipeline = hook.github_started("pull_request", "f1", &pull("opened", 12, &head, 99));
    let (job, said) = server.looked(&pipeline);
    assert!(job["status"] == "failed" && said.contains("could not read Username"), "{said}");

    // A server takes the same token as a bearer token of the project.
    let forge = HttpGit::start(&root, &format!("Bearer {TOKEN}"));
    server.register(&forge.url("app.git"));
    server.access(json!({ "token": TOKEN, "is_bearer": true }));
    let change = root.parent().unwrap().join("repositories/work");
    let work = |args: &[&str]| {
        let done = Command::new("git").current_dir(&change).args(args).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    let modules = format!("[submodule \"sub\"]\n\tpath = sub\n\turl = {}\n", forge.url("sub.git"));
    std::fs::write(change.join(".gitmodules"), modules).unwrap();
    work(&["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "moved", ".gitmodules"]);
    work(&["push", "--quiet", root.join("app.git").to_str().unwrap(), "main"]);
    let (pipeline, why) = server.triggered_now();
    assert_eq!(why, "");
    let (job, said) = server.looked(&pipeline);
    assert_let_in(&job, &said);
    assert!(said.contains("Authorization: Bearer ****"), "{said}");
    server.access(json!({ "token": "" }));
    assert!(server.triggered_now().1.contains("failed to fetch"), "the token is gone");
}

/// An sshd of this user for whoever has a key in `authorized_keys`; one process for each connection.
fn sshd(folder: &Path) -> Option<(SocketAddr, String)> {
    let program = Path::new("/usr/sbin/sshd");
    if !program.exists() {
        eprintln!("there is no sshd on this host (Debian: openssh-server; ci/test installs it)");
        return None;
    }
    let host_key = folder.join("host_key");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&host_key)
        .status()
        .unwrap();
    assert!(made.success());
    let settings = format!(
        "HostKey {key}\nAuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nForceCommand git-shell -c \"$SSH_ORIGINAL_COMMAND\"\n",
        key = host_key.display(),
        folder = folder.display()
    );
    std::fs::write(folder.join("sshd_config"), settings).unwrap();
    if rustix::process::geteuid().is_root() {
        // The package makes it when its service starts.
        let _ = std::fs::create_dir_all("/run/sshd");
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let settings = folder.join("sshd_config");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let Ok(input) = stream.try_clone() else { continue };
            let mut sshd = Command::new(program);
            sshd.arg("-i").arg("-f").arg(&settings).stderr(Stdio::null());
            sshd.stdin(OwnedFd::from(input)).stdout(OwnedFd::from(stream));
            // Ends with its connection.
            thread::spawn(move || sshd.status());
        }
    });
    let public = std::fs::read_to_string(folder.join("host_key.pub")).unwrap();
    Some((address, format!("[127.0.0.1]:{} {}", address.port(), public.trim())))
}

/// A runner with a home of its own and this in its environment.
fn runner_with(server: &Server, class: &str, home: &Path, variables: &[(&str, &str)]) -> Runner {
    let settings = home.join("runner.yaml");
    let text = format!(
        "api:\n  url: {}\n  auth_token: {class}\nrunner:\n  name: s\n  working_directory: {dir}/work\n  state_directory: {dir}/state\n  task_agent_directory: {dir}/bin\n  cleanup_working_directory: true\n",
        server.client.url(),
        dir = home.display()
    );
    write_private(&settings, &text);
    let mut command = runlet();
    command.args(["machine", "--config"]).arg(&settings).env("HOME", home);
    command.env(crate::server::MARK, server.folder.path()).envs(variables.iter().copied());
    Runner(command.stdout(Stdio::null()).spawn().unwrap())
}

#[test]
fn a_deploy_key_opens_repositories_over_ssh_once_the_host_is_known() {
    let server = Server::start();
    server.project();
    let folder = server.folder.path().to_owned();
    let Some((address, known_host)) = sshd(&folder) else { return };
    let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    let base = format!("ssh://{}@{address}{}/bare", user.trim(), folder.display());
    repositories(&server, &format!("{base}/sub.git"), &script("PRIVATE KEY"));
    server.register(&format!("{base}/app.git"));
    let class = server.class_token("acme/linux");
    let home = folder.join("home");
    std::fs::create_dir(&home).unwrap();

    let keys = format!("{PROJECT}/checkout-key");
    let (status, key) = server.answer("POST", &keys, Some(json!({ "type": "deploy-key" })));
    assert!(status == 201 && key["preferred"] == true, "{key}");
    let public = key["public-key"].as_str().unwrap();
    std::fs::write(folder.join("authorized_keys"), format!("{public}\n")).unwrap();
    let (_, why) = server.triggered_now();
    assert!(why.contains("Host key verification failed"), "{why}");

    server.access(json!({ "known_hosts": known_host }));
    // A newer key that the forge has not got yet does no harm.
    let (status, newer) = server.answer("POST", &keys, Some(json!({ "type": "user-key" })));
    assert_eq!(status, 201, "{newer}");
    let (pipeline, why) = server.triggered_now();
    assert_eq!(why, "");
    let runner = runner_with(&server, &class, &home, &[]);
    let (job, said) = server.looked(&pipeline);
    let files = assert_let_in(&job, &said);
    assert!(!files.starts_with(&home), "{files:?}");
    assert!(said.contains("IdentityFile \"") && !said.contains("OPENSSH PRIVATE"), "{said}");
    drop(runner);

    // Beside the keys of the user, where that is wanted.
    let setting = [("USE_HOME_SSH_DIR_FOR_CHECKOUT_KEYS", "true")];
    let _runner = runner_with(&server, &class, &home, &setting);
    let (pipeline, why) = server.triggered_now();
    assert_eq!(why, "");
    let (job, said) = server.looked(&pipeline);
    let files = assert_let_in(&job, &said);
    assert!(files.starts_with(home.join(".ssh")), "{files:?}");

    // The keys as the versions of the API list them.
    let of = |key: &Value| key["fingerprint"].as_str().unwrap().to_owned();
    let listed = server.call("GET", &keys, None);
    assert_eq!(
        listed["items"].as_array().unwrap().iter().map(of).collect::<Vec<_>>(),
        [of(&newer), of(&key)]
    );
    let old = server.call("GET", &keys.replace("/v2/", "/v1.1/"), None);
    assert_eq!((&old[0]["type"], &old[1]["public_key"]), (&json!("github-user-key"), &json!(public)));
    let sha256 =
        server.call("GET", &format!("{keys}?digest=sha256"), None)["items"][1]["fingerprint"].clone();
    let sha256 = sha256.as_str().unwrap().replace('/', "%2F").replace('+', "%2B");
    assert!(sha256.starts_with("SHA256:"), "{sha256}");
    assert_eq!(of(&server.call("GET", &format!("{keys}/{sha256}"), None)), of(&key));
    let (status, _) = server.answer("DELETE", &format!("{keys}/{}", of(&newer)), None);
    assert_eq!(status, 200);
    let (status, _) = server.answer("GET", &format!("{keys}/{}", of(&newer)), None);
    assert_eq!(status, 404);
}

#[test]
fn wishes_that_nobody_can_mean_are_refused_and_change_nothing() {
    let server = Server::start();
    server.project();
    let access = format!("{PROJECT}/access");
    for (path, wanted, why) in [
        (
            "access",
            json!({ "token": TOKEN, "is_bearer": "yes" }),
            "`is_bearer` is true or false, not `\"yes\"`",
        ),
        ("access", json!({ "new_key": 1 }), "`new_key` is true or false"),
        ("access", json!({ "new_key": true, "private_key": "x" }), "exclude each other"),
        (
            "access",
            json!({ "new-key": true }),
            "`new-key` says nothing about access, did you mean `new_key`? (known: new_key, ",
        ),
        ("connection", json!({ "forge": "github", "set_hook": "no" }), "`set_hook` is true or false"),
        ("connection", json!({ "forge": "github", "rotate_secret": 1 }), "`rotate_secret` is true or false"),
    ] {
        let (status, refused) = server.answer("PUT", &format!("{PROJECT}/{path}"), Some(wanted));
        assert!(status == 400 && refused["message"].as_str().unwrap().contains(why), "{refused}");
    }
    let path = format!("{PROJECT}/checkout-key?digest=sha1");
    let (status, refused) = server.answer("POST", &path, Some(json!({ "type": "deploy-key" })));
    assert!(
        status == 400 && refused["message"].as_str().unwrap().contains("`digest` is md5 or"),
        "{refused}"
    );
    let shown = server.call("GET", &access, None);
    assert!(shown["keys"] == json!([]) && shown["has_token"] == false, "{shown}");
}
