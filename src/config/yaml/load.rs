//! Text to tree: anchors and merge keys resolved, positions kept, keys unique, size and depth bounded.
//!
//! Written as a loop over the events with its own stack, so that no nesting can exhaust the thread's.

use super::reindent::{Reindented, TABS_REFUSED, is_refusal, reindent, without_tabs};
use super::scalar::resolve;
use crate::config::limits;
use crate::config::values::{Data, Entry, Map, Node, Notation, Pos, Scalar, ScalarKind, Seq};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// A mistake in the text.
#[derive(Debug, PartialEq)]
pub(crate) struct Problem {
    pub(crate) pos: Pos,
    pub(crate) message: String,
    /// Whether the text can be used all the same.
    pub(crate) warning: bool,
}

/// Loads the one document of a text. `file` goes into the positions. Without a tree there is at least
/// one problem; with a tree there may be some, such as duplicate keys.
pub(crate) fn load(source: &str, file: u32) -> (Option<Node>, Vec<Problem>) {
    let mut loader = Loader::new(file);
    if source.len() > limits::SOURCE_BYTES {
        let message =
            format!("the file has {} bytes, more than the limit of {}", source.len(), limits::SOURCE_BYTES);
        loader.problem(Pos { file, line: 1, column: 1 }, message);
        return (None, loader.problems);
    }
    let source = source.trim_start_matches('\u{feff}');
    let tree = loader.run(source);
    // Each tab became one blank, so that all places are the same.
    if let Some(text) = loader.are_tabs_refused.then(|| without_tabs(source)).flatten() {
        return load(&text, file);
    }
    let is_refused = loader.is_indentation_refused;
    if let Some(Reindented { text, added }) = is_refused.then(|| reindent(source)).flatten() {
        let mut again = Loader { added, ..Loader::new(file) };
        let tree = again.run(&text);
        if tree.is_some() {
            return (tree, again.problems);
        }
    }
    (tree, loader.problems)
}

struct Loader {
    file: u32,
    /// Blanks that stand before each line, but not in the text as it was written.
    added: Vec<u32>,
    /// Whether the parser has ended at an indentation.
    is_indentation_refused: bool,
    /// Whether it has ended at tabs behind a colon.
    are_tabs_refused: bool,
    stack: Vec<Frame>,
    anchors: HashMap<usize, Anchor>,
    /// Values so far, aliases counted with all they stand for.
    nodes: usize,
    root: Option<Node>,
    problems: Vec<Problem>,
}

struct Anchor {
    node: Node,
    nodes: usize,
    height: usize,
}

/// A list or map that has begun.
struct Frame {
    pos: Pos,
    anchor: usize,
    nodes_before: usize,
    height: usize,
    tagged: bool,
    content: Content,
}

enum Content {
    Seq(Vec<Node>),
    Map(OpenMap),
}

/// A map that has begun.
#[derive(Default)]
struct OpenMap {
    entries: Vec<Entry>,
    /// The keys of `entries` once they are many. Most maps are small, and hashing costs more than it saves
    /// there.
    keys: HashSet<Rc<str>>,
    /// Values of `<<`, which are merged into it, each with the number of entries that stand before.
    merges: Vec<(usize, Node)>,
    /// A key whose value comes next; true for `<<`.
    key: Option<(Rc<str>, Pos, bool)>,
}

impl OpenMap {
    fn has(&self, key: &str) -> bool {
        if self.keys.is_empty() {
            self.entries.iter().any(|entry| &*entry.key == key)
        } else {
            self.keys.contains(key)
        }
    }

    /// Adds an entry; the caller knows that there is none with its key.
    fn push(&mut self, entry: Entry) {
        if !self.keys.is_empty() {
            self.keys.insert(entry.key.clone());
        } else if self.entries.len() >= 16 {
            self.keys = self.entries.iter().chain([&entry]).map(|entry| entry.key.clone()).collect();
        }
        self.entries.push(entry);
    }
}

impl Loader {
    fn new(file: u32) -> Self {
        Self {
            file,
            added: Vec::new(),
            is_indentation_refused: false,
            are_tabs_refused: false,
            stack: Vec::new(),
            anchors: HashMap::new(),
            nodes: 0,
            root: None,
            problems: Vec::new(),
        }
    }

    fn run(&mut self, source: &str) -> Option<Node> {
        let mut documents = 0;
        for event in Parser::new_from_str(source) {
            let (event, span) = match event {
                Ok(event) => event,
                Err(error) => {
                    let pos = self.pos(*error.marker());
                    self.is_indentation_refused = is_refusal(error.info());
                    self.are_tabs_refused = error.info() == TABS_REFUSED;
                    // The scanner has a limit of its own for brackets, and runs ahead of the events.
                    let message = match error.info() {
                        "recursion limit exceeded" => too_deep(),
                        info => super::advice::not_yaml(info, source),
                    };
                    self.problem(pos, message);
                    return None;
                }
            };
            let pos = self.pos(span.start);
            let step = match event {
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        Err("a config is one document, here a second begins".into())
                    } else {
                        Ok(())
                    }
                }
                Event::Scalar(text, style, anchor, tag) => self.scalar(pos, &text, style, anchor, tag),
                Event::Alias(anchor) => self.alias(pos, anchor),
                Event::SequenceStart(anchor, tag) => {
                    self.check_tag(pos, tag.as_deref(), "seq");
                    self.begin(pos, anchor, Content::Seq(Vec::new()))
                }
                Event::MappingStart(anchor, tag) => {
                    self.check_tag(pos, tag.as_deref(), "map");
                    self.begin(pos, anchor, Content::Map(OpenMap::default()))
                }
                Event::SequenceEnd | Event::MappingEnd => self.end(),
                Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            };
            if let Err(message) = step {
                self.problem(pos, message);
                return None;
            }
        }
        if self.root.is_none() && self.problems.is_empty() {
            self.problem(Pos { file: self.file, line: 1, column: 1 }, "the file is empty".into());
        }
        self.root.take()
    }

    fn pos(&self, marker: Marker) -> Pos {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let added = self.added.get(marker.line().saturating_sub(1)).copied().unwrap_or(0);
        let column = number(marker.col() + 1).saturating_sub(added).max(1);
        Pos { file: self.file, line: number(marker.line()).max(1), column }
    }

    fn problem(&mut self, pos: Pos, message: String) {
        self.problems.push(Problem { pos, message, warning: false });
    }

    fn count(&mut self, nodes: usize) -> Result<(), String> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > limits::YAML_NODES {
            return Err(format!(
                "the YAML has more than {} values once aliases are expanded",
                limits::YAML_NODES
            ));
        }
        Ok(())
    }

    fn check_depth(&self, below: usize) -> Result<(), String> {
        if self.stack.len() + below > limits::YAML_DEPTH {
            return Err(too_deep());
        }
        Ok(())
    }

    /// Warns about a tag that means nothing here; `own` is that of the kind of value.
    fn check_tag(&mut self, pos: Pos, tag: Option<&Tag>, own: &str) {
        let Some(tag) = tag else { return };
        // A lone `!` asks for what a quoted scalar is anyway.
        if tag.suffix.is_empty() || tag.suffix == "!" {
            return;
        }
        let known: &[&str] = if own.is_empty() { &["str", "null", "bool", "int", "float"] } else { &[own] };
        if !(tag.is_yaml_core_schema() && known.contains(&tag.suffix.as_str())) {
            let core = if tag.is_yaml_core_schema() { "!!" } else { tag.handle.as_str() };
            let message = format!(
                "the YAML tag `{core}{}` is ignored here: known are {}",
                tag.suffix,
                known.iter().map(|known| format!("`!!{known}`")).collect::<Vec<_>>().join(", ")
            );
            self.problems.push(Problem { pos, message, warning: true });
        }
    }

    fn begin(&mut self, pos: Pos, anchor: usize, content: Content) -> Result<(), String> {
        self.check_depth(1)?;
        if let Some(Frame { content: Content::Map(OpenMap { key: None, .. }), .. }) = self.stack.last() {
            return Err("a key of a map must be a scalar".into());
        }
        let nodes_before = self.nodes;
        self.count(1)?;
        self.stack.push(Frame { pos, anchor, nodes_before, height: 1, tagged: false, content });
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        let Some(frame) = self.stack.pop() else { return Ok(()) };
        let data = match frame.content {
            Content::Seq(items) => Data::Seq(Rc::new(Seq { items, tagged: frame.tagged })),
            Content::Map(map) => {
                let entries = match map.merges.as_slice() {
                    [] => map.entries,
                    merges => self.merge(map.entries, merges),
                };
                Data::Map(Rc::new(Map { entries, tagged: frame.tagged }))
            }
        };
        let node = Node::new(frame.pos, data);
        self.remember(frame.anchor, &node, self.nodes - frame.nodes_before, frame.height);
        self.value(node, frame.height)
    }

    fn scalar(
        &mut self,
        pos: Pos,
        text: &str,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<Cow<'_, Tag>>,
    ) -> Result<(), String> {
        self.count(1)?;
        let style = match style {
            ScalarStyle::Plain => Notation::Plain,
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Notation::Quoted,
            ScalarStyle::Literal | ScalarStyle::Folded => Notation::Block,
        };
        self.check_tag(pos, tag.as_deref(), "");
        let mut kind = if style == Notation::Plain { resolve(text) } else { ScalarKind::Str };
        if let Some(tag) = tag.filter(|tag| tag.is_yaml_core_schema()) {
            kind = match tag.suffix.as_str() {
                "str" => ScalarKind::Str,
                "null" => ScalarKind::Null,
                "bool" | "int" | "float" => resolve(text),
                _ => kind,
            };
        }
        // `<<` alone is the merge key, or a text; a tag it is not.
        let tagged = text != "<<" && has_tag(text);
        let scalar =
            Scalar { text: text.into(), kind, style, template: tagged.then(Rc::default), substituted: false };
        let node = Node::new(pos, Data::Scalar(scalar));
        self.remember(anchor, &node, 1, 0);
        self.value(node, 0)
    }

    fn alias(&mut self, pos: Pos, anchor: usize) -> Result<(), String> {
        let Some(Anchor { node, nodes, height }) = self.anchors.get(&anchor) else {
            return Err("this alias is inside of what it stands for".into());
        };
        let (node, nodes, height) = (node.clone(), *nodes, *height);
        self.count(nodes)?;
        self.check_depth(height)?;
        // The value of an alias keeps the place of its anchor, but a scalar is best shown where it is used.
        let node = if node.as_scalar().is_some() { Node::new(pos, node.data) } else { node };
        self.value(node, height)
    }

    fn remember(&mut self, anchor: usize, node: &Node, nodes: usize, height: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, Anchor { node: node.clone(), nodes, height });
        }
    }

    /// Puts a finished value where it belongs: into the list, as a key, under the key before it.
    fn value(&mut self, node: Node, height: usize) -> Result<(), String> {
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        let is_key = matches!(&frame.content, Content::Map(OpenMap { key: None, .. }));
        if !is_key {
            frame.tagged |= node.data.tagged();
            frame.height = frame.height.max(height + 1);
        }
        match &mut frame.content {
            Content::Seq(items) => items.push(node),
            Content::Map(map) => match map.key.take() {
                None => {
                    let Data::Scalar(scalar) = node.data else {
                        return Err("a key of a map must be a scalar".into());
                    };
                    let merge = &*scalar.text == "<<" && scalar.style == Notation::Plain;
                    map.key = Some((scalar.text, node.pos, merge));
                }
                Some((name, key_pos, merge)) => {
                    if merge {
                        map.merges.push((map.entries.len(), node));
                    } else if map.has(&name) {
                        self.problem(key_pos, format!("duplicate key `{name}`"));
                    } else {
                        map.push(Entry { key: name, key_pos, value: node });
                    }
                }
            },
        }
        Ok(())
    }

    /// Puts the entries of merged maps among the others. Explicit keys win over merged ones; of several
    /// merged maps, be they in one list or under several `<<`, the earlier win.
    fn merge(&mut self, entries: Vec<Entry>, merges: &[(usize, Node)]) -> Vec<Entry> {
        let mut keys: HashSet<_> = entries.iter().map(|entry| entry.key.clone()).collect();
        let mut own = entries.into_iter();
        let mut all: Vec<Entry> = Vec::new();
        let mut taken = 0;
        for (before, merged) in merges {
            all.extend(own.by_ref().take(before - taken));
            taken = *before;
            let maps = match &merged.data {
                Data::Seq(seq) => seq.items.as_slice(),
                _ => std::slice::from_ref(merged),
            };
            for merged in maps {
                match merged.as_map() {
                    Some(map) => {
                        let missing = map.entries.iter().filter(|entry| keys.insert(entry.key.clone()));
                        all.extend(missing.cloned());
                    }
                    None => {
                        let found = merged.describe();
                        let message =
                            format!("`<<` merges maps, not {found}: expected `*alias` or a list of those");
                        self.problem(merged.pos, message);
                    }
                }
            }
        }
        all.extend(own);
        all
    }
}

/// Whether a text has a `<<`.
fn has_tag(text: &str) -> bool {
    let bytes = text.as_bytes();
    memchr::memchr_iter(b'<', bytes).any(|at| bytes.get(at + 1) == Some(&b'<'))
}

fn too_deep() -> String {
    format!("the YAML is nested deeper than {} levels", limits::YAML_DEPTH)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn tree(source: &str) -> Node {
        let (node, problems) = load(source, 0);
        assert_eq!(problems, []);
        node.unwrap()
    }

    fn problem(source: &str) -> String {
        let (_, problems) = load(source, 0);
        let first = problems.first().expect("a problem");
        format!("{}:{} {}", first.pos.line, first.pos.column, first.message)
    }

    fn keys(node: &Node) -> Vec<String> {
        node.as_map().unwrap().entries.iter().map(|e| e.key.to_string()).collect()
    }

    #[test]
    fn positions_are_of_the_first_character() {
        let root = tree("a: 1\nb:\n  - x\n  - 'y'\n");
        let list = root.as_map().unwrap().get("b").unwrap().as_seq().unwrap().clone();
        let at: Vec<_> = list.items.iter().map(|n| (n.pos.line, n.pos.column)).collect();
        assert_eq!(at, [(3, 5), (4, 5)]);
    }

    #[test]
    fn merges_follow_the_explicit_keys_and_the_order_of_the_list() {
        let root = tree("a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: [*a, *b], x: 3}\n");
        let merged = root.as_map().unwrap().get("c").unwrap().clone();
        assert_eq!(keys(&merged), ["y", "z", "x"]);
        let value = |key: &str| merged.as_map().unwrap().get(key).unwrap().as_int().unwrap();
        assert_eq!((value("x"), value("y"), value("z")), (3, 1, 2));
    }

    #[test]
    fn several_merge_keys_of_one_map_count_in_their_order() {
        let root = tree("a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: *a, w: 3, <<: *b, z: 3}\n");
        let merged = root.as_map().unwrap().get("c").unwrap().clone();
        assert_eq!(keys(&merged), ["x", "y", "w", "z"]);
        let value = |key: &str| merged.as_map().unwrap().get(key).unwrap().as_int().unwrap();
        assert_eq!((value("y"), value("z")), (1, 3));
        assert!(problem("a: &a {x: 1}\nb: {<<: *a, <<: 1}\n").contains("merges maps, not an integer"));
    }

    #[test]
    fn what_is_wrong_is_said_where_it_is() {
        assert_eq!(problem("a: 1\nb: 2\na: 3\n"), "3:1 duplicate key `a`");
        assert!(problem("a: &a [1]\nb: {<<: *a}\n").contains("merges maps, not an integer"));
        assert!(problem("a: &a [*a]\n").contains("inside of what it stands for"));
        assert!(problem("[a]: 1\n").contains("must be a scalar"));
        assert!(problem("a: 1\n---\nb: 2\n").contains("one document"));
        assert!(problem("").contains("empty"));
        assert!(problem("a: *nowhere\n").contains("not YAML"));
    }

    #[test]
    fn alias_bombs_and_deep_nesting_are_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..20 {
            let below = format!("*a{}", level - 1);
            bomb += &format!("a{level}: &a{level} [{}]\n", [below.as_str(); 10].join(", "));
        }
        assert!(problem(&bomb).contains("more than 500000 values"));
        assert!(problem(&"[".repeat(100_000)).contains("deeper than 256"));
        let mut chain = "a0: &a0 [x]\n".to_owned();
        for level in 1..400 {
            chain += &format!("a{level}: &a{level} [*a{}]\n", level - 1);
        }
        assert!(problem(&chain).contains("deeper than 256"));
    }

    #[test]
    fn quoted_words_are_text() {
        let root = tree("[true, \"true\", !!str true, 1, '1']");
        let kinds: Vec<_> = root.as_seq().unwrap().items.iter().map(|n| n.data.type_name()).collect();
        assert_eq!(kinds, ["a boolean", "a string", "a string", "an integer", "a string"]);
    }

    #[test]
    fn tabs_separate_and_do_not_indent() {
        let spaced = |text: &str| text.replace('\t', " ");
        for text in [
            "a:\tb\nc: d\n",
            "a:\t1\n",
            "a:\t\t\"b\"\t# c\n",
            "a:\t[b,\tc]\nd:\t{e:\tf}\n",
            "a:\n  b:\tc\n  d:\t\n    - e:\tf\n      g:\t-1\n",
            "a: &x b\nc:\t*x\n",
            "a:\t|\n  b:\tc\nd:\te\n",
            "-\ta\n- \tb\n",
        ] {
            let shape = |node: &Node| format!("{:?}", node.data);
            // A text below `|` keeps its tabs.
            let spaced = spaced(text).replace("b: c\nd", "b:\tc\nd");
            assert_eq!(shape(&tree(text)), shape(&tree(&spaced)), "{text:?}");
        }
        for (text, place) in [
            ("a:\n\tb: 1\n", "2:"),
            ("a:\tb\nc:\n\td: 1\n", "3:"),
            ("a:\n  b: 1\n\tc: 2\n", "2:6 "),
            ("a: |\n\tb\n", "1:4 "),
            ("a:\n\t- b\n", "2:"),
        ] {
            let said = problem(text);
            assert!(said.starts_with(place) && said.contains("indent with blanks"), "{text:?}: {said}");
        }
        assert!(problem("a:\tb: c\n").contains("must be quoted"));
        assert!(problem("a:\t- b\n").starts_with("1:4 "));
        assert!(problem("-\t- b\n").contains("blanks instead of tabs"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-c:&*<\\-\\[\\]{}, \n'\"|>#!?0-9]{0,80}") {
            let (node, problems) = load(&text, 0);
            prop_assert!(node.is_some() || !problems.is_empty());
        }
    }
}
