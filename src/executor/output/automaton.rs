//! Finds any of many patterns in one pass over a text, in which every run of white space counts as one
//! space. [`super::redactor`] makes the patterns and masks what is found.
//!
//! It is the automaton of Aho and Corasick behind a filter: a table of bits says of the last four
//! (folded) bytes whether any pattern begins with them, and only where one may, the automaton is walked.
//! So the cost hardly depends on the number of patterns, and no text makes it grow with their length.
//! Before that, a table of three bytes, unfolded, is asked at every second place only: it knows both ways in which a
//! beginning can lie there, with all the white space that may stand in it.
//! Nodes are numbered breadth first, so the children of a node are neighbours; 17 bytes hold one, and
//! there are at most as many as the patterns have bytes.

/// A node: a prefix of a pattern.
pub(super) type NodeIndex = u32;

/// The empty prefix.
pub(super) const ROOT: NodeIndex = 0;

/// Length of the shortest pattern, and of what the filter looks at.
pub(super) const FILTERED: usize = 4;

/// The filter has two to this many bits.
const FILTER_BITS: u32 = 18;
const FILTER_WORDS: usize = 1 << (FILTER_BITS - 6);

/// The table of three bytes has two to this many bits.
const COARSE_BITS: u32 = 19;
const COARSE_WORDS: usize = 1 << (COARSE_BITS - 6);

/// Every byte with white space made a space.
const FOLDED: [u8; 256] = {
    let mut folded = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        folded[byte] = if matches!(byte as u8, b'\t'..=b'\r') { b' ' } else { byte as u8 };
        byte += 1;
    }
    folded
};

/// The byte, or a space for any white space.
pub(super) fn folded(byte: u8) -> u8 {
    FOLDED[usize::from(byte)]
}

/// A set of patterns.
pub(super) struct Automaton {
    /// A bit for each hash of the first bytes of a pattern.
    filter: Box<[u64; FILTER_WORDS]>,
    /// A bit for each hash of three unfolded bytes: the first of a pattern, and those behind the first.
    coarse: Box<[u64; COARSE_WORDS]>,
    /// Last byte of each node.
    bytes: Vec<u8>,
    /// First child of each node. The last child stands before the first one of the next node.
    children: Vec<NodeIndex>,
    /// The longest other node that each node ends with.
    fallbacks: Vec<NodeIndex>,
    /// Length of the longest pattern that each node ends with, or 0.
    found: Vec<u32>,
    /// Length of each node.
    lengths: Vec<u32>,
}

/// White space, as it is before it is folded.
const WHITE_SPACE: [u8; 6] = *b" \t\n\x0b\x0c\r";

/// The state of a search for beginnings of patterns.
pub(super) struct Search {
    /// The beginning that is looked at next.
    start: usize,
    /// Behind the first four folded bytes of what was found, and these.
    pub(super) end: usize,
    pub(super) first: [u8; FILTERED],
}

impl Search {
    /// Begins at this index of a text.
    pub(super) fn from(start: usize) -> Self {
        Self { start, end: start, first: [0; FILTERED] }
    }
}

impl Automaton {
    /// Patterns are sorted, differ, have at least [`FILTERED`] bytes, and are folded: no white space but
    /// single spaces, and none at their ends.
    pub(super) fn new(patterns: &[Vec<u8>]) -> Self {
        let mut new = Self {
            filter: Box::new([0; FILTER_WORDS]),
            coarse: Box::new([0; COARSE_WORDS]),
            bytes: vec![0],
            children: Vec::new(),
            fallbacks: vec![ROOT],
            found: vec![0],
            lengths: vec![0],
        };
        for pattern in patterns {
            let first = &pattern[..FILTERED];
            let (word, bit) =
                place(first.iter().fold(0, |bytes, &byte| bytes << 8 | u32::from(byte)), FILTER_BITS);
            new.filter[word] |= 1 << bit;
            add_threes(&mut new.coarse, &first[..3], 0, 0);
            add_threes(&mut new.coarse, &first[1..], 0, 0);
        }
        // The patterns that begin with each node of the present depth.
        let mut level = vec![(ROOT, patterns)];
        let mut depth = 0;
        while !level.is_empty() {
            let mut next = Vec::new();
            for (node, mut sharing) in level {
                new.children.push(new.bytes.len() as NodeIndex);
                // A pattern that ends here is the first of those.
                if sharing.first().is_some_and(|pattern| pattern.len() == depth) {
                    sharing = &sharing[1..];
                }
                while let Some(first) = sharing.first() {
                    let byte = first[depth];
                    let (child, rest) = sharing.split_at(sharing.partition_point(|p| p[depth] == byte));
                    sharing = rest;
                    let fallback =
                        if node == ROOT { ROOT } else { new.step(new.fallbacks[node as usize], byte) };
                    let ends = child[0].len() == depth + 1;
                    next.push((new.bytes.len() as NodeIndex, child));
                    new.bytes.push(byte);
                    new.fallbacks.push(fallback);
                    new.lengths.push(depth as u32 + 1);
                    new.found.push(if ends { depth as u32 + 1 } else { new.found[fallback as usize] });
                }
            }
            depth += 1;
            level = next;
        }
        new.children.push(new.bytes.len() as NodeIndex);
        new
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.len() == 1
    }

    /// The prefix that is longer by this byte.
    pub(super) fn child(&self, node: NodeIndex, byte: u8) -> Option<NodeIndex> {
        let (first, end) = (self.children[node as usize], self.children[node as usize + 1]);
        let bytes = &self.bytes[first as usize..end as usize];
        // Most have one child.
        let at = if bytes.len() < 8 {
            bytes.iter().position(|&b| b == byte)
        } else {
            bytes.binary_search(&byte).ok()
        };
        at.map(|at| first + at as NodeIndex)
    }

    /// The longest prefix that the text ends with after one more byte.
    fn step(&self, mut node: NodeIndex, byte: u8) -> NodeIndex {
        loop {
            match self.child(node, byte) {
                Some(child) => return child,
                None if node == ROOT => return ROOT,
                None => node = self.fallbacks[node as usize],
            }
        }
    }

    /// The longest other prefix that this one ends with.
    pub(super) fn fallback(&self, node: NodeIndex) -> NodeIndex {
        self.fallbacks[node as usize]
    }

    /// `true` when no pattern goes on from here.
    pub(super) fn is_leaf(&self, node: NodeIndex) -> bool {
        self.children[node as usize] == self.children[node as usize + 1]
    }

    /// Length of the longest pattern that ends here, or 0.
    pub(super) fn found(&self, node: NodeIndex) -> usize {
        self.found[node as usize] as usize
    }

    /// Length of a node.
    pub(super) fn length(&self, node: NodeIndex) -> usize {
        self.lengths[node as usize] as usize
    }

    /// The next place where four folded bytes may begin a pattern. `false` at the end of the text.
    pub(super) fn filter(&self, text: &[u8], search: &mut Search) -> bool {
        let mut start = search.start;
        while let Some(four) = text.get(start..).and_then(|text| text.first_chunk::<FILTERED>()) {
            // Looks up the last three of four bytes: bytes 2 to 4 of a pattern that begins here, or 1 to 3 of one that
            // begins a byte later.
            let (word, bit) = place(u32::from_be_bytes(*four) & 0xff_ffff, COARSE_BITS);
            if self.coarse[word] >> bit & 1 != 0 {
                for start in [start, start + 1] {
                    let Some((first, end)) = first_folded(text, start) else { continue };
                    let (word, bit) = place(u32::from_be_bytes(first), FILTER_BITS);
                    if self.filter[word] >> bit & 1 != 0 {
                        *search = Search { start: start + 1, end, first };
                        return true;
                    }
                }
            }
            start += 2;
        }
        false
    }
}

/// The first folded bytes from `start` on, as many as are filtered, and the index behind them. `None` where there are
/// fewer, and where no pattern begins since it is white space.
fn first_folded(text: &[u8], start: usize) -> Option<([u8; FILTERED], usize)> {
    let (mut first, mut count) = ([b' '; FILTERED], 0);
    for (index, &byte) in text.get(start..)?.iter().enumerate() {
        let byte = folded(byte);
        if byte == b' ' && (count == 0 || first[count - 1] == byte) {
            if count == 0 {
                return None;
            }
            continue;
        }
        first[count] = byte;
        count += 1;
        if count == FILTERED {
            return Some((first, start + index + 1));
        }
    }
    None
}

/// Adds to the coarse table all three bytes that a text with these folded ones may have: white space of any kind, and
/// more of it. The highest are those that were chosen before, `count` of them.
fn add_threes(coarse: &mut [u64; COARSE_WORDS], folded: &[u8], chosen: u32, count: usize) {
    let Some((&byte, rest)) = folded.split_first().filter(|_| count < 3) else {
        let (word, bit) = place(chosen, COARSE_BITS);
        coarse[word] |= 1 << bit;
        return;
    };
    if byte != b' ' {
        return add_threes(coarse, rest, chosen << 8 | u32::from(byte), count + 1);
    }
    for space in WHITE_SPACE {
        let chosen = chosen << 8 | u32::from(space);
        add_threes(coarse, rest, chosen, count + 1);
        add_threes(coarse, folded, chosen, count + 1);
    }
}

/// The word and the bit of some bytes in a table of two to this many bits.
#[inline]
fn place(bytes: u32, bits: u32) -> (usize, u32) {
    let hash = bytes.wrapping_mul(0x9e37_79b1) >> (32 - bits);
    ((hash >> 6) as usize, hash & 63)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn automaton(patterns: &[&str]) -> Automaton {
        let mut patterns: Vec<Vec<u8>> = patterns.iter().map(|pattern| pattern.as_bytes().to_vec()).collect();
        patterns.sort();
        Automaton::new(&patterns)
    }

    #[test]
    fn a_walk_knows_the_longest_prefix_and_the_longest_pattern_at_each_byte() {
        let automaton = automaton(&["abcabcd", "bcab", "cabx", "abca"]);
        let mut node = ROOT;
        let walk: Vec<(usize, usize)> = b"zabcabcabx"
            .iter()
            .map(|&byte| {
                node = automaton.step(node, byte);
                (automaton.length(node), automaton.found(node))
            })
            .collect();
        let lengths = [0, 1, 2, 3, 4, 5, 6, 4, 5, 4];
        let found = [0, 0, 0, 0, 4, 4, 0, 4, 4, 4];
        assert_eq!(walk, lengths.into_iter().zip(found).collect::<Vec<_>>());
    }

    #[test]
    fn the_filter_lets_no_beginning_of_a_pattern_pass() {
        let automaton = automaton(&["a bc", "d e f", "gh i", "jkl m", "wxyz and more"]);
        for before in [&b"."[..], b"..", b"a ", b"d e"] {
            let text = b"a \n\tbc.d\te \x0bf.gh\r\ni.jkl  m.a\x0cbcwxyz";
            let expected =
                [(6, b"a bc"), (11, b"d e "), (19, b"gh i"), (24, b"jkl "), (31, b"a bc"), (35, b"wxyz")];
            let ends = ends(&automaton, &[before, text].concat());
            assert_eq!(ends, expected.map(|(end, first)| (before.len() + end, *first)));
        }
    }

    fn ends(automaton: &Automaton, text: &[u8]) -> Vec<(usize, [u8; 4])> {
        let (mut search, mut ends) = (Search::from(0), Vec::new());
        while automaton.filter(text, &mut search) {
            ends.push((search.end, search.first));
        }
        ends
    }

    #[test]
    fn beginnings_are_found_at_odd_and_even_places_and_up_to_the_end() {
        let automaton = automaton(&["abab", "baba", "wxyz"]);
        for before in 0..4 {
            let text = [&b"...."[..before], b"ababa-wxyz"].concat();
            let expected = [(4, *b"abab"), (5, *b"baba"), (10, *b"wxyz")];
            assert_eq!(ends(&automaton, &text), expected.map(|(end, four)| (before + end, four)));
        }
        assert!(ends(&automaton, b"xyz").is_empty() && ends(&automaton, b"").is_empty());
    }

    #[test]
    fn without_patterns_nothing_begins() {
        let automaton = automaton(&[]);
        assert!(automaton.is_empty() && automaton.is_leaf(ROOT));
        assert!(!automaton.filter(b"any text", &mut Search::from(0)));
    }
}
