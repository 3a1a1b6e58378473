//! A browser without a script: it keeps cookies, sends forms, follows nothing by itself.

use std::io::{Read, Write};
use std::net::TcpStream;

/// A browser, with its cookies.
#[derive(Clone)]
pub(crate) struct Reader {
    host: String,
    /// The kinds of answers that it asks for.
    pub(super) accept: &'static str,
    cookies: Vec<(String, String)>,
}

/// The answer to a call of the browser.
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(crate) text: String,
}

impl Page {
    /// A header; empty when there is none.
    pub(super) fn header(&self, name: &str) -> String {
        let found = self.headers.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    }

    /// The hidden field of its form.
    pub(super) fn field(&self) -> String {
        let (_, rest) = self.text.split_once("name=\"field\" value=\"").expect("a form on the page");
        rest.split('"').next().unwrap().to_owned()
    }
}

impl Reader {
    pub(crate) fn new(url: &str) -> Self {
        Self {
            host: url.trim_start_matches("http://").to_owned(),
            accept: "text/html,*/*;q=0.8",
            cookies: Vec::new(),
        }
    }

    pub(crate) fn get(&mut self, path: &str) -> Page {
        self.get_with(path, &[])
    }

    pub(super) fn get_with(&mut self, path: &str, headers: &[(&str, &str)]) -> Page {
        self.send("GET", path, headers, "")
    }

    /// Sends a form.
    pub(super) fn post(&mut self, path: &str, form: &[(&str, &str)], headers: &[(&str, &str)]) -> Page {
        let coded = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
        let pairs: Vec<String> =
            form.iter().map(|(name, value)| format!("{name}={}", coded(value))).collect();
        self.send("POST", path, headers, &pairs.join("&"))
    }

    /// Signs in by the form, and is led to `next`.
    pub(crate) fn sign_in(&mut self, token: &str, next: &str) {
        let field = self.get("/login").field();
        let page = self.post("/login", &[("token", token), ("field", &field), ("next", next)], &[]);
        assert_eq!((page.status, page.header("location").as_str()), (303, next), "{}", page.text);
    }

    fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Page {
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAccept: {}\r\nConnection: close\r\n",
            self.host, self.accept
        );
        let cookies: Vec<String> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if !cookies.is_empty() {
            // A text browser sends an attribute that it does not know as a cookie.
            head += &format!("Cookie: SameSite=Lax; {}\r\n", cookies.join("; "));
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if method == "POST" {
            let length = body.len();
            head +=
                &format!("Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n");
        }
        let mut stream = TcpStream::connect(&self.host).unwrap();
        stream.write_all(format!("{head}\r\n{body}").as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, text) = answer.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let pair = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        };
        let headers: Vec<(String, String)> = lines.map(pair).collect();
        for (_, cookie) in headers.iter().filter(|(name, _)| name == "set-cookie") {
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            self.cookies.retain(|(found, _)| found != name);
            if !value.is_empty() {
                self.cookies.push((name.to_owned(), value.to_owned()));
            }
        }
        assert!(!headers.iter().any(|(name, _)| name == "transfer-encoding"), "pages say how long they are");
        Page { status, headers, text: text.to_owned() }
    }
}
