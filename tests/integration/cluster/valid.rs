//! Validation and defaults of new objects, as far as the runner depends on them.

use serde_json::{Value, json};

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const MOST_SECRET_BYTES: usize = 1_048_576;

/// A fault: field, reason, message.
pub(super) type Cause = (String, &'static str, String);

fn invalid(field: &str, value: &str, why: &str) -> Cause {
    (field.to_owned(), "FieldValueInvalid", format!("Invalid value: \"{value}\": {why}"))
}

fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn metadata(object: &Value, causes: &mut Vec<Cause>) {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if !name.split('.').all(is_label) {
        causes.push(invalid("metadata.name", name, SUBDOMAIN));
    } else if name.len() > 253 {
        causes.push((
            "metadata.name".to_owned(),
            "FieldValueTooLong",
            "Too long: may not be more than 253 bytes".to_owned(),
        ));
    }
    for value in object["metadata"]["labels"].as_object().into_iter().flat_map(|labels| labels.values()) {
        let value = value.as_str().unwrap_or_default();
        let inside = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let ends = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        };
        if value.len() > 63 {
            causes.push(invalid("metadata.labels", value, "must be no more than 63 bytes"));
        } else if !(value.is_empty() || value.chars().all(inside) && ends(value)) {
            causes.push(invalid("metadata.labels", value, VALUE));
        }
    }
}

/// Faults of a pod.
pub(super) fn pod(pod: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    metadata(pod, &mut causes);
    let required = |field: &str| (field.to_owned(), "FieldValueRequired", "Required value".to_owned());
    let containers = pod["spec"]["containers"].as_array().cloned().unwrap_or_default();
    if containers.is_empty() {
        causes.push(required("spec.containers"));
    }
    let volumes: Vec<&str> = pod["spec"]["volumes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|volume| volume["name"].as_str())
        .collect();
    let mut names = Vec::new();
    for (n, container) in containers.iter().enumerate() {
        let at = format!("spec.containers[{n}]");
        let name = container["name"].as_str().unwrap_or_default();
        if !is_label(name) || name.len() > 63 {
            causes.push(invalid(&format!("{at}.name"), name, LABEL));
        } else if names.contains(&name) {
            causes.push((
                format!("{at}.name"),
                "FieldValueDuplicate",
                format!("Duplicate value: \"{name}\""),
            ));
        }
        names.push(name);
        let image = container["image"].as_str().unwrap_or_default();
        if image.is_empty() {
            causes.push(required(&format!("{at}.image")));
        } else if image.trim() != image {
            causes.push(invalid(
                &format!("{at}.image"),
                image,
                "must not have leading or trailing whitespace",
            ));
        }
        for (m, mount) in container["volumeMounts"].as_array().into_iter().flatten().enumerate() {
            let name = mount["name"].as_str().unwrap_or_default();
            if !volumes.contains(&name) {
                causes.push((
                    format!("{at}.volumeMounts[{m}].name"),
                    "FieldValueNotFound",
                    format!("Not found: \"{name}\""),
                ));
            }
        }
    }
    if pod["spec"]["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds < 1) {
        causes.push(invalid(
            "spec.activeDeadlineSeconds",
            "0",
            "must be between 1 and 2147483647, inclusive",
        ));
    }
    causes
}

/// Fills in what the server fills in.
pub(super) fn pod_defaults(pod: &mut Value) {
    let spec = &mut pod["spec"];
    for (key, value) in [
        ("restartPolicy", json!("Always")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("dnsPolicy", json!("ClusterFirst")),
        ("schedulerName", json!("default-scheduler")),
        ("securityContext", json!({})),
        ("serviceAccountName", json!("default")),
        ("serviceAccount", json!("default")),
        ("enableServiceLinks", json!(true)),
        ("priority", json!(0)),
        ("preemptionPolicy", json!("PreemptLowerPriority")),
    ] {
        if spec[key].is_null() {
            spec[key] = value;
        }
    }
    for list in ["initContainers", "containers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            let image = container["image"].as_str().unwrap_or_default();
            let latest = image.ends_with(":latest")
                || !image.rsplit('/').next().unwrap_or_default().contains([':', '@']);
            for (key, value) in [
                ("resources", json!({})),
                ("terminationMessagePath", json!("/dev/termination-log")),
                ("terminationMessagePolicy", json!("File")),
                ("imagePullPolicy", json!(if latest { "Always" } else { "IfNotPresent" })),
            ] {
                if container[key].is_null() {
                    container[key] = value;
                }
            }
        }
    }
    pod["status"] = json!({ "phase": "Pending", "qosClass": "BestEffort" });
}

/// Faults of a secret; its texts become data.
pub(super) fn secret(secret: &mut Value) -> Result<Vec<Cause>, String> {
    use base64::Engine;
    let base64 = base64::engine::general_purpose::STANDARD;
    let mut causes = Vec::new();
    metadata(secret, &mut causes);
    if let Some(Value::Object(texts)) = secret.as_object_mut().and_then(|secret| secret.remove("stringData"))
    {
        for (key, text) in texts {
            secret["data"][key] = json!(base64.encode(text.as_str().unwrap_or_default()));
        }
    }
    if secret["type"].is_null() {
        secret["type"] = json!("Opaque");
    }
    let mut bytes = 0;
    for (key, value) in secret["data"].as_object().into_iter().flatten() {
        if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) {
            causes.push(invalid(&format!("data[{key}]"), key, KEY));
        }
        let decoded = base64.decode(value.as_str().unwrap_or_default());
        let decoded = decoded.map_err(|_| {
            "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 0"
                .to_owned()
        })?;
        bytes += decoded.len();
    }
    if bytes > MOST_SECRET_BYTES {
        causes.push((
            "data".to_owned(),
            "FieldValueTooLong",
            format!("Too long: may not be more than {MOST_SECRET_BYTES} bytes"),
        ));
    }
    Ok(causes)
}
