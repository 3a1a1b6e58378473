//! Options in the query of a call, and the refusals of those that may not stand there.

use super::api::{bad, failure};
use super::http::Reply;
use serde_json::json;
use std::collections::HashMap;

type Query = HashMap<String, String>;

fn number(query: &Query, key: &str) -> Result<Option<i64>, Reply> {
    let Some(text) = query.get(key) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| bad(&format!("strconv.ParseInt: parsing \"{text}\": invalid syntax")))
}

/// Options that are invalid, in the words of the API server.
fn invalid(options: &str, field: &str, reason: &str, message: &str) -> Reply {
    let causes = json!([{ "reason": reason, "message": message, "field": field }]);
    let details = json!({ "group": "meta.k8s.io", "kind": options, "causes": causes });
    let text = format!("{options}.meta.k8s.io \"\" is invalid: {field}: {message}");
    failure(422, "Invalid", &text, Some(details))
}

const FORBIDDEN: &str = "FieldValueForbidden";

/// Of a list.
pub(super) fn of_list(query: &Query, current: u64) -> Result<(), Reply> {
    let field = "resourceVersionMatch";
    let version = query.get("resourceVersion").map(String::as_str).filter(|version| !version.is_empty());
    match (query.get(field).map(String::as_str), version) {
        (Some(_), None) => {
            let message = format!("Forbidden: {field} is forbidden unless resourceVersion is provided");
            return Err(invalid("ListOptions", field, FORBIDDEN, &message));
        }
        (Some(other), _) if !matches!(other, "Exact" | "NotOlderThan" | "") => {
            let message = format!(
                "Unsupported value: \"{other}\": supported values: \"Exact\", \"NotOlderThan\", \"\""
            );
            return Err(invalid("ListOptions", field, "FieldValueNotSupported", &message));
        }
        _ => {}
    }
    number(query, "limit")?;
    let Some(version) = version else { return Ok(()) };
    if query.contains_key("continue") {
        return Err(bad("specifying resource version is not allowed when using continue"));
    }
    let Ok(wanted) = version.parse::<u64>() else {
        return Err(bad(&format!(
            "invalid resource version: resourceVersion: Invalid value: \"{version}\": strconv.ParseUint: parsing \"{version}\": invalid syntax"
        )));
    };
    if wanted > current {
        let message = format!("Timeout: Too large resource version: {wanted}, current: {current}");
        let cause = json!({ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" });
        let details = json!({ "causes": [cause], "retryAfterSeconds": 1 });
        let mut reply = failure(504, "Timeout", &message, Some(details));
        reply.retry_after = Some(1);
        return Err(reply);
    }
    Ok(())
}

/// Of a watch.
pub(super) fn of_watch(query: &Query) -> Result<(), Reply> {
    let field = "resourceVersionMatch";
    let refused =
        |message: &str| Err(invalid("ListOptions", field, FORBIDDEN, &format!("Forbidden: {message}")));
    match (query.contains_key("sendInitialEvents"), query.contains_key(field)) {
        (true, false) => refused("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"),
        (false, true) => {
            refused("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")
        }
        _ => number(query, "timeoutSeconds").map(drop),
    }
}

/// Of a deletion.
pub(super) fn of_delete(query: &Query) -> Result<(), Reply> {
    number(query, "gracePeriodSeconds")?;
    match query.get("propagationPolicy").map(String::as_str) {
        None | Some("Foreground" | "Background" | "Orphan") => Ok(()),
        Some(other) => {
            let message = format!(
                "Unsupported value: \"{other}\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
            );
            Err(invalid("DeleteOptions", "propagationPolicy", "FieldValueNotSupported", &message))
        }
    }
}

/// Of the log of a pod.
pub(super) fn of_log(pod: &str, query: &Query) -> Result<(), Reply> {
    let refused = |field: &str, reason: &str, message: &str| {
        let causes = json!([{ "reason": reason, "message": message, "field": field }]);
        let details = json!({ "name": pod, "kind": "PodLogOptions", "causes": causes });
        let text = format!("PodLogOptions \"{pod}\" is invalid: {field}: {message}");
        Err(failure(422, "Invalid", &text, Some(details)))
    };
    let value = "FieldValueInvalid";
    match (number(query, "tailLines")?, number(query, "limitBytes")?) {
        (Some(lines), _) if lines < 0 => refused(
            "tailLines",
            value,
            &format!("Invalid value: {lines}: must be greater than or equal to 0"),
        ),
        (_, Some(bytes)) if bytes < 1 => {
            refused("limitBytes", value, &format!("Invalid value: {bytes}: must be greater than 0"))
        }
        _ if query.contains_key("sinceTime") && query.contains_key("sinceSeconds") => {
            let message = "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified";
            refused("[]", FORBIDDEN, message)
        }
        _ => Ok(()),
    }
}
