//! Limits that both sides are compiled with. Each is below the next, so that what one call may carry never
//! depends on another's luck; what does not fit is refused when it is made (a config when it is compiled, a
//! claim when the task is handed out), not in the middle of a run.

/// Longest name, title or one-line message inside an event, in bytes. Longer ones are cut, with a mark.
pub const EVENT_TEXT_BYTES: usize = 4 * 1024;
/// Longest command inside an event, in bytes. Longer ones are cut, with a mark that says how long it was.
pub const EVENT_COMMAND_BYTES: usize = 16 * 1024;
/// Most times of output in an event.
pub const OUTPUT_TIMES: usize = 256;
/// Largest event as JSON, in bytes: every byte of its texts may need six.
pub const EVENT_BYTES: usize = 192 * 1024;
/// Largest body of a batch of events as JSON, in bytes. At least one event fits.
pub const EVENT_BATCH_BYTES: usize = 1024 * 1024;
/// Largest body, in bytes, of one output or upload request. Larger data goes in several requests.
pub const MAX_CHUNK_BYTES: usize = 4 * 1024 * 1024;
/// Largest body of any other call, in bytes.
pub const BODY_BYTES: usize = MAX_CHUNK_BYTES + 1024;
/// Largest body of a call that compiles a config or continues a pipeline with one, in bytes: parameters come along.
pub const CONFIG_BYTES: usize = 4 * MAX_CHUNK_BYTES;
/// Largest compiled job as JSON, in bytes. A larger one is an error of its config.
pub const JOB_BYTES: usize = 8 * 1024 * 1024;
/// Largest answer to a claim, in bytes: the compiled job, the variables it gets, and what belongs to them. A task
/// whose answer would be larger ends with an error when it is handed out.
pub const CLAIM_BYTES: usize = 16 * 1024 * 1024;
/// Largest answer of a call other than a claim or raw bytes, in bytes.
pub const ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// Longest message for people that a runner sends along, in bytes. Longer ones are cut, with a mark.
pub const MESSAGE_BYTES: usize = 4096;
/// Longest word by which a claim tells something of its runner, such as its name, in bytes.
pub const WORD_BYTES: usize = 255;
/// Longest id of a task agent, in bytes.
pub const AGENT_ID_BYTES: usize = 64;
/// Most bytes of the variables that one task gets, names and values.
pub const VARIABLE_BYTES: usize = 4 * 1024 * 1024;
/// Largest head of a request, in bytes.
pub const HEADER_BYTES: usize = 64 * 1024;
/// Largest config or orb as text, in bytes.
pub const SOURCE_BYTES: usize = 4 * 1024 * 1024;
/// Longest path of an artifact, in bytes.
pub const ARTIFACT_PATH_BYTES: usize = 4096;
/// Largest file of test results that is read, in bytes; larger ones are stored.
pub const TEST_RESULTS_BYTES: u64 = 64 * 1024 * 1024;
/// Longest key of a cache, in characters.
pub const CACHE_KEY_CHARS: usize = 900;
/// Most keys that one call looks for.
pub const CACHE_KEYS: usize = 1000;
/// Most records that a container runner keeps beside those of a task.
pub const RECORDS_BESIDE: u32 = 64;
/// Largest artifact unless the control plane says otherwise, in bytes.
pub const ARTIFACT_BYTES: u64 = 3 * 1024 * 1024 * 1024;
/// Largest upload of any kind, in bytes: caches have no limit of their own, and the disk is smaller than this.
pub const UPLOAD_BYTES: u64 = 1 << 40;

const _: () = {
    assert!(2 * 6 * EVENT_TEXT_BYTES + 6 * EVENT_COMMAND_BYTES + 48 * OUTPUT_TIMES < EVENT_BYTES);
    assert!(EVENT_BYTES < EVENT_BATCH_BYTES);
    assert!(EVENT_BATCH_BYTES < BODY_BYTES);
    assert!(MAX_CHUNK_BYTES < BODY_BYTES);
    assert!(BODY_BYTES < JOB_BYTES);
    assert!(JOB_BYTES < CLAIM_BYTES);
    assert!(VARIABLE_BYTES < CLAIM_BYTES - JOB_BYTES);
    assert!((ARTIFACT_BYTES as u128) < UPLOAD_BYTES as u128);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_that_jobs_meet_stand_in_the_docs() {
        const DOCS: &str = include_str!("../../docs/jobs.md");
        let (_, table) = DOCS.split_once("### Limits of steps").unwrap_or_default();
        let table = table.split("\n## ").next().unwrap_or_default();
        for limit in [
            format!("{} GiB ({ARTIFACT_BYTES} bytes)", ARTIFACT_BYTES >> 30),
            format!("{} MiB", TEST_RESULTS_BYTES >> 20),
            format!("{} TiB", UPLOAD_BYTES >> 40),
            format!("{CACHE_KEY_CHARS} characters"),
            format!("{} MiB, names and values", VARIABLE_BYTES >> 20),
        ] {
            assert!(table.contains(&format!("| {limit} |")), "{limit}");
        }
    }
}
