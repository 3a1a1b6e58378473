//! Values of a config while it is compiled.

mod tree;

pub(crate) use tree::{
    Bindings, Data, Entry, ExecutorValue, Kind, Map, Node, PlacedStep, Pos, Scalar, Seq, StepList, Style,
    shorten,
};
