//! Chromium without a screen, driven by chromedriver over HTTP (WebDriver).

use crate::server::ANSWER;
use crate::support::poll;
use runlet::http::{Body, Client, Endpoint, Request};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A browser with one window; it ends with the value.
pub(super) struct Browser {
    driver: Child,
    client: Client,
    session: String,
}

impl Browser {
    /// Starts one that keeps its files below `folder`.
    pub(super) fn start(folder: &Path) -> Self {
        let mut driver = Command::new("chromedriver")
            .args(["--port=0", "--allowed-ips=127.0.0.1"])
            .env("HOME", folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver (Debian: chromium-driver; ci/test installs it)");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = lines.find_map(|line| {
            let (_, port) = line.split_once("started successfully on port ")?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        let url = format!("http://127.0.0.1:{}", port.expect("chromedriver to say its port"));
        // The driver would stop on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let client = Client::new(&Endpoint { url, ca_file: None, client_certificate: None }).unwrap();
        let mut browser = Self { driver, client, session: String::new() };
        let profile = format!("--user-data-dir={}", folder.join("chromium").display());
        // Containers have neither the right to make namespaces nor a large /dev/shm.
        let args = [
            "--headless=new",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--window-size=1280,800",
            &profile,
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": args }, "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let made = browser.call("POST", "", Some(wanted));
        browser.session = format!("/{}", made["sessionId"].as_str().unwrap());
        browser
    }

    fn call(&self, method: &'static str, path: &str, body: Option<Value>) -> Value {
        self.ask(method, path, body).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// The value of an answer, or that of a refusal.
    fn ask(&self, method: &'static str, path: &str, body: Option<Value>) -> Result<Value, Value> {
        let path = format!("/session{}{path}", self.session);
        let bytes = body.map(|body| body.to_string().into_bytes());
        let body = bytes.as_deref().map_or(Body::Empty, Body::Json);
        let request = Request { method, path: &path, token: None, body, timeout: ANSWER };
        let answer = self.client.send(&request).unwrap();
        let mut value: Value = serde_json::from_slice(&answer.body).unwrap();
        let value = value["value"].take();
        if answer.status == 200 { Ok(value) } else { Err(value) }
    }

    /// The driver answers on a busy machine before the whole page is there.
    pub(super) fn open(&self, url: &str) {
        self.call("POST", "/url", Some(json!({ "url": url })));
        poll("the whole page", || match self.run("return document.readyState") {
            state if state == "complete" => Ok(()),
            state => Err(state.to_string()),
        });
    }

    pub(super) fn address(&self) -> String {
        self.call("GET", "/url", None).as_str().unwrap().to_owned()
    }

    pub(super) fn title(&self) -> String {
        self.call("GET", "/title", None).as_str().unwrap().to_owned()
    }

    fn find(&self, selector: &str) -> String {
        let found =
            self.call("POST", "/element", Some(json!({ "using": "css selector", "value": selector })));
        let id = found.as_object().unwrap().values().next().unwrap();
        format!("/element/{}", id.as_str().unwrap())
    }

    pub(super) fn type_into(&self, selector: &str, text: &str) {
        self.call("POST", &format!("{}/value", self.find(selector)), Some(json!({ "text": text })));
    }

    /// Clicks, and waits for the page that it leads to: the driver's answer may come before the way there begins.
    pub(super) fn click(&self, selector: &str) {
        let page = self.find("html");
        self.call("POST", &format!("{}/click", self.find(selector)), Some(json!({})));
        poll("the page that the click leads to", || match self.ask("GET", &format!("{page}/name"), None) {
            Ok(_) => Err(format!("{} is shown", self.address())),
            Err(gone) if gone["error"] == "stale element reference" => Ok(()),
            Err(other) => Err(other.to_string()),
        });
        let state = json!({ "script": "return document.readyState", "args": [] });
        poll("the whole page", || match self.ask("POST", "/execute/sync", Some(state.clone())) {
            Ok(state) if state == "complete" => Ok(()),
            Ok(other) | Err(other) => Err(other.to_string()),
        });
    }

    /// Runs a script of the driver's, which the page's policy does not concern.
    pub(super) fn run(&self, script: &str) -> Value {
        self.call("POST", "/execute/sync", Some(json!({ "script": script, "args": [] })))
    }

    /// Complaints of the browser about the pages so far: broken policies, scripts, resources that are not there.
    pub(super) fn console(&self) -> Vec<String> {
        let entries = self.call("POST", "/se/log", Some(json!({ "type": "browser" })));
        let is_fault = |entry: &&Value| matches!(entry["level"].as_str(), Some("SEVERE" | "WARNING"));
        entries
            .as_array()
            .unwrap()
            .iter()
            .filter(is_fault)
            .map(|entry| entry["message"].to_string())
            .collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            let path = format!("/session{}", self.session);
            let (token, body) = (None, Body::Empty);
            let request = Request { method: "DELETE", path: &path, token, body, timeout: ANSWER };
            let _ = self.client.send(&request);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
