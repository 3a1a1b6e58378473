//! The addresses of pages: by ids, of another web application, with what narrows a list down.

use crate::server::Server;
use crate::web::reader::Reader;

const FAILS: &str = "version: 2.1\njobs: {far: {docker: [{image: cimg/base}], steps: [run: never]}}\nworkflows: {w: {jobs: [far]}}\n";
const WAITS: &str = "version: 2.1\nworkflows: {w: {jobs: [gate: {type: approval}]}}\n";

#[test]
fn a_project_is_at_the_address_of_its_ids_as_well() {
    let server = Server::start();
    server.project();
    let project = server.get("/api/v2/project/gh/acme/hello").json();
    let (id, owner) = (project["id"].as_str().unwrap(), project["organization_id"].as_str().unwrap());
    let slug = format!("circleci/{owner}/{id}");
    let mut reader = Reader::new(server.client.url());
    let away = reader.get(&format!("/{slug}"));
    // Whoever is not signed in learns nothing about what the ids stand for.
    assert_eq!(
        (away.status, away.header("location").contains("acme")),
        (303, false),
        "{}",
        away.header("location")
    );
    reader.sign_in(server.token.expose(), "/");

    // What the terminal prints opens.
    let file = server.folder.path().join("config.yml");
    std::fs::write(&file, FAILS).unwrap();
    let printed = server.admin(&["pipeline", "trigger", &slug, "--config", file.to_str().unwrap()], "");
    let printed = printed.trim_end().rsplit(' ').next().unwrap();
    let path = printed.strip_prefix(server.client.url()).unwrap();
    assert_eq!(path, "/gh/acme/hello/1");
    assert!(reader.get(path).text.contains("<title>✗ hello #1"), "{path}");
    let pipeline = server.get("/api/v2/project/gh/acme/hello/pipeline").json()["items"][0]["id"].clone();
    server.ended(pipeline.as_str().unwrap());

    for slug in
        [slug.clone(), slug.to_uppercase().replace("CIRCLECI", "circleci"), "github/acme/hello".to_owned()]
    {
        for (below, part) in [
            ("", ">#1</a>"),
            ("/1", "href=\"/gh/acme/hello/jobs/1\""),
            ("/jobs/1", "no runner can take this job"),
        ] {
            let page = reader.get(&format!("/{slug}{below}"));
            assert!(
                page.status == 200 && page.text.contains(part),
                "{slug}{below}: {} {}",
                page.status,
                page.text
            );
        }
        assert_eq!(reader.get(&format!("/{slug}/jobs/1/tests")).status, 200, "{slug}");
        // Links of CircleCI's web application lead there.
        for below in ["", "/1", "/1/workflows/x/jobs/1", "/1/workflows/x/jobs/1/artifacts"] {
            let moved = reader.get(&format!("/pipelines/{slug}{below}"));
            assert_eq!(moved.status, 303, "{slug}{below}");
            assert_eq!(reader.get(&moved.header("location")).status, 200, "{slug}{below}");
        }
    }
    // What they carry comes along.
    for (from, to) in [
        ("/pipelines/github/acme/hello?branch=main&x=%3F", "/gh/acme/hello?branch=main&x=%3F"),
        (
            "/pipelines/github/acme/hello/1/workflows/x/jobs/1/parallel-runs/0/steps/0-101",
            "/gh/acme/hello/jobs/1?execution=0",
        ),
        ("/pipelines/github/acme/hello/1/workflows/x/jobs/1/parallel-runs/x", "/gh/acme/hello/jobs/1"),
        ("/gh/acme/hello/", "/gh/acme/hello"),
        ("/gh/acme/hello/jobs/1//?time=clock", "/gh/acme/hello/jobs/1?time=clock"),
    ] {
        let moved = reader.get(from);
        assert_eq!((moved.status, &*moved.header("location")), (303, to), "{from}");
    }
    for none in ["//", "//example.org/", "//example.org/x/", "/nothing/"] {
        let page = reader.get(none);
        assert!(
            page.status == 404 || page.header("location") == "/nothing",
            "{none}: {}",
            page.header("location")
        );
    }
    for none in
        [format!("circleci/{id}/{id}"), format!("circleci/{owner}/{owner}"), format!("{id}/acme/hello")]
    {
        assert_eq!(reader.get(&format!("/{none}")).status, 404, "{none}");
    }
}

#[test]
fn several_statuses_narrow_the_list_together() {
    let server = Server::start();
    server.project();
    server.ended(&server.trigger(FAILS));
    server.trigger(WAITS);
    let mut reader = Reader::new(server.client.url());
    reader.sign_in(server.token.expose(), "/");
    for (query, first, second) in [
        ("", true, true),
        ("?status=", true, true),
        ("?status=failed", true, false),
        ("?status=failed&status=success", true, false),
        ("?status=success&status=on_hold", false, true),
        ("?status=failed&status=on_hold&status=", true, true),
        ("?status=success&status=canceled", false, false),
    ] {
        let page = reader.get(&format!("/gh/acme/hello{query}"));
        let has = |number: u8| page.text.contains(&format!("href=\"/gh/acme/hello/{number}\""));
        assert_eq!((page.status, has(1), has(2)), (200, first, second), "{query}: {}", page.text);
        for word in ["failed", "success", "on_hold"] {
            let is_chosen = page.text.contains(&format!("value=\"{word}\" checked"));
            assert_eq!(is_chosen, query.contains(&format!("={word}")), "{query}: {word}");
        }
    }
    let none = reader.get("/?status=success&status=canceled&by=admin").text;
    assert!(none.contains("No pipeline fits, status success or canceled, by admin"), "{none}");
    for (path, why) in [
        ("/?status=failed&status=well", "`well` is not a status of a pipeline: it is one of success, "),
        ("/?branch=a&branch=b", "`branch` stands in the query more than once"),
        ("/gh/acme/hello/jobs/1?time=zz", "`time` is `clock` or `since`, not `zz`"),
        ("/gh/acme/hello/jobs/1/log.txt?time=Clock", "`time` is `clock` or `since`, not `Clock`"),
        ("/gh/acme/hello/jobs/1?step=1&step=2", "`step` stands in it more than once"),
    ] {
        let page = reader.get(path);
        assert!(
            page.status == 400 && page.text.contains(&why.replace('\'', "&#39;")),
            "{path}: {} {}",
            page.status,
            page.text
        );
    }
    for time in ["clock", "since", ""] {
        assert_eq!(reader.get(&format!("/gh/acme/hello/jobs/1?time={time}")).status, 200, "{time}");
    }
}
