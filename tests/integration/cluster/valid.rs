//! Validation and defaults of new objects, as far as the runner depends on them.

use serde_json::{Value, json};

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const LABEL_KEY: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const MOST_SECRET_BYTES: usize = 1_048_576;
const MOST_ANNOTATION_BYTES: usize = 262_144;

/// A fault: field, reason, message.
pub(super) type Cause = (String, &'static str, String);

fn invalid(field: &str, value: &str, why: &str) -> Cause {
    (field.to_owned(), "FieldValueInvalid", format!("Invalid value: \"{value}\": {why}"))
}

fn required(field: &str, why: &str) -> Cause {
    let more = if why.is_empty() { String::new() } else { format!(": {why}") };
    (field.to_owned(), "FieldValueRequired", format!("Required value{more}"))
}

/// A value that is none of a few words.
fn unsupported(causes: &mut Vec<Cause>, field: &str, value: &Value, words: &[&str]) {
    let Some(given) = value.as_str().filter(|given| !words.contains(given)) else { return };
    let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    let message = format!("Unsupported value: \"{given}\": supported values: {}", words.join(", "));
    causes.push((field.to_owned(), "FieldValueNotSupported", message));
}

fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn metadata(object: &Value, causes: &mut Vec<Cause>) {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        causes.push(required("metadata.name", "name or generateName is required"));
    } else if !name.split('.').all(is_label) {
        causes.push(invalid("metadata.name", name, SUBDOMAIN));
    } else if name.len() > 253 {
        causes.push(invalid("metadata.name", name, "must be no more than 253 characters"));
    }
    let annotations = object["metadata"]["annotations"].as_object().into_iter().flatten();
    let bytes: usize =
        annotations.map(|(key, value)| key.len() + value.as_str().unwrap_or_default().len()).sum();
    if bytes > MOST_ANNOTATION_BYTES {
        let message = format!("Too long: may not be more than {MOST_ANNOTATION_BYTES} bytes");
        causes.push(("metadata.annotations".to_owned(), "FieldValueTooLong", message));
    }
    for (key, value) in object["metadata"]["labels"].as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        let inside = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !key.rsplit('/').next().unwrap_or_default().chars().all(inside) {
            causes.push(invalid("metadata.labels", key, LABEL_KEY));
        }
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
    let containers = pod["spec"]["containers"].as_array().cloned().unwrap_or_default();
    if containers.is_empty() {
        causes.push(required("spec.containers", ""));
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
            causes.push(required(&format!("{at}.image"), ""));
        } else if image.trim() != image {
            causes.push(invalid(
                &format!("{at}.image"),
                image,
                "must not have leading or trailing whitespace",
            ));
        }
        let policy = format!("{at}.imagePullPolicy");
        unsupported(
            &mut causes,
            &policy,
            &container["imagePullPolicy"],
            &["Always", "IfNotPresent", "Never"],
        );
        for (m, variable) in container["env"].as_array().into_iter().flatten().enumerate() {
            if variable["name"].as_str().unwrap_or_default().is_empty() {
                causes.push(required(&format!("{at}.env[{m}].name"), ""));
            }
        }
        let mut paths = Vec::new();
        for (m, mount) in container["volumeMounts"].as_array().into_iter().flatten().enumerate() {
            let name = mount["name"].as_str().unwrap_or_default();
            if !volumes.contains(&name) {
                causes.push((
                    format!("{at}.volumeMounts[{m}].name"),
                    "FieldValueNotFound",
                    format!("Not found: \"{name}\""),
                ));
            }
            let path = mount["mountPath"].as_str().unwrap_or_default();
            if paths.contains(&path) {
                causes.push(invalid(&format!("{at}.volumeMounts[{m}].mountPath"), path, "must be unique"));
            }
            paths.push(path);
        }
    }
    unsupported(
        &mut causes,
        "spec.restartPolicy",
        &pod["spec"]["restartPolicy"],
        &["Always", "OnFailure", "Never"],
    );
    if let Some(node) = pod["spec"]["nodeName"].as_str().filter(|node| !node.split('.').all(is_label)) {
        causes.push(invalid("spec.nodeName", node, SUBDOMAIN));
    }
    if let Some(seconds) = pod["spec"]["activeDeadlineSeconds"].as_i64().filter(|seconds| *seconds < 1) {
        causes.push((
            "spec.activeDeadlineSeconds".to_owned(),
            "FieldValueInvalid",
            format!("Invalid value: {seconds}: must be between 1 and 2147483647, inclusive"),
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
    if spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|grace| grace < 0) {
        spec["terminationGracePeriodSeconds"] = json!(1);
    }
    for list in ["initContainers", "containers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            let image = container["image"].as_str().unwrap_or_default();
            // A name that cannot be read has no tag that could be the latest.
            let is_name = !image.contains(char::is_whitespace);
            let latest = is_name
                && (image.ends_with(":latest")
                    || !image.rsplit('/').next().unwrap_or_default().contains([':', '@']));
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
