//! The engine: what may run, what a task may become, and what follows from it.
//!
//! [`graph`] decides about jobs and workflows, and [`task`] about tasks, without IO. [`commit`] carries its decisions into the store,
//! inside one transaction of the caller's. [`placement`] says which runners a job is for. [`claim`] hands a task out, [`handout`] says what it is
//! given. [`archives`] and [`test_timings`] decide about what jobs leave for others.
//! [`results`] compares what is stored with the rules of [`graph`].

pub mod archives;
pub mod claim;
pub mod commit;
pub mod graph;
pub mod handout;
pub mod placement;
pub mod results;
pub mod task;
pub mod test_timings;
