//! The audit log.

use super::arguments::Arguments;
use super::remote::{Remote, encode};
use super::table::Table;
use super::verb::{UnknownVerb, VerbAnswer, VerbFunction, find, text};
use crate::outcome::Failure;

/// Acts that are shown unless more are asked for.
const SHOWN: usize = 50;
/// Acts of one page of the API.
const PAGE: usize = 100;

/// Finds a verb of `audit`.
pub(super) fn audit(verb: &str) -> Result<VerbFunction, UnknownVerb> {
    find(&[("list", list)], verb)
}

fn list(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let (user, limit) = (arguments.option("user"), arguments.option("limit"));
    arguments.finish()?;
    let wanted = match &limit {
        None => SHOWN,
        Some(text) => match text.parse() {
            Ok(wanted @ 1..) => wanted,
            _ => return Err(Failure::usage(format!("`--limit` is a number of acts, not `{text}`"))),
        },
    };
    let mut items = Vec::new();
    let mut next = String::new();
    loop {
        let most = (wanted - items.len()).min(PAGE);
        let user = encode(user.as_deref().unwrap_or_default());
        let path = format!("/api/v3/audit-events?limit={most}&user={user}&page-token={}", encode(&next));
        let mut page = remote.call("GET", &path, None)?;
        items.extend(page["items"].as_array_mut().map(std::mem::take).unwrap_or_default());
        match page["next_page_token"].as_str() {
            Some(token) if items.len() < wanted => next = token.to_owned(),
            _ => break,
        }
    }
    let mut table = Table::new(&["TIME", "USER", "FROM", "RESULT", "CALL", "DETAIL"]);
    for item in &items {
        let result =
            item["status"].as_u64().map_or_else(|| "not known".to_owned(), |status| status.to_string());
        let call = format!("{} {}", text(item, "method"), text(item, "path"));
        let detail = item["detail"].to_string();
        let detail = if detail == "{}" { "" } else { &detail };
        table.row(&[text(item, "at"), text(item, "user"), text(item, "address"), &result, &call, detail]);
    }
    Ok(VerbAnswer::List(table, items))
}
