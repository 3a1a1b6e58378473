//! Values of a config while it is compiled: written ones, and those that they become.

mod tree;

pub(crate) use tree::{
    Bindings, Data, Entry, ExecutorValue, Map, Node, Notation, PlacedStep, Pos, Scalar, ScalarKind, Seq,
    StepList, shorten,
};
