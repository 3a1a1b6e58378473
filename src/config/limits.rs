//! The bounds of a compilation. Exceeding one is an error that names it; configs that people write reach
//! none.

/// Bytes of one source (a config or an orb).
pub const SOURCE_BYTES: usize = crate::protocol::limits::SOURCE_BYTES;
/// Values in one source once aliases are expanded.
pub(crate) const YAML_NODES: usize = 500_000;
/// Levels of nesting in one source, aliases included.
pub(crate) const YAML_DEPTH: usize = 256;
/// Characters between `<<` and `>>`.
pub(crate) const TAG_CHARS: usize = 2048;
/// Characters of a regular expression.
pub(crate) const REGEX_CHARS: usize = 256;
/// Bytes that a compiled regular expression may take.
pub(crate) const REGEX_BYTES: usize = 1 << 20;
/// Levels of logic statements, of parentheses in an expression and of sections in a text.
pub(crate) const LOGIC_DEPTH: usize = 100;
/// Levels of commands and conditional steps inside each other.
pub(crate) const STEP_DEPTH: usize = 64;
/// Steps looked at while everything is expanded.
pub(crate) const EXPANDED_STEPS: usize = 200_000;
/// Bytes of text that expansion may produce.
pub(crate) const EXPANDED_BYTES: usize = 32 << 20;
/// Jobs in all workflows.
pub(crate) const JOBS: usize = 10_000;
/// `requires` between jobs of all workflows, matrices expanded.
pub(crate) const REQUIREMENTS: usize = 200_000;
/// Jobs of one matrix.
pub(crate) const MATRIX_JOBS: usize = 128;
/// Different contexts of one config.
pub(crate) const CONTEXTS: usize = 100;
/// Characters of a context name.
pub const CONTEXT_CHARS: usize = 200;
/// Characters of a serial group key.
pub(crate) const SERIAL_GROUP_CHARS: usize = 512;
/// Pipeline parameters given by one trigger.
pub const GIVEN_PARAMETERS: usize = 100;
/// Characters of the name of a pipeline parameter.
pub const PARAMETER_NAME_CHARS: usize = 128;
/// Characters of the value that a trigger gives for a pipeline parameter.
pub const PARAMETER_VALUE_CHARS: usize = 512;
/// Orbs of one config that are given by URL.
pub(crate) const URL_ORBS: usize = 50;
/// Levels of orbs that import orbs by URL.
pub(crate) const URL_ORB_DEPTH: usize = 5;
/// Orbs of one config, inline and imported ones.
pub(crate) const ORBS: usize = 200;
/// Levels of orbs that import orbs.
pub(crate) const ORB_DEPTH: usize = 20;
/// Parallel nodes of one job.
pub(crate) const PARALLELISM: i64 = 1000;
/// Further attempts of a step or a workflow.
pub(crate) const AUTO_RERUNS: i64 = 5;
/// Errors, counted again at each use, after which expansion is given up: they multiply as commands do, and
/// few of them are shown.
pub(crate) const FOUND_ERRORS: usize = 2000;
/// Errors and warnings reported at once.
pub(crate) const DIAGNOSTICS: usize = 100;
