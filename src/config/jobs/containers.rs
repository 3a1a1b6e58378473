//! The value of `docker`: containers of a job, the first of which runs its steps.

use super::environment::environment;
use crate::config::session::{NodeReader, present};
use crate::config::values::{Map, Node};
use crate::config::{Executor, Image};
use crate::protocol::Words;
use std::collections::BTreeMap;

const KEYS: &[&str] = &["image", "name", "entrypoint", "command", "user", "environment", "auth", "aws_auth"];

/// Reads the list of containers.
pub(crate) fn docker(read: NodeReader<'_>, node: &Node, label: &str) -> Option<Executor> {
    let Some(list) = node.as_seq().filter(|list| !list.items.is_empty()) else {
        let found = node.as_seq().map_or_else(|| node.describe(), |_| "an empty list".into());
        read.report.error(node.pos, format!("`docker` of {label} must be a list of images, not {found}"));
        return None;
    };
    let images: Vec<_> = list.items.iter().map(|item| image(read, item, label)).collect();
    Some(Executor::Docker { images: images.into_iter().collect::<Option<_>>()? })
}

fn image(read: NodeReader<'_>, node: &Node, label: &str) -> Option<Image> {
    let what = format!("an image of {label}");
    let map = read.expect_map(node, &what)?;
    read.check_keys(map, &what, KEYS, false);
    let text = |key: &str| match present(map, key) {
        Some(node) => Some(Some(read.expect_text(node, format_args!("`{key}` of {what}"))?.to_string())),
        None => Some(None),
    };
    let image = text("image")?.filter(|image| !image.trim().is_empty());
    let Some(image) = image else {
        read.report.error(node.pos, format!("{what} has no `image`"));
        return None;
    };
    let variables = match present(map, "environment") {
        Some(node) => environment(read, node, &what)?,
        None => BTreeMap::new(),
    };
    Some(Image {
        image,
        name: text("name")?,
        entrypoint: words(read, map, "entrypoint", &what)?,
        command: words(read, map, "command", &what)?,
        user: text("user")?,
        environment: variables,
        auth: login(read, map, "auth", &what)?,
        aws_auth: login(read, map, "aws_auth", &what)?,
    })
}

/// A command line. The outer `None` is a mistake, which was reported.
fn words(read: NodeReader<'_>, map: &Map, key: &str, what: &str) -> Option<Option<Words>> {
    let Some(node) = present(map, key) else { return Some(None) };
    let list = read.text_list(node, format_args!("`{key}` of {what}"))?;
    let list: Vec<String> = list.iter().map(ToString::to_string).collect();
    Some(Some(match list.as_slice() {
        [line] if node.as_scalar().is_some() => Words::Line(line.clone()),
        _ => Words::List(list),
    }))
}

/// A login of a registry: texts by key.
fn login(read: NodeReader<'_>, map: &Map, key: &str, what: &str) -> Option<BTreeMap<String, String>> {
    let Some(node) = present(map, key) else { return Some(BTreeMap::new()) };
    let login = read.expect_map(node, format_args!("`{key}` of {what}"))?;
    let entries = login.entries.iter().filter(|entry| !entry.value.is_null()).map(|entry| {
        let text = read.expect_text(&entry.value, format_args!("`{}` of `{key}` of {what}", entry.key))?;
        Some((entry.key.to_string(), text.to_string()))
    });
    entries.collect()
}
