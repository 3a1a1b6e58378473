//! The fake cluster against exchanges that were recorded with a real API server: each request is asked again, and what
//! comes is compared with what came. The answers of the fake come out of its own rules.
//!
//! An entry of `cluster/recorded.json` has `given`, objects that are there before; `history`, what happened to them; and
//! `fresh`, where a new cluster begins. Of objects that were answered, only what is compared is kept.

use crate::cluster::{ADMIN, Asked, Body, Cluster, Reply, TOKEN};
use serde_json::{Value, json};
use std::collections::HashMap;

/// Places of an object that clients read.
const PLACES: [&str; 19] = [
    "/kind",
    "/apiVersion",
    "/major",
    "/minor",
    "/type",
    "/data",
    "/immutable",
    "/status/phase",
    "/status/allowed",
    "/spec/restartPolicy",
    "/spec/terminationGracePeriodSeconds",
    "/spec/containers/0/imagePullPolicy",
    "/spec/enableServiceLinks",
    "/spec/nodeName",
    "/metadata/name",
    "/metadata/labels",
    "/metadata/finalizers",
    "/metadata/generation",
    "/metadata/deletionGracePeriodSeconds",
];

#[test]
fn the_fake_answers_as_a_real_api_server_does() {
    let recorded: Vec<Value> = serde_json::from_str(include_str!("cluster/recorded.json")).unwrap();
    let mut cluster = Cluster::without_kubelet();
    // Versions as they were recorded, and as this cluster has them.
    let mut versions: HashMap<String, u64> = HashMap::new();
    let mut wrong = Vec::new();
    for exchange in &recorded {
        if exchange["fresh"] == true {
            cluster = Cluster::without_kubelet();
            versions.clear();
        }
        for object in exchange["given"].as_array().into_iter().flatten() {
            cluster.put(object["kind"].as_str().unwrap(), object["object"].clone());
        }
        for change in exchange["history"].as_array().into_iter().flatten() {
            happen(&cluster, change);
            versions.insert(change["version"].as_str().unwrap().to_owned(), cluster.version());
        }
        if exchange["compacted"] == true {
            cluster.compact();
        }
        let denied = exchange["denied"].as_array().into_iter().flatten();
        let denied = denied.map(|verb| verb.as_str().unwrap().to_owned()).collect();
        cluster.knobs(|knobs| {
            knobs.denied = denied;
            knobs.quota = exchange["quota"].as_u64().map(|quota| quota as usize);
        });
        let reply = cluster.answer(&asked(exchange, &versions));
        if let Err(why) = same(&cluster, &reply, &exchange["response"]) {
            wrong.push(format!("{}: {why}", exchange["id"]));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), recorded.len(), wrong.join("\n"));
}

fn happen(cluster: &Cluster, change: &Value) {
    let object = &change["object"];
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    match change["type"].as_str().unwrap() {
        "ADDED" => cluster.put("pods", object.clone()),
        "MODIFIED" => cluster.replace("pods", name, object),
        "DELETED" => cluster.vanish(name),
        _ => {}
    }
}

fn asked(exchange: &Value, versions: &HashMap<String, u64>) -> Asked {
    let request = &exchange["request"];
    let text = |key: &str| request[key].as_str().unwrap().to_owned();
    let body = match (request["body_raw"].as_str(), exchange["pad"].as_u64()) {
        (Some(raw), _) => raw.as_bytes().to_vec(),
        (None, Some(bytes)) => {
            let long = "x".repeat(bytes as usize);
            json!({ "metadata": { "name": "s-big" }, "stringData": { "a": long } }).to_string().into_bytes()
        }
        (None, None) if request["body"].is_null() => Vec::new(),
        (None, None) => request["body"].to_string().into_bytes(),
    };
    let token = match request["as"].as_str() {
        None => None,
        Some("runner") => Some(TOKEN.to_owned()),
        Some("admin") => Some(ADMIN.to_owned()),
        Some(_) => Some("some other token".to_owned()),
    };
    let mut path = text("path");
    for (recorded, here) in versions {
        path = path.replace(&format!("resourceVersion={recorded}&"), &format!("resourceVersion={here}&"));
    }
    Asked { method: text("method"), path, token, body }
}

/// Compares status, reason, message, shape and order.
fn same(cluster: &Cluster, reply: &Reply, recorded: &Value) -> Result<(), String> {
    if json!(reply.status) != recorded["status"] {
        return Err(format!("{} and not {}: {reply:?}", reply.status, recorded["status"]));
    }
    let body = match &reply.body {
        Body::Json(body) => body.clone(),
        Body::Text(text) => json!(text),
        Body::Watch(watch) => {
            let lines = cluster.told(watch);
            let told = lines.iter().map(|line| {
                let (object, name) = (&line["object"], &line["object"]["metadata"]["name"]);
                let name = if name.is_null() { &object["reason"] } else { name };
                json!([line["type"], name, object["metadata"]["labels"]])
            });
            let told: Value = told.collect();
            return if told == recorded["lines"] {
                Ok(())
            } else {
                Err(format!("{told} and not {}", recorded["lines"]))
            };
        }
        other => return Err(format!("{other:?}")),
    };
    let real = &recorded["body"];
    if real["kind"] == "Status" || real.is_string() || real.is_null() {
        // Clients decide by every part of a refusal.
        let (body, real) = (plain(&body), plain(real));
        return if body == real { Ok(()) } else { Err(format!("\n{body}\nand not\n{real}")) };
    }
    if let Some(items) = real["items"].as_array() {
        let names: Vec<_> =
            body["items"].as_array().unwrap().iter().map(|item| &item["metadata"]["name"]).collect();
        if names != items.iter().collect::<Vec<_>>() {
            return Err(format!("{names:?} and not {items:?}"));
        }
        let more = |list: &Value| {
            (list["metadata"]["continue"].is_string(), list["metadata"]["remainingItemCount"].clone())
        };
        if more(&body) != more(real) {
            return Err(format!("{:?} and not {:?}", more(&body), more(real)));
        }
    }
    for place in PLACES {
        if body.pointer(place) != real.pointer(place) {
            return Err(format!("{place} is {:?} and not {:?}", body.pointer(place), real.pointer(place)));
        }
    }
    Ok(())
}

/// A text without ids and versions, which every store gives by itself.
fn plain(body: &Value) -> String {
    let mut text = body.to_string();
    for before in ["00000000-0000-4000-8000-", "in record (", ", current: ", "resource version: "] {
        let parts: Vec<&str> = text.split(before).collect();
        let rest = parts[1..].iter().map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit()));
        text =
            std::iter::once(parts[0].to_owned()).chain(rest.map(|part| format!("{before}N{part}"))).collect();
    }
    text
}
