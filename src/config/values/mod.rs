//! Values of a config while it is compiled.

mod tree;

pub(crate) use tree::{Data, Entry, Kind, Map, Node, Pos, Scalar, Seq, Style, shorten};
