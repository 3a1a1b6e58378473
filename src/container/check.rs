//! Conditions for the work of the runner: rights of its account, tokens of its classes.

use super::api::{ClusterFault, Kube};
use super::settings::{ClassSettings, ContainerSettings};
use crate::agent::calls;
use crate::http::{Client, Error};
use crate::protocol::Secret;

/// Rights in the namespace, as verbs of a resource.
const RIGHTS: [(&str, &[&str]); 4] = [
    ("pods", &["get", "watch", "list", "create", "delete"]),
    ("pods/log", &["get"]),
    ("secrets", &["get", "list", "create", "delete"]),
    ("events", &["list"]),
];

/// The tokens of all classes: their own, or out of the secrets of the cluster. The error names the class that has none.
pub(super) fn tokens(
    settings: &ContainerSettings,
    kube: &Kube,
) -> Result<Vec<(ClassSettings, Secret)>, String> {
    use base64::Engine;
    let mut secrets = Vec::new();
    for name in &settings.cluster.token_secrets {
        match kube.secret(name) {
            Ok(secret) => secrets.push(secret),
            // Of the names that the chart gives, one may not exist.
            Err(fault) if fault.is_missing() => log::warn!("there is no secret `{name}` with tokens"),
            Err(fault) => return Err(format!("cannot read the secret `{name}` with tokens: {fault}")),
        }
    }
    let mut found = Vec::new();
    for class in &settings.classes {
        let key = class.name.to_string().replacen('/', ".", 1);
        let by_key = secrets.iter().find_map(|secret| secret.data.get(&key)).map(|text| {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
            Secret::new(String::from_utf8_lossy(&bytes).trim().to_owned())
        });
        let token = class.token.clone().or(by_key).filter(|token| !token.expose().is_empty());
        let token = token.ok_or_else(|| {
            format!("the resource class `{}` has no token: neither `token` in its values nor a key `{key}` in one of the secrets of KUBE_TOKEN_SECRETS", class.name)
        })?;
        found.push((class.clone(), token));
    }
    Ok(found)
}

/// Rights that the account lacks, for people.
pub(super) fn missing_rights(settings: &ContainerSettings, kube: &Kube) -> Result<Vec<String>, ClusterFault> {
    let mut missing = Vec::new();
    if settings.checker.is_some() && !kube.may_in_cluster("list", "nodes")? {
        missing.push("list nodes of the cluster".to_owned());
    }
    for (resource, verbs) in RIGHTS {
        for verb in verbs {
            if !kube.may(verb, resource)? {
                missing.push(format!("{verb} {resource}"));
            }
        }
    }
    Ok(missing)
}

/// Asks whose the token is, which is to be that of `class`. The error says what is wrong.
pub(super) fn class_token(client: &Client, token: &Secret, name: &str, class: &str) -> Result<(), String> {
    match calls::about(client, token, name, 0, calls::SHORT) {
        Ok(about) if about.resource_class == class => Ok(()),
        Ok(about) => Err(format!("the token is of the resource class `{}`", about.resource_class)),
        Err(Error::Refused { status: 401, .. }) => {
            Err("the control plane does not know its token".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}
