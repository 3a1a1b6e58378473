//! Forms of pages that change something.

use super::reader::{Page, Reader};
use crate::server::Server;
use serde_json::{Value, json};

/// A workflow that waits for a person, and then for a runner that never comes.
const CONFIG: &str = "
version: 2.1
jobs:
  late: {machine: true, resource_class: acme/nobody, steps: [run: 'true']}
workflows:
  w: {jobs: [{gate: {type: approval}}, {late: {requires: [gate]}}]}
";

fn statuses(server: &Server, workflow: &str) -> Vec<String> {
    let jobs = server.call("GET", &format!("/api/v2/workflow/{workflow}/job"), None);
    let jobs = jobs["items"].as_array().unwrap().iter();
    jobs.map(|job| format!("{} {}", job["name"].as_str().unwrap(), job["status"].as_str().unwrap())).collect()
}

fn sent(reader: &mut Reader, page: &Page, address: &str, more: &[(&str, &str)]) -> Page {
    let field = page.field();
    reader.post(address, &[&[("field", field.as_str())], more].concat(), &[("Sec-Fetch-Site", "same-origin")])
}

#[test]
fn buttons_do_what_they_say_and_are_written_down() {
    let server = Server::start();
    server.project();
    server.class_token("acme/nobody");
    let pipeline = server.trigger(CONFIG);
    let workflows = server.call("GET", &format!("/api/v2/pipeline/{pipeline}/workflow"), None);
    let id = workflows["items"][0]["id"].as_str().unwrap().to_owned();
    let page_of = format!("/gh/acme/hello/1/{id}");
    let mut reader = Reader::new(server.client.url());

    // A person who is not signed in is led to the page, and a form of nobody changes nothing.
    let cancel = format!("{page_of}/cancel");
    let away = reader.post(&cancel, &[], &[]);
    assert_eq!((away.status, away.header("location")), (303, format!("/login?next={cancel}")));
    reader.sign_in(server.token.expose(), &cancel);
    assert_eq!(reader.get(&cancel).header("location"), page_of);
    assert_eq!(reader.post(&cancel, &[("field", "x")], &[]).status, 403);
    assert_eq!(statuses(&server, &id), ["gate on_hold", "late blocked"]);

    let page = reader.get(&page_of);
    let (_, rest) =
        page.text.split_once(&format!("action=\"{page_of}/approve/")).expect("a form that approves");
    let approve = format!("{page_of}/approve/{}", rest.split('"').next().unwrap());
    let given = sent(&mut reader, &page, &approve, &[]);
    assert_eq!((given.status, given.header("location")), (303, page_of.clone()), "{}", given.text);
    assert_eq!(statuses(&server, &id), ["gate success", "late queued"]);
    assert_eq!(sent(&mut reader, &page, &approve, &[]).status, 409);
    // The workflow of another pipeline's address is not there.
    assert_eq!(sent(&mut reader, &page, &format!("/gh/acme/hello/9/{id}/cancel"), &[]).status, 404);

    let number =
        server.call("GET", &format!("/api/v2/workflow/{id}/job"), None)["items"][1]["job_number"].clone();
    let job = format!("/gh/acme/hello/jobs/{number}");
    let on_job = reader.get(&job);
    assert_eq!(sent(&mut reader, &on_job, &format!("{job}/cancel"), &[]).header("location"), job);
    assert_eq!(statuses(&server, &id), ["gate success", "late canceled"]);
    assert!(!reader.get(&job).text.contains("Cancel late"));

    let page = reader.get(&page_of);
    assert!(page.text.contains("Rerun from failed") && !page.text.contains("Cancel w"), "{}", page.text);
    assert_eq!(sent(&mut reader, &page, &format!("{page_of}/rerun"), &[("from", "end")]).status, 400);
    let again =
        sent(&mut reader, &page, &format!("{page_of}/rerun"), &[("from", "start")]).header("location");
    assert!(again.starts_with("/gh/acme/hello/1/") && again != page_of, "{again}");
    let page = reader.get(&again);
    assert_eq!(sent(&mut reader, &page, &format!("{again}/cancel"), &[]).header("location"), again);
    assert_eq!(statuses(&server, again.rsplit('/').next().unwrap()), ["gate canceled", "late canceled"]);

    // Unchanged, it is not sent again.
    let page = reader.get(&page_of);
    let known = reader.get_with(&page_of, &[("If-None-Match", &page.header("etag"))]);
    assert_eq!((known.status, known.text.as_str()), (304, ""));

    let field = page.field();
    assert_eq!(reader.post("/logout", &[("field", &field)], &[]).status, 303);
    let acts = server.call("GET", "/api/v3/audit-events", None);
    let acts = acts["items"].as_array().unwrap().iter().rev();
    let acts = acts.filter(|act| act["path"].as_str().is_some_and(|path| !path.starts_with("/api")));
    let told: Vec<(String, Value)> =
        acts.map(|act| (act["path"].as_str().unwrap().to_owned(), act["status"].clone())).collect();
    let ends = [
        ("/login", 303),
        ("/approve/", 303),
        ("/approve/", 409),
        ("/cancel", 404),
        ("/cancel", 303),
        ("/rerun", 400),
        ("/rerun", 303),
        ("/cancel", 303),
        ("/logout", 303),
    ];
    assert_eq!(told.len(), ends.len(), "{told:?}");
    for ((path, status), (part, expected)) in told.iter().zip(ends) {
        assert!(path.contains(part) && *status == json!(expected), "{told:?}");
    }
}
