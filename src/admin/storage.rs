//! Use of the disk of the control plane.

use super::arguments::Arguments;
use super::remote::Remote;
use super::table::Table;
use super::verb::{UnknownVerb, VerbAnswer, VerbFunction, find, text};
use crate::outcome::Failure;
use serde_json::{Value, json};

/// Verbs of `storage`.
pub(super) fn storage(verb: &str) -> Result<VerbFunction, UnknownVerb> {
    find(&[("list", list)], verb)
}

fn list(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    arguments.finish()?;
    let mut answer = remote.call("GET", "/api/v2/storage", None)?;
    let Value::Array(mut items) = answer["items"].take() else {
        return Ok(VerbAnswer::List(table(&[]), Vec::new()));
    };
    let disk = &answer["disk"];
    for (kind, bytes) in [
        ("database", &answer["database_bytes"]),
        ("disk", &disk["total_bytes"]),
        ("disk, free", &disk["free_bytes"]),
    ] {
        items.push(json!({ "project": "-", "kind": kind, "count": null, "bytes": bytes }));
    }
    Ok(VerbAnswer::List(table(&items), items))
}

fn table(items: &[Value]) -> Table {
    let mut table = Table::new(&["PROJECT", "KIND", "COUNT", "SIZE"]);
    for item in items {
        let count = item["count"].as_u64().map_or_else(String::new, |count| count.to_string());
        let size = item["bytes"].as_u64().map_or_else(String::new, size);
        table.row(&[text(item, "project"), text(item, "kind"), &count, &size]);
    }
    table
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let power = (bytes.max(1).ilog2() / 10).min(4);
    let number = bytes as f64 / 1024f64.powi(power as i32);
    if power == 0 { format!("{bytes} B") } else { format!("{number:.1} {}", units[power as usize]) }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_have_a_unit() {
        let sizes = [0, 1023, 1024, 1536, 5 << 30, u64::MAX].map(size);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "5.0 GiB", "16777216.0 TiB"]);
    }
}
