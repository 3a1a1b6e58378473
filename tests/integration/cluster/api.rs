//! The answers of the API server: who calls, what is asked for, and the rules of each.

use super::http::{Asked, Body, Log, Reply, Watch};
use super::store::{State, kinded, later, word};
use super::valid::Cause;
use super::{ADMIN, Shared, TOKEN, USER, options, select, valid};
use base64::Engine;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::path::Path;

/// The user who may do everything.
const ADMINISTRATOR: &str = "admin";
/// Longest body of a request, in bytes.
const MOST_BYTES: usize = 3 * 1024 * 1024;

const KINDS: [&str; 4] = ["pods", "secrets", "events", "nodes"];

/// Answers a request.
pub(super) fn answer(shared: &Shared, asked: &Asked) -> Reply {
    let mut state = shared.lock();
    let plain = asked.path.split('?').next().unwrap_or_default();
    let called = format!("{} {plain}", asked.method);
    state.calls.push(called);
    let reply = overridden(&mut state, asked, &shared.folder);
    drop(state);
    // Watches and the kubelet hear of what was changed.
    shared.changed.notify_all();
    reply
}

fn overridden(state: &mut State, asked: &Asked, folder: &Path) -> Reply {
    if state.knobs.away {
        return Reply::text(503, "the cluster is away\n");
    }
    let call = format!("{} {}", asked.method, asked.path);
    if let Some(at) = state.knobs.next.iter().position(|(text, ..)| call.contains(text.as_str())) {
        let (_, status, body, retry_after) = state.knobs.next.remove(at);
        let reply = match status {
            0 => Body::Cut,
            1 => {
                ordinary(state, asked, folder);
                Body::Cut
            }
            _ => serde_json::from_str(&body).map_or(Body::Text(body), Body::Json),
        };
        return Reply { status, retry_after, body: reply };
    }
    ordinary(state, asked, folder)
}

pub(super) fn failure(code: u16, reason: &str, message: &str, details: Option<Value>) -> Reply {
    let mut body = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message });
    if !reason.is_empty() {
        body["reason"] = json!(reason);
    }
    if let Some(details) = details {
        body["details"] = details;
    }
    body["code"] = json!(code);
    Reply::json(code, body)
}

fn missing(kind: &str, name: &str) -> Reply {
    let details = json!({ "name": name, "kind": kind });
    failure(404, "NotFound", &format!("{kind} \"{name}\" not found"), Some(details))
}

fn unsupported() -> Reply {
    failure(404, "NotFound", "the server could not find the requested resource", Some(json!({})))
}

pub(super) fn bad(message: &str) -> Reply {
    failure(400, "BadRequest", message, None)
}

fn query_of(path: &str) -> HashMap<String, String> {
    let query = path.split_once('?').map_or("", |(_, query)| query);
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (decoded(key), decoded(value)))
        .collect()
}

fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let digits = [bytes.next().unwrap_or(b'0'), bytes.next().unwrap_or(b'0')];
                out.push(u8::from_str_radix(&String::from_utf8_lossy(&digits), 16).unwrap_or(b'?'));
            }
            b'+' => out.push(b' '),
            other => out.push(other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn ordinary(state: &mut State, asked: &Asked, folder: &Path) -> Reply {
    let taken = state.knobs.token.clone().unwrap_or_else(|| TOKEN.to_owned());
    let user = match &asked.token {
        None => "system:anonymous",
        Some(token) if *token == taken => USER,
        Some(token) if token == ADMIN => ADMINISTRATOR,
        Some(_) => return failure(401, "Unauthorized", "Unauthorized", None),
    };
    let path = asked.path.split('?').next().unwrap_or_default();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        ["version"] => Reply::json(
            200,
            json!({ "major": "1", "minor": "36", "gitVersion": "v1.36.2", "platform": "linux/amd64" }),
        ),
        ["livez" | "readyz" | "healthz"] => Reply::text(200, "ok"),
        ["apis", "events.k8s.io", "v1", "namespaces", namespace, "events"] if user != ADMINISTRATOR => {
            let message = format!(
                "events.events.k8s.io is forbidden: User \"{user}\" cannot list resource \"events\" in API group \"events.k8s.io\" in the namespace \"{namespace}\""
            );
            let details = json!({ "group": "events.k8s.io", "kind": "events" });
            failure(403, "Forbidden", &message, Some(details))
        }
        ["apis", "authorization.k8s.io", "v1", "selfsubjectaccessreviews"] if asked.method == "POST" => {
            review(state, asked)
        }
        ["api", "v1", "namespaces", namespace, rest @ ..] if !rest.is_empty() => {
            resource(state, asked, user, Some(namespace), rest, folder)
        }
        ["api", "v1", rest @ ..] if !rest.is_empty() => resource(state, asked, user, None, rest, folder),
        ["api" | "apis", ..] => Reply::text(404, "404 page not found\n"),
        _ if user == ADMINISTRATOR => Reply::text(404, "404 page not found\n"),
        _ => {
            let message = format!("forbidden: User \"{user}\" cannot get path \"{path}\"");
            failure(403, "Forbidden", &message, Some(json!({})))
        }
    }
}

fn review(state: &State, asked: &Asked) -> Reply {
    let mut review: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
    let attributes = &review["spec"]["resourceAttributes"];
    let word = |key: &str| attributes[key].as_str().unwrap_or_default();
    let asked = format!("{} {}", word("verb"), word("resource"));
    let is_here = word("namespace") == "ci" || word("resource") == "nodes";
    let mut status = json!({ "allowed": !state.knobs.denied.contains(&asked) && is_here });
    if status["allowed"] == true {
        status["reason"] = json!(
            "RBAC: allowed by RoleBinding \"runlet-agent/ci\" of Role \"runlet-agent\" to ServiceAccount \"runlet-agent/ci\""
        );
    }
    review["metadata"] = json!({});
    review["status"] = status;
    Reply::json(201, review)
}

fn resource(
    state: &mut State,
    asked: &Asked,
    user: &str,
    namespace: Option<&str>,
    rest: &[&str],
    folder: &Path,
) -> Reply {
    let (kind, name, sub) = match rest {
        [kind] => (*kind, None, None),
        [kind, name] => (*kind, Some(*name), None),
        [kind, name, sub] => (*kind, Some(*name), Some(*sub)),
        _ => return unsupported(),
    };
    if !KINDS.contains(&kind) {
        return unsupported();
    }
    let query = query_of(&asked.path);
    let is_watch = query.get("watch").is_some_and(|value| value == "true" || value == "1");
    let verb = match (asked.method.as_str(), name) {
        ("GET", None) if is_watch => "watch",
        ("GET", None) => "list",
        ("GET", Some(_)) => "get",
        ("POST", _) => "create",
        ("DELETE", Some(_)) => "delete",
        ("DELETE", None) => "deletecollection",
        ("PUT", _) => "update",
        _ => "patch",
    };
    let resource = sub.map_or(kind.to_owned(), |sub| format!("{kind}/{sub}"));
    let is_here = namespace == Some("ci") || kind == "nodes";
    let granted = user == USER
        && is_here
        && sub.is_none_or(|sub| sub == "log")
        && !matches!(verb, "update" | "patch" | "deletecollection")
        && !state.knobs.denied.contains(&format!("{verb} {resource}"));
    // Rights come before existence and validation.
    if !granted && user != ADMINISTRATOR {
        let what = name.map_or(kind.to_owned(), |name| format!("{kind} \"{name}\""));
        let place = namespace.map_or("at the cluster scope".to_owned(), |namespace| {
            format!("in the namespace \"{namespace}\"")
        });
        let message = format!(
            "{what} is forbidden: User \"{user}\" cannot {verb} resource \"{resource}\" in API group \"\" {place}"
        );
        let mut details = Map::new();
        if let Some(name) = name {
            details.insert("name".to_owned(), json!(name));
        }
        details.insert("kind".to_owned(), json!(kind));
        return failure(403, "Forbidden", &message, Some(Value::Object(details)));
    }
    match (verb, name) {
        ("create", Some(_)) | ("update" | "patch", None) => failure(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
            Some(json!({})),
        ),
        ("create", None) => create(state, asked, kind, namespace.unwrap_or_default()),
        ("get", Some(name)) if sub == Some("log") => log(state, name, &query, folder),
        ("get", Some(name)) => match state.get(kind, name) {
            Some(object) => Reply::json(200, kinded(kind, object.clone())),
            None => missing(kind, name),
        },
        ("delete", Some(name)) => delete(state, asked, kind, name, &query),
        ("watch", None) => watch(state, kind, &query),
        (_, None) => list(state, kind, namespace, &query),
        _ => unsupported(),
    }
}

fn refused(kind: &str, name: &str, causes: &[Cause]) -> Reply {
    let word = word(kind);
    let texts: Vec<String> = causes.iter().map(|(field, _, message)| format!("{field}: {message}")).collect();
    let all = if texts.len() == 1 { texts[0].clone() } else { format!("[{}]", texts.join(", ")) };
    let listed: Vec<Value> = causes
        .iter()
        .map(|(field, reason, message)| json!({ "reason": reason, "message": message, "field": field }))
        .collect();
    let mut details = json!({ "kind": word, "causes": listed });
    if !name.is_empty() {
        details["name"] = json!(name);
    }
    failure(422, "Invalid", &format!("{word} \"{name}\" is invalid: {all}"), Some(details))
}

fn create(state: &mut State, asked: &Asked, kind: &str, namespace: &str) -> Reply {
    if asked.body.len() > MOST_BYTES {
        let message = format!("Request entity too large: limit is {MOST_BYTES}");
        return failure(413, "RequestEntityTooLarge", &message, None);
    }
    let mut object: Value = match serde_json::from_slice(&asked.body) {
        Ok(object) => object,
        Err(_) => {
            let text = String::from_utf8_lossy(&asked.body);
            let text = if text.is_empty() { "<empty>".into() } else { text };
            return bad(&format!(
                "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: unexpected end of JSON input ({text})",
                word(kind)
            ));
        }
    };
    let kind_word = word(kind);
    let given = |key: &str, usual: &str| object[key].as_str().unwrap_or(usual).to_owned();
    let (given_kind, version) = (given("kind", kind_word), given("apiVersion", "v1"));
    let start = format!("{given_kind} in version \"{version}\" cannot be handled as a {kind_word}: ");
    if version != "v1" {
        return bad(&format!(
            "{start}no kind \"{given_kind}\" is registered for version \"{version}\" in scheme \"k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30\""
        ));
    }
    if given_kind != kind_word {
        return bad(&format!(
            "{start}converting (v1.{given_kind}) to (core.{kind_word}): unknown conversion"
        ));
    }
    if object["metadata"]["resourceVersion"].is_string() {
        return failure(500, "", "resourceVersion should not be set on objects to be created", None);
    }
    if object["metadata"]["namespace"].as_str().is_some_and(|given| given != namespace) {
        return bad("the namespace of the provided object does not match the namespace sent on the request");
    }
    if namespace != "ci" {
        return missing("namespaces", namespace);
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let causes = match kind {
        "pods" => valid::pod(&object),
        "secrets" => match valid::secret(&mut object) {
            Ok(causes) => causes,
            Err(why) => return bad(&why),
        },
        _ => Vec::new(),
    };
    if !causes.is_empty() {
        return refused(kind, &name, &causes);
    }
    if state.knobs.is_terminating {
        let message = format!(
            "{kind} \"{name}\" is forbidden: unable to create new content in namespace {namespace} because it is being terminated"
        );
        let cause = json!({ "reason": "NamespaceTerminating", "message": format!("namespace {namespace} is being terminated"), "field": "metadata.namespace" });
        let details = json!({ "name": name, "kind": kind, "causes": [cause] });
        return failure(403, "Forbidden", &message, Some(details));
    }
    if let Some(there) = state.get(kind, &name) {
        let prefix =
            if there["metadata"]["deletionTimestamp"].is_null() { "" } else { "object is being deleted: " };
        let details = json!({ "name": name, "kind": kind });
        return failure(
            409,
            "AlreadyExists",
            &format!("{prefix}{kind} \"{name}\" already exists"),
            Some(details),
        );
    }
    if let Some(quota) = state.knobs.quota.filter(|_| kind == "pods") {
        let ended = |pod: &Value| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        let used = state.all("pods").iter().filter(|pod| !ended(pod)).count();
        if used >= quota {
            let message = format!(
                "pods \"{name}\" is forbidden: exceeded quota: limits, requested: pods=1, used: pods={used}, limited: pods={quota}"
            );
            return failure(403, "Forbidden", &message, Some(json!({ "name": name, "kind": "pods" })));
        }
    }
    if kind == "pods" {
        valid::pod_defaults(&mut object);
    }
    let stored = state.insert(kind, object);
    Reply::json(201, kinded(kind, stored))
}

fn delete(
    state: &mut State,
    asked: &Asked,
    kind: &str,
    name: &str,
    query: &HashMap<String, String>,
) -> Reply {
    let Some(object) = state.get(kind, name).cloned() else { return missing(kind, name) };
    let options: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
    let uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    if let Some(wanted) = options["preconditions"]["uid"].as_str().filter(|wanted| *wanted != uid) {
        let word = word(kind);
        let message = format!(
            "Operation cannot be fulfilled on {word} \"{name}\": the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
        );
        return failure(409, "Conflict", &message, Some(json!({ "name": name, "kind": word })));
    }
    let version = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    if let Some(wanted) =
        options["preconditions"]["resourceVersion"].as_str().filter(|wanted| *wanted != version)
    {
        let word = word(kind);
        let message = format!(
            "Operation cannot be fulfilled on {word} \"{name}\": the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({version}). The object might have been modified"
        );
        return failure(409, "Conflict", &message, Some(json!({ "name": name, "kind": word })));
    }
    if let Err(refusal) = options::of_delete(query) {
        return refusal;
    }
    if query.get("dryRun").is_some_and(|value| value == "All") {
        return Reply::json(200, kinded(kind, object));
    }
    if kind != "pods" {
        state.remove(kind, name);
        let details = json!({ "name": name, "kind": kind, "uid": uid });
        return Reply::json(
            200,
            json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details }),
        );
    }
    let given =
        options["gracePeriodSeconds"].as_i64().or_else(|| query.get("gracePeriodSeconds")?.parse().ok());
    let is_bound = object["spec"]["nodeName"].is_string();
    let has_ended = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let grace = if is_bound && !has_ended {
        given.unwrap_or_else(|| object["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30))
    } else {
        0
    };
    let grace = if grace < 0 { 1 } else { grace };
    // Once it is marked, a grace may become shorter and nothing else.
    let before = object["metadata"]["deletionGracePeriodSeconds"].as_i64();
    if before.is_some_and(|before| grace >= before && given.is_none_or(|given| given >= before)) {
        return Reply::json(200, kinded("pods", object));
    }
    let marked = state.change("pods", name, |pod| {
        pod["metadata"]["generation"] = json!(2);
        pod["metadata"]["deletionTimestamp"] = json!(later(grace.unsigned_abs()));
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
    });
    let is_held = object["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
    if grace == 0 && !is_held {
        state.remove("pods", name);
    }
    if let Some(ends) = state.running.get_mut(&uid) {
        *ends = true;
    }
    Reply::json(200, kinded("pods", marked.unwrap_or_default()))
}

fn selectors(query: &HashMap<String, String>) -> (String, String) {
    let text = |key: &str| query.get(key).cloned().unwrap_or_default();
    (text("labelSelector"), text("fieldSelector"))
}

fn list(state: &State, kind: &str, namespace: Option<&str>, query: &HashMap<String, String>) -> Reply {
    let (labels, fields) = selectors(query);
    // A selector that is wrong is so without any object, too.
    if let Err(why) =
        select::has_labels(&json!({}), &labels).and_then(|_| select::has_fields(kind, &json!({}), &fields))
    {
        return bad(&why);
    }
    if let Err(refusal) = options::of_list(query, state.version()) {
        return refusal;
    }
    let base64 = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let after = match query.get("continue") {
        None => String::new(),
        Some(next) => {
            let read =
                base64.decode(next).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
            let Some(read) = read else {
                return bad(
                    "invalid continue token: continue key is not valid: invalid character 'i' looking for beginning of value",
                );
            };
            // A key as the storage has it, and whatever comes after it.
            read["start"].as_str().unwrap_or_default().trim_matches(['/', '\0']).to_owned()
        }
    };
    let all = if namespace.is_none_or(|namespace| namespace == "ci") { state.all(kind) } else { Vec::new() };
    let fits = |object: &Value| {
        select::has_labels(object, &labels).unwrap_or(false)
            && select::has_fields(kind, object, &fields).unwrap_or(false)
    };
    let mut found: Vec<Value> = all
        .into_iter()
        .filter(|object| object["metadata"]["name"].as_str() > Some(after.as_str()))
        .filter(fits)
        .collect();
    let mut metadata = json!({ "resourceVersion": state.version().to_string() });
    // A list out of the cache comes whole.
    let from_cache = query.get("resourceVersion").is_some_and(|version| version == "0");
    let limit = query
        .get("limit")
        .filter(|_| !from_cache)
        .and_then(|limit| limit.parse::<usize>().ok())
        .filter(|limit| *limit > 0);
    if let Some(limit) = limit.filter(|limit| *limit < found.len()) {
        let left = found.len() - limit;
        found.truncate(limit);
        let start = format!("/{}\0", found[limit - 1]["metadata"]["name"].as_str().unwrap_or_default());
        let next = json!({ "v": "meta.k8s.io/v1", "rv": state.version(), "start": start });
        metadata["continue"] = json!(base64.encode(next.to_string()));
        if labels.is_empty() && fields.is_empty() {
            metadata["remainingItemCount"] = json!(left);
        }
    }
    Reply::json(
        200,
        json!({ "kind": format!("{}List", word(kind)), "apiVersion": "v1", "metadata": metadata, "items": found }),
    )
}

fn watch(state: &State, kind: &str, query: &HashMap<String, String>) -> Reply {
    let (labels, fields) = selectors(query);
    if let Err(why) = select::has_fields(kind, &json!({}), &fields) {
        return bad(&why);
    }
    if let Err(refusal) = options::of_watch(query) {
        return refusal;
    }
    let from = match query.get("resourceVersion").map(String::as_str) {
        None | Some("" | "0") => 0,
        Some(text) => match text.parse() {
            Ok(from) => from,
            Err(_) => {
                let message = format!(
                    "resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": invalid syntax"
                );
                return failure(500, "", &message, None);
            }
        },
    };
    let seconds = query.get("timeoutSeconds").and_then(|text| text.parse().ok()).unwrap_or(1800);
    let bookmarks = query.get("allowWatchBookmarks").is_some_and(|value| value == "true");
    let from = if from == 0 { state.version() } else { from };
    let watch = Watch { kind: kind.to_owned(), from, labels, fields, seconds, bookmarks };
    Reply { status: 200, retry_after: None, body: Body::Watch(watch) }
}

fn log(state: &State, name: &str, query: &HashMap<String, String>, folder: &Path) -> Reply {
    let Some(pod) = state.get("pods", name) else { return missing("pods", name) };
    if let Err(refusal) = options::of_log(name, query) {
        return refusal;
    }
    let names = |list: &str| -> Vec<String> {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        containers.filter_map(|container| container["name"].as_str().map(str::to_owned)).collect()
    };
    let (inits, mains) = (names("initContainers"), names("containers"));
    let container = match query.get("container") {
        Some(container) => container.clone(),
        None if mains.len() == 1 && inits.is_empty() => mains[0].clone(),
        None => {
            let all: Vec<_> = inits.iter().chain(&mains).cloned().collect();
            return bad(&format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                all.join(" ")
            ));
        }
    };
    if !inits.iter().chain(&mains).any(|known| *known == container) {
        return bad(&format!("container {container} is not valid for pod {name}"));
    }
    if !pod["spec"]["nodeName"].is_string() {
        return Reply::text(204, "");
    }
    let statuses = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    let status = statuses.into_iter().find(|status| status["name"] == container.as_str());
    if let Some(reason) = status.and_then(|status| status["state"]["waiting"]["reason"].as_str()) {
        return bad(&format!("container \"{container}\" in pod \"{name}\" is waiting to start: {reason}"));
    }
    let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
    let since = query.get("sinceTime").cloned().unwrap_or_default();
    let log = Log { file: folder.join("pods").join(uid).join(&container), pod: name.to_owned(), since };
    Reply { status: 200, retry_after: None, body: Body::Log(log) }
}
