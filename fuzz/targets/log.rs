//! Of any output the page shows text: its tags are those of rows, colours and links to the web.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runlet::server::web::log_rows;

fuzz_target!(|input: &str| {
    let html = log_rows(input);
    let mut open = Vec::new();
    let mut parts = html.split('<');
    assert!(!parts.next().unwrap_or_default().contains('>'), "{html}");
    for part in parts {
        let (tag, text) = part.split_once('>').unwrap_or_else(|| panic!("a tag does not end: {html}"));
        assert!(!text.contains('>'), "{html}");
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        match name {
            "/a" | "/span" => assert_eq!(open.pop(), Some(&name[1..]), "{html}"),
            "a" | "span" => open.push(name),
            _ => panic!("`{name}` is no tag of a row: {html}"),
        }
        // Attributes are `name="value"`, one space between them.
        let mut pieces = attributes.split('"');
        while let Some(key) = pieces.next().map(str::trim).filter(|key| !key.is_empty()) {
            let value = pieces.next().unwrap_or_default();
            match key {
                "href=" => assert!(
                    ["?1#L", "http://", "https://"].iter().any(|begin| value.starts_with(begin)),
                    "{html}"
                ),
                "id=" | "data-n=" | "class=" | "rel=" => {}
                _ => panic!("`{key}` is no attribute of a row: {html}"),
            }
        }
    }
    assert!(open.is_empty(), "{html}");
});
