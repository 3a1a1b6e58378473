//! Access of git to the repository of a project: keys, a login, known hosts, sealed as one. Git reads them from files
//! that are made for one task, or for one command of the control plane's own.

use super::sealer::{SealError, Sealer};
use super::{forge, ssh_key};
use crate::protocol::{Secret, Variable};
use crate::server::ids::ProjectId;
use crate::server::store::{Error, Tx, View};
use crate::server::time::Millis;
use crate::system::git_files::FOLDER;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// Most keys of one project: servers hang up on whoever offers many more.
pub const MOST_KEYS: usize = 5;
/// Longest list of known hosts, in bytes.
const MOST_HOSTS_BYTES: usize = 64 * 1024;
/// The name under which all of it is sealed.
const NAME: &str = "access";
/// The name that goes with the token of a GitHub App, and with those of most people.
pub const APP_USER: &str = "x-access-token";
/// The file that git is told to read.
const CONFIG: &str = "config";

/// Keys of hosts that many repositories are on, as their owners publish them.
const WELL_KNOWN: [&str; 6] = [
    "github.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl",
    "github.com ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBEmKSENjQEezOmxkZMy7opKgwFB9nkt5YRrYMjNuG5N87uRgg6CLrbo5wAdT/y6v0mKV0U2w0WZ2YB/++Tpockg=",
    "gitlab.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAfuCHKVTjquxvt6CM6tdG4SLp1Btn/nOeHHE5UOzRdf",
    "gitlab.com ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBFSMqzJeV9rUzU4kWitGjeR4PWSa29SPqJ1fVkhtj3Hw9xjLVXVYrU9QlYWrOLXBpQ6KWjbjTDTdDkoohFzgbEY=",
    "bitbucket.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIazEu89wgQZ4bqs3d63QSMzYVa0MuJ2e2gKTKqu+UUO",
    "bitbucket.org ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBPIQmuzMBuKdWeF4+a2sjSSpBK0iqitSQ+5BM9KhpexuGt20JpTVM7u5BDZngncgrqDMbWdxMWWOGtZ9UgbqgZE=",
];

/// Keys, login and known hosts that let git into the repository of a project.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Access {
    /// Keys for ssh, the newest first: all are offered, in this order.
    #[serde(default)]
    pub keys: Vec<SshKey>,
    /// The login for HTTPS.
    #[serde(default)]
    pub login: Option<GitLogin>,
    /// Lines of a `known_hosts`.
    #[serde(default)]
    pub known_hosts: String,
}

/// A key for ssh.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SshKey {
    /// Holder of the key on the forge.
    pub kind: KeyKind,
    /// The half that the forge is given, in one line.
    pub public: String,
    /// The half that ssh reads.
    pub private: Secret,
    /// When it came here.
    pub created_at: Millis,
}

/// The holder of a key on the forge. Git does not mind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyKind {
    /// A key of the repository.
    DeployKey,
    /// A key of a person.
    UserKey,
}

/// A login for HTTPS.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GitLogin {
    /// The name that goes with the token.
    pub username: String,
    /// Token of the login, in place of a password.
    pub token: Secret,
    /// The token is sent as a bearer token, without the name.
    #[serde(default)]
    pub is_bearer: bool,
}

/// Reads the access of a project; an empty one when none was set. The inner error says why it cannot be opened.
pub fn open(view: &View, sealer: &Sealer, project: &ProjectId) -> Result<Result<Access, SealError>, Error> {
    Ok(match forge::open(view, sealer, project, NAME)? {
        None => Ok(Access::default()),
        Some(Err(why)) => Err(why),
        Some(Ok(text)) => serde_json::from_str(text.expose()).map_err(|_| SealError::Damaged),
    })
}

/// Keeps the access of a project in place of what was there.
pub fn keep(
    tx: &Tx<'_>,
    sealer: &Sealer,
    project: &ProjectId,
    access: &Access,
    now: Millis,
) -> Result<(), Error> {
    forge::keep(tx, sealer, project, NAME, &Secret::new(serde_json::to_string(access)?), now)
}

impl Access {
    /// The place of the key with a fingerprint of either kind.
    pub fn find(&self, fingerprint: &str) -> Option<usize> {
        self.keys.iter().position(|key| {
            let (md5, sha256) = ssh_key::fingerprints(&key.public);
            fingerprint == sha256 || fingerprint.strip_prefix("MD5:").unwrap_or(fingerprint) == md5
        })
    }

    /// The files by which git gets into the repository at this address, and into others of its host; none where nothing
    /// is set that fits. `@FOLDER@` in them stands for the folder that they are in; git is told to read `config`.
    pub fn files(&self, url: &str) -> Vec<Variable> {
        let Some((base, host)) = place(url) else { return Vec::new() };
        let (mut config, mut files) = (String::new(), Vec::new());
        let mut add = |name: &str, text: &str| {
            files.push(Variable { name: name.to_owned(), value: Secret::new(text) });
        };
        if !self.keys.is_empty() || !self.known_hosts.is_empty() {
            let names: Vec<String> = (1..=self.keys.len()).map(|n| format!("key-{n}")).collect();
            for (name, key) in names.iter().zip(&self.keys) {
                add(name, key.private.expose());
            }
            add("known_hosts", &self.hosts());
            add("ssh_config", &ssh_config(&host, &names));
            config.push_str(&format!("[core]\n\tsshCommand = \"ssh -F '{FOLDER}/ssh_config'\"\n"));
        }
        // Helpers and headers of the host may be for the same address: an empty one forgets them.
        match &self.login {
            Some(GitLogin { token, is_bearer: true, .. }) => config.push_str(&format!(
                "[http \"{base}\"]\n\textraHeader =\n\textraHeader = \"Authorization: Bearer {}\"\n\tfollowRedirects = false\n",
                token.expose()
            )),
            Some(GitLogin { username, token, .. }) => {
                add("login", &format!("username={username}\npassword={}\n", token.expose()));
                config.push_str(&format!(
                    "[credential \"{base}\"]\n\thelper =\n\thelper = \"!f() {{ test \\\"$1\\\" != get || cat '{FOLDER}/login'; }}; f\"\n"
                ));
            }
            None => {}
        }
        if !config.is_empty() {
            add(CONFIG, &config);
        }
        files
    }

    fn hosts(&self) -> String {
        let mut text = self.known_hosts.trim_end().to_owned();
        for line in WELL_KNOWN {
            text.push('\n');
            text.push_str(line);
        }
        format!("{}\n", text.trim_start())
    }

    /// Values that no output may show.
    pub fn masked(&self) -> Vec<Secret> {
        let mut all: Vec<Secret> = self.keys.iter().map(|key| key.private.clone()).collect();
        if let Some(login) = &self.login {
            let pair = format!("{}:{}", login.username, login.token.expose());
            all.extend([login.token.clone(), Secret::new(STANDARD.encode(pair))]);
        }
        all
    }
}

/// The settings of ssh for the host of the repository, in front of those of the user and the system.
fn ssh_config(host: &str, keys: &[String]) -> String {
    let mut text = format!("Host {host}\n");
    for key in keys {
        text.push_str(&format!("\tIdentityFile \"{FOLDER}/{key}\"\n"));
    }
    if !keys.is_empty() {
        text.push_str("\tIdentitiesOnly yes\n");
    }
    text.push_str(&format!(
        "\tUserKnownHostsFile \"{FOLDER}/known_hosts\" ~/.ssh/known_hosts\n\tStrictHostKeyChecking yes\n\tControlPath none\nHost *\n\tBatchMode yes\n\tConnectTimeout 20\nInclude ~/.ssh/config\nInclude /etc/ssh/ssh_config\n"
    ));
    text
}

/// The beginning of the addresses that a login for this one is good for, and the host. `None` where no login helps.
pub fn place(url: &str) -> Option<(String, String)> {
    let name = |authority: &str| {
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let bare = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((bare, _)) => bare,
            None => host.split(':').next().unwrap_or_default(),
        };
        bare.to_owned()
    };
    match url.split_once("://") {
        Some((scheme @ ("https" | "http"), rest)) => {
            let authority = rest.split('/').next()?;
            Some((format!("{scheme}://{authority}"), name(authority)))
        }
        Some(("ssh", rest)) => {
            let host = name(rest.split('/').next()?);
            Some((format!("https://{host}"), host))
        }
        Some(_) => None,
        None => {
            let host = name(url.split_once(':')?.0);
            Some((format!("https://{host}"), host))
        }
    }
}

/// Whether a token of an API may be shown to whoever a repository is fetched from: to the same host only. GitHub's own
/// API has a host of its own.
pub fn is_of_api(api: &str, url: &str) -> bool {
    let host = |text: &str| place(text).map_or_else(String::new, |(_, host)| host.to_ascii_lowercase());
    let (of_api, of_url) = (host(api), host(url));
    let is_web = url.starts_with("https://") || url.starts_with("http://");
    is_web && !of_url.is_empty() && of_api.strip_prefix("api.").unwrap_or(&of_api) == of_url
}

/// Checks a token; the error is a sentence for people.
pub fn check_token(token: &str) -> Result<(), &'static str> {
    let fits = (1..=8192).contains(&token.len())
        && token.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
    if fits { Ok(()) } else { Err("it is one word of at most 8192 letters, digits and signs of ASCII") }
}

/// Checks a token that git is given as a password, which may be what people choose; the error is a sentence for people.
pub fn check_password(password: &str) -> Result<(), &'static str> {
    let fits = (1..=8192).contains(&password.len()) && !password.chars().any(char::is_control);
    if fits { Ok(()) } else { Err("it is one line of at most 8192 bytes, without control characters") }
}

/// Checks the name that goes with a token; the error is a sentence for people.
pub fn check_username(name: &str) -> Result<(), &'static str> {
    let fits = (1..=255).contains(&name.len()) && !name.contains(':') && !name.chars().any(char::is_control);
    if fits { Ok(()) } else { Err("it is one line without a colon, of at most 255 bytes") }
}

/// Checks lines of a `known_hosts`; the error is a sentence for people.
pub fn check_hosts(text: &str) -> Result<(), String> {
    if text.len() > MOST_HOSTS_BYTES {
        return Err(format!("they have at most {MOST_HOSTS_BYTES} bytes"));
    }
    let is_good = |line: &str| {
        let mut words = line.split_ascii_whitespace().skip_while(|word| word.starts_with('@'));
        words.nth(2).is_some_and(|half| STANDARD.decode(half).is_ok())
    };
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    match lines.find(|line| !is_good(line)) {
        None => Ok(()),
        Some(line) => {
            let shown: String = line.chars().filter(|c| !c.is_control()).take(60).collect();
            Err(format!("`{shown}` is no line of a known_hosts, such as `ssh-keyscan HOST` prints"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_login(is_bearer: bool) -> Access {
        let login = GitLogin { username: "bot".into(), token: Secret::new("hunter2"), is_bearer };
        Access { login: Some(login), ..Access::default() }
    }

    fn text<'f>(files: &'f [Variable], name: &str) -> &'f str {
        files.iter().find(|file| file.name == name).map_or("", |file| file.value.expose())
    }

    #[test]
    fn a_login_is_for_its_host_and_its_port_only() {
        for (url, base) in [
            ("https://git.example:8443/acme/app.git", "https://git.example:8443"),
            ("http://127.0.0.1:80/app", "http://127.0.0.1:80"),
            ("ssh://git@git.example:2222/acme/app", "https://git.example"),
            ("git@git.example:acme/app", "https://git.example"),
        ] {
            let files = with_login(false).files(url);
            assert!(text(&files, CONFIG).starts_with(&format!("[credential \"{base}\"]\n")), "{url}");
            assert_eq!(text(&files, "login"), "username=bot\npassword=hunter2\n");
            assert!(!text(&files, CONFIG).contains("hunter2"));
        }
        assert!(with_login(false).files("file:///srv/app.git").is_empty());
        assert!(Access::default().files("https://git.example/acme/app").is_empty());
        let files = with_login(true).files("https://git.example/acme/app");
        assert!(files.len() == 1 && text(&files, CONFIG).contains("Bearer hunter2"));
    }

    #[test]
    fn keys_are_for_their_host_and_hosts_are_always_checked() {
        let key = |n: &str| SshKey {
            kind: KeyKind::DeployKey,
            public: format!("ssh-ed25519 {n}"),
            private: Secret::new(n),
            created_at: Millis(0),
        };
        let access = Access { keys: vec![key("new"), key("old")], ..Access::default() };
        let files = access.files("ssh://git@[::1]:2222/app");
        let config = text(&files, "ssh_config");
        let start = "Host ::1\n\tIdentityFile \"@FOLDER@/key-1\"\n\tIdentityFile \"@FOLDER@/key-2\"\n";
        assert!(config.starts_with(start) && config.contains("StrictHostKeyChecking yes"));
        assert_eq!((text(&files, "key-1"), text(&files, "key-2")), ("new", "old"));
        assert!(text(&files, "known_hosts").starts_with("github.com ssh-ed25519 "));
    }

    #[test]
    fn a_token_is_shown_to_the_host_of_its_api_only() {
        for (api, url, is_same) in [
            ("https://api.github.com", "https://github.com/acme/app.git", true),
            ("https://api.acme.ghe.com", "https://acme.ghe.com/acme/app", true),
            ("https://git.example:8443/api/v3", "https://x@GIT.example/acme/app", true),
            ("http://127.0.0.1:1", "http://127.0.0.1:2/app.git", true),
            ("https://api.github.com", "https://github.com.example/acme/app", false),
            ("https://api.github.com", "https://github.com@example/acme/app", false),
            ("https://api.github.com", "git@github.com:acme/app", false),
            ("https://api.github.com", "file:///srv/app", false),
        ] {
            assert_eq!(is_of_api(api, url), is_same, "{api} {url}");
        }
    }

    #[test]
    fn what_git_could_misread_is_refused() {
        assert!(check_token("glpat-a_b.c~d").is_ok());
        for token in ["", "a b", "a\nb", "a\"b", "a\\b", "é"] {
            assert!(check_token(token).is_err(), "{token}");
        }
        assert!(check_password("päss \"wort\" \\ %20").is_ok());
        for password in ["", "a\nb", "a\rb", "a\0b", "a\u{85}b"] {
            assert!(check_password(password).is_err(), "{password}");
        }
        assert!(check_username("x-token-auth").is_ok() && check_username("a\nb").is_err());
        assert!(
            check_hosts("# one\n\n[h]:22 ssh-ed25519 AAAA\n@cert-authority *.h ssh-rsa AAAA x\n").is_ok()
        );
        for hosts in ["h", "h ssh-rsa", "h ssh-rsa !!", "-----BEGIN OPENSSH PRIVATE KEY-----"] {
            assert!(check_hosts(hosts).is_err(), "{hosts}");
        }
    }
}
