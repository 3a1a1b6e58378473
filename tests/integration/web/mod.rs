//! The web page: read without a script, as text browsers do, and in a real browser.

mod addresses;
mod browser;
mod buttons;
mod reader;

use crate::server::{Runner, Server};
use crate::support::poll;
use browser::Browser;
use reader::Reader;
use serde_json::Value;

/// Prints what would be markup, colours, links and lines that are written over; fails; leaves results.
const CONFIG: &str = r##"
version: 2.1
jobs:
  build:
    machine: true
    resource_class: acme/linux
    steps:
      - run: {name: Say, command: 'echo "at $CIRCLE_BUILD_URL"; seq 1 2500'}
      - run:
          name: Check <b>all</b>
          command: |
            printf '10%%\r100%%\n<img src=x onerror=alert(1)></pre><script>document.title="taken"</script>\n'
            printf '\033[31mFAIL\033[0m \033]8;;javascript:alert(1)\033\\here\033]8;;\033\\ https://example.com/a?b=1&c.\n'
            mkdir -p "out/a b"
            echo '<testsuite><testcase classname="crc" name="table" file="crc/test.c" line="12"><failure message="3 &lt; 4 &lt;b&gt;"/></testcase><testcase name="fine"/></testsuite>' > out/r.xml
            echo '<script>alert(1)</script>' > "out/a b/page.html"
            exit 3
      - store_test_results: {path: out}
      - store_artifacts: {path: out}
  late: {machine: true, resource_class: acme/nobody, steps: [run: 'true']}
workflows:
  main: {jobs: [build, {gate: {type: approval, requires: [build]}}]}
  other: {jobs: [late]}
"##;

/// A control plane with a job that has failed, one that waits, and the id of their pipeline.
struct Scene {
    server: Server,
    _runner: Runner,
    pipeline: String,
}

impl Scene {
    fn play(args: &[&str]) -> Self {
        let server = Server::start_with(args, None);
        server.project();
        let runner = server.runner("r", &server.class_token("acme/linux"));
        server.class_token("acme/nobody");
        let pipeline = server.trigger(CONFIG);
        let scene = Self { server, _runner: runner, pipeline };
        poll("the end of the job", || match scene.job("build") {
            job if job["status"] == "failed" => Ok(()),
            job => Err(job.to_string()),
        });
        scene
    }

    fn workflows(&self) -> Vec<Value> {
        let found = self.server.call("GET", &format!("/api/v2/pipeline/{}/workflow", self.pipeline), None);
        found["items"].as_array().unwrap().clone()
    }

    fn job(&self, name: &str) -> Value {
        let jobs = self.workflows().into_iter().flat_map(|workflow| {
            let path = format!("/api/v2/workflow/{}/job", workflow["id"].as_str().unwrap());
            self.server.call("GET", &path, None)["items"].as_array().unwrap().clone()
        });
        jobs.into_iter().find(|job| job["name"] == name).unwrap_or_default()
    }

    fn number(&self, name: &str) -> String {
        self.job(name)["job_number"].to_string()
    }
}

#[test]
fn an_address_that_is_none_is_told_in_our_words_to_whoever_asks() {
    let server = Server::start();
    server.project();
    let mut reader = Reader::new(server.client.url());
    reader.sign_in(server.token.expose(), "/");
    for (accept, is_page) in [("text/html,*/*;q=0.8", true), ("*/*", false), ("application/json", false)] {
        reader.accept = accept;
        for (path, status, why) in [
            ("/gh/acme/hello/one", 404, "`one` stands where a number belongs"),
            ("/gh/acme/hello/one/two", 404, "`one` stands where a number belongs"),
            ("/gh/acme/hello/7/two", 404, "has no pipeline 7"),
            ("/gh/acme/hello/jobs/one/tests", 404, "`one` stands where a number belongs"),
            ("/gh/acme/hello/jobs/one", 404, "there is no job `one`"),
            ("/gh/acme/hello/jobs/1/artifacts/x/y", 404, "`x` stands where a number belongs"),
            ("/gh/acme/hello/jobs/1?step=x", 400, "the query is not what this address takes: "),
            ("/gh/acme/%ff", 400, "not UTF-8"),
        ] {
            let page = reader.get(path);
            assert!(
                page.status == status && page.text.contains(why),
                "{path}: {} {}",
                page.status,
                page.text
            );
            assert!(!page.text.contains("deserialize") && !page.text.contains("Invalid"), "{}", page.text);
            assert_eq!(page.text.contains("<title>"), is_page, "{path} {accept}: {}", page.text);
            assert_eq!(page.text.starts_with("{\"message\":"), !is_page, "{path} {accept}: {}", page.text);
        }
    }
}

#[test]
fn pages_are_whole_without_a_script() {
    let scene = Scene::play(&[]);
    let mut reader = Reader::new(scene.server.client.url());
    let number = scene.number("build");
    let address = format!("/gh/acme/hello/jobs/{number}");

    // Nobody sees anything, and comes back to where they wanted to go.
    let away = reader.get(&format!("{address}?step=1"));
    assert_eq!((away.status, away.header("location")), (303, format!("/login?next={address}%3Fstep%3D1")));
    reader.sign_in(scene.server.token.expose(), &address);
    let page = reader.get(&address);
    assert_eq!(page.status, 200);
    for (name, part) in [
        ("content-security-policy", "default-src 'none'"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
        ("cache-control", "private, no-cache"),
    ] {
        assert!(page.header(name).contains(part), "{name}: {}", page.header(name));
    }
    let text = &page.text;
    assert!(text.contains("<title>✗ hello build #") && !text.contains("<script"), "{text}");
    assert!(
        !text.contains("<img") && !text.contains("style=") && !text.contains("javascript:alert(1)\""),
        "{text}"
    );
    for part in [
        "exited with code 3",
        "Check &#60;b&#62;all&#60;/b&#62;",
        "></a>100%\n",
        "&lt;img src=x onerror=alert(1)&gt;&lt;/pre&gt;&lt;script&gt;",
        "<span class=\"f1\">FAIL</span> here <a href=\"https://example.com/a?b=1&amp;c\"",
        "crc: table",
        "crc/test.c:12 ",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    // The log of another step: its end, its beginning, and the address that the job was given.
    let end = reader.get(&format!("{address}?execution=0&step=1")).text;
    assert!(end.contains(r##"id="L2501""##) && !end.contains(r##"id="L1""##), "{end}");
    let begin = reader.get(&format!("{address}?execution=0&step=1&from=1")).text;
    let given = format!("at <a href=\"{}{address}\"", scene.server.client.url());
    assert!(begin.contains(&given) && begin.contains("from=1001"), "{begin}");
    let raw = reader.get(&format!("{address}/log.txt?execution=0&step=1"));
    assert!(raw.text.ends_with("\n2499\n2500\n") && raw.header("content-type").starts_with("text/plain"));

    let tests = reader.get(&format!("{address}/tests")).text;
    assert!(tests.contains("3 &#60; 4 &#60;b&#62;") && !tests.contains(">fine<"), "{tests}");
    assert!(tests.contains(">crc/test.c:12<"), "{tests}");
    assert!(reader.get(&format!("{address}/tests?all=1")).text.contains(">fine<"));
    let artifacts = reader.get(&format!("{address}/artifacts")).text;
    let file = format!("{address}/artifacts/0/out/a%20b/page.html");
    assert!(artifacts.contains(&format!("href=\"{file}\"")), "{artifacts}");
    let saved = reader.get(&file);
    assert_eq!(saved.text, "<script>alert(1)</script>\n");
    assert_eq!(saved.header("content-type"), "application/octet-stream");
    assert_eq!(
        saved.header("content-disposition"),
        "attachment; filename=\"page.html\"; filename*=UTF-8''page.html"
    );
    let again = reader.get_with(&file, &[("If-None-Match", &saved.header("etag"))]);
    assert_eq!((again.status, again.text.as_str()), (304, ""));
    let part = reader.get_with(&file, &[("Range", "bytes=1-6")]);
    assert_eq!((part.status, part.text.as_str()), (206, "script"));

    // The way up: pipeline, workflow, list; a job that waits says why; an approval has a place.
    let pipeline = reader.get("/gh/acme/hello/1").text;
    assert!(pipeline.contains("runner") && pipeline.contains("acme/nobody"), "{pipeline}");
    let workflow = scene.workflows().into_iter().find(|workflow| workflow["name"] == "main").unwrap();
    let workflow = format!("/gh/acme/hello/1/{}", workflow["id"].as_str().unwrap());
    let gate = scene.job("gate")["id"].as_str().unwrap().to_owned();
    assert!(reader.get(&workflow).text.contains(&format!("id=\"job-{gate}\"")));
    let to = reader.get(&format!("/gh/acme/hello/jobs/{gate}")).header("location");
    assert_eq!(to, format!("{workflow}#job-{gate}"));
    assert!(reader.get("/").text.contains("href=\"/gh/acme/hello/1\""));
    assert!(reader.get("/gh/acme/hello?status=failing").text.contains("#1</a>"));
    assert!(reader.get("/gh/acme/hello?by=nobody").text.contains("No pipeline fits"));
    assert_eq!(reader.get("/gh/acme/hello?status=well").status, 400);
    for since in ["2020-01-01", "2020-01-01T03:04:05Z"] {
        assert!(reader.get(&format!("/gh/acme/hello?since={since}")).text.contains("#1</a>"), "{since}");
    }
    assert!(reader.get("/gh/acme/hello?since=2099-01-01").text.contains("No pipeline fits"));
    for since in ["zzz", "2099-13-01", "0123456789"] {
        assert_eq!(reader.get(&format!("/gh/acme/hello?since={since}")).status, 400, "{since}");
    }
    let theirs = "/pipelines/github/acme/hello/1/workflows/x/jobs/";
    assert_eq!(reader.get(&format!("{theirs}{number}")).header("location"), address);

    for gone in
        ["/nothing", "/gh/acme/other", "/gh/acme/hello/99", "/gh/acme/hello/jobs/99", "/gh/acme/hello/1/x"]
    {
        let page = reader.get(gone);
        assert!(
            page.status == 404 && page.text.contains("<h1>Not Found (404)</h1>"),
            "{gone}: {}",
            page.text
        );
    }
    assert!(
        reader.get(&format!("{address}?step=99")).status == 404
            && reader.get(&format!("{address}?step=x")).status == 400
    );
    assert_eq!(reader.get("/api/v2/nothing").header("content-type"), "application/json");
}

#[test]
fn a_job_that_no_class_takes_was_never_queued() {
    let server = Server::start();
    server.project();
    let pipeline = server.trigger(
        "version: 2.1\njobs: {far: {docker: [{image: cimg/base}], steps: [run: never]}}\nworkflows: {w: {jobs: [far]}}\n",
    );
    server.ended(&pipeline);
    let mut reader = Reader::new(server.client.url());
    reader.sign_in(server.token.expose(), "/");
    let page = reader.get("/gh/acme/hello/jobs/1");
    assert!(page.status == 200 && page.text.contains("no runner can take this job"), "{}", page.text);
    for fact in ["class", "queued"] {
        assert!(!page.text.contains(&format!("<span class=\"faint\">{fact}</span>")), "{}", page.text);
    }
}

#[test]
fn logins_open_pages_and_nothing_else() {
    let scene = Server::start();
    scene.project();
    let token = scene.token.expose();
    let mut reader = Reader::new(scene.client.url());
    let page = reader.get("/login?next=//evil/");
    assert!(page.header("cache-control") == "no-store" && page.text.contains("name=\"next\" value=\"/\""));

    // The form of nobody's page, of another site, with a wrong token.
    assert_eq!(Reader::new(scene.client.url()).post("/login", &[("token", token)], &[]).status, 403);
    let field = page.field();
    assert_eq!(reader.post("/login", &[("token", token), ("field", "x")], &[]).status, 403);
    let form = [("token", token), ("field", &field), ("next", "//evil/")];
    for header in [("Origin", "https://evil"), ("Origin", "null"), ("Sec-Fetch-Site", "cross-site")] {
        assert_eq!(reader.post("/login", &form, &[header]).status, 403, "{header:?}");
    }
    let wrong = reader.post("/login", &[("token", "rlp_wrong"), ("field", &field)], &[]);
    assert!(wrong.status == 401 && wrong.text.contains("not a personal token"), "{}", wrong.text);
    let entered = reader.post("/login", &form, &[("Sec-Fetch-Site", "same-origin")]);
    assert_eq!((entered.status, entered.header("location")), (303, "/".to_owned()));
    let cookie = entered.headers.iter().find(|(_, value)| value.starts_with("runlet=")).unwrap().1.clone();
    assert!(cookie.contains("; Path=/; Max-Age=") && cookie.ends_with("HttpOnly; SameSite=Lax"), "{cookie}");

    // A cookie opens no API, a token no page; only the text of a log is for both.
    let home = reader.get("/");
    assert_eq!((home.status, reader.get("/api/v2/me").status), (200, 401));
    let bearer = format!("Bearer {token}");
    let mut tool = Reader::new(scene.client.url());
    assert_eq!(tool.get_with("/gh/acme/hello", &[("Authorization", &bearer)]).status, 303);
    let path = "/gh/acme/hello/jobs/1/log.txt";
    assert_eq!(tool.get_with(path, &[("Authorization", &bearer)]).status, 404);
    assert_eq!(tool.get_with(path, &[("Authorization", "Bearer rlp_wrong")]).status, 401);

    // The secret is in no file; leaving needs the form, and ends the login itself.
    let secret = cookie.split(['=', ';']).nth(1).unwrap();
    let files =
        std::fs::read_dir(scene.data()).unwrap().flatten().filter_map(|file| std::fs::read(file.path()).ok());
    let is_in = |bytes: Vec<u8>| bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
    assert!(!files.into_iter().any(is_in));
    let mut copy = reader.clone();
    assert_eq!(reader.post("/logout", &[("field", &field)], &[]).status, 403);
    assert_eq!(reader.post("/logout", &[("field", &home.field())], &[]).header("location"), "/login");
    assert_eq!((reader.get("/").status, copy.get("/").status), (303, 303));

    // A login ends with its token.
    let made = scene.call(
        "POST",
        "/api/v2/personal-token",
        Some(serde_json::json!({ "user": "admin", "label": "x" })),
    );
    let mut second = Reader::new(scene.client.url());
    second.sign_in(made["token"].as_str().unwrap(), "/");
    assert_eq!(second.get("/").status, 200);
    let id = made["id"].as_str().unwrap();
    scene.call("DELETE", &format!("/api/v2/personal-token/{id}"), None);
    assert_eq!(second.get("/").status, 303);
}

#[test]
fn a_browser_shows_what_is_there_and_finds_no_fault() {
    let scene = Scene::play(&[]);
    let address = format!("{}/gh/acme/hello/jobs/{}", scene.server.client.url(), scene.number("build"));
    let browser = Browser::start(scene.server.folder.path());
    browser.open(&address);
    browser.type_into("#token", scene.server.token.expose());
    browser.click("main button");
    assert_eq!(browser.address(), address, "the login leads to where one wanted to go");
    assert!(browser.title().starts_with("✗ hello build #"), "{}", browser.title());

    // The output of the job is text: as written over, coloured by the style sheet, and no element of its own.
    let log = browser.run("return document.querySelector('pre.rows').textContent");
    let shown = "100%\n<img src=x onerror=alert(1)></pre><script>document.title=\"taken\"</script>\nFAIL here https://example.com/a?b=1&c.\n";
    assert!(log.as_str().unwrap().starts_with(shown), "{log}");
    assert_eq!(browser.run("return document.querySelectorAll('script, img, [style]').length"), 0);
    let colour = "return getComputedStyle(document.querySelector('.rows .f1')).color != getComputedStyle(document.body).color";
    assert_eq!(browser.run(colour), true);
    assert_eq!(
        browser.run("return getComputedStyle(document.querySelector('.rows a'), '::before').content"),
        "\"1\""
    );
    assert_eq!(browser.run("return document.documentElement.scrollWidth <= innerWidth"), true);
    // A page needs itself and the style sheet, of this host.
    let foreign = "return performance.getEntriesByType('resource').filter(r => !r.name.startsWith(location.origin)).length";
    assert_eq!(browser.run(foreign), 0);
    let requests = browser.run("return performance.getEntriesByType('resource').length");
    assert!(requests.as_u64().unwrap() <= 2, "{requests}");

    for path in ["/", "/gh/acme/hello", "/gh/acme/hello/1", "/nothing"] {
        browser.open(&format!("{}{path}", scene.server.client.url()));
        assert_eq!(browser.run("return document.querySelectorAll('main h1').length"), 1, "{path}");
    }
    browser.open(&format!("{address}?execution=0&step=1"));
    let elements = browser.run("return document.querySelectorAll('*').length").as_u64().unwrap();
    assert!((1000..=5000).contains(&elements), "{elements}");
    browser.click(".who button");
    assert!(browser.address().ends_with("/login"), "{}", browser.address());
    let faults: Vec<String> =
        browser.console().into_iter().filter(|line| !line.contains("/nothing")).collect();
    assert!(faults.is_empty(), "{faults:?}");
}
