//! Jobs and executors of the hosted service as those of a machine of one's own. The text is edited, not
//! written anew, so that merge keys, anchors and places of mistakes stay what they were.

use runlet::config::probe::reindented;
use saphyr_parser::{Event, Parser, Span};
use std::collections::HashMap;

/// The text with `machine: true` where an environment of the hosted service stands. What the
/// environment was stays under a key that the compiler does not look into, since anchors may be in it.
pub(crate) fn to_own_machines(text: &str) -> String {
    let reindented = reindented(text);
    let text = reindented.as_deref().unwrap_or(text);
    let mut chars: Vec<char> = text.chars().collect();
    let mut finder = Finder { chars: &chars, stack: Vec::new(), anchors: HashMap::new(), edits: Vec::new() };
    for event in Parser::new_from_str(text) {
        // The compiler says what is wrong with the rest.
        let Ok((event, span)) = event else { break };
        finder.take(&event, span);
    }
    let mut edits = finder.edits;
    edits.sort_by_key(|edit| std::cmp::Reverse(edit.start));
    for edit in edits {
        chars.splice(edit.start..edit.end, edit.text.chars());
    }
    chars.into_iter().collect()
}

struct Edit {
    start: usize,
    end: usize,
    text: String,
}

/// As much of a value as tells an environment from something else of that name.
#[derive(Clone)]
enum Shape {
    Scalar,
    Seq,
    Map(Vec<String>),
}

struct Key {
    name: String,
    span: Span,
}

struct Open {
    anchor: usize,
    /// `None` for a list.
    map: Option<OpenMap>,
}

#[derive(Default)]
struct OpenMap {
    key: Option<Key>,
    entries: Vec<(Key, Shape)>,
}

struct Finder<'t> {
    chars: &'t [char],
    stack: Vec<Open>,
    anchors: HashMap<usize, Shape>,
    edits: Vec<Edit>,
}

impl Finder<'_> {
    fn take(&mut self, event: &Event<'_>, span: Span) {
        match event {
            Event::MappingStart(anchor, _) => {
                self.stack.push(Open { anchor: *anchor, map: Some(OpenMap::default()) });
            }
            Event::SequenceStart(anchor, _) => self.stack.push(Open { anchor: *anchor, map: None }),
            Event::Scalar(text, _, anchor, _) => {
                if let Some(Open { map: Some(map @ OpenMap { key: None, .. }), .. }) = self.stack.last_mut() {
                    map.key = Some(Key { name: text.to_string(), span });
                } else {
                    self.value(Shape::Scalar, *anchor);
                }
            }
            Event::Alias(anchor) => {
                let shape = self.anchors.get(anchor).cloned().unwrap_or(Shape::Scalar);
                self.value(shape, 0);
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open { anchor, map }) = self.stack.pop() else { return };
                let shape = match map {
                    None => Shape::Seq,
                    Some(map) => {
                        self.convert(&map);
                        Shape::Map(map.entries.into_iter().map(|(key, _)| key.name).collect())
                    }
                };
                self.value(shape, anchor);
            }
            _ => {}
        }
    }

    fn value(&mut self, shape: Shape, anchor: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, shape.clone());
        }
        if let Some(Open { map: Some(map), .. }) = self.stack.last_mut() {
            if let Some(key) = map.key.take() {
                map.entries.push((key, shape));
            }
        }
    }

    fn convert(&mut self, map: &OpenMap) {
        let mut environments = map.entries.iter().filter(|(key, shape)| is_hosted(&key.name, shape));
        // Two of them are a mistake that the compiler shall see.
        let (Some((key, _)), None) = (environments.next(), environments.next()) else { return };
        let parked = ["branches", "description"]
            .into_iter()
            .find(|parked| map.entries.iter().all(|(key, _)| key.name != *parked));
        let Some(parked) = parked else { return };
        let before = self.chars[..key.span.start.index()].iter().rfind(|char| !char.is_whitespace());
        let text = if matches!(before, Some('{' | ',')) {
            format!("machine: true, {parked}")
        } else {
            format!("machine: true\n{}{parked}", " ".repeat(key.span.start.col()))
        };
        self.edits.push(Edit { start: key.span.start.index(), end: key.span.end.index(), text });
    }
}

fn is_hosted(name: &str, shape: &Shape) -> bool {
    match (name, shape) {
        ("docker", Shape::Seq) => true,
        ("macos", Shape::Map(keys)) => {
            keys.iter().all(|key| matches!(&**key, "xcode" | "resource_class" | "<<"))
        }
        ("machine", Shape::Map(keys)) => {
            let known = ["image", "docker_layer_caching", "enabled", "resource_class", "shell", "<<"]
                .map(String::from);
            keys.iter().all(|key| known.contains(key))
        }
        _ => false,
    }
}
