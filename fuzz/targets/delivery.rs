//! Any bytes are a delivery of a forge or a mistake in one sentence; what is read of one keeps to its limits.
//!
//! The input is `FORGE EVENT\nBODY`; the first letter chooses the forge.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runlet::server::pipelines::forge::payload;
use runlet::server::store::forge_states::Forge;

const FORGES: [Forge; 7] = [
    Forge::GitHub,
    Forge::Gitea,
    Forge::Forgejo,
    Forge::GitLab,
    Forge::BitbucketCloud,
    Forge::BitbucketDc,
    Forge::Git,
];

fuzz_target!(|input: &[u8]| {
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else { return };
    let (head, body) = (String::from_utf8_lossy(&input[..end]), &input[end + 1..]);
    let (letter, event) = head.split_at_checked(1).unwrap_or(("", &head));
    let forge = FORGES[letter.bytes().next().map_or(0, usize::from) % FORGES.len()];
    match payload::read(forge, event.trim(), body) {
        Ok(delivery) => {
            assert!(delivery.changes.len() <= 5000);
            assert!(!delivery.changes.is_empty() || !delivery.remark.is_empty(), "nothing is said of {head}");
        }
        Err(why) => assert!(!why.is_empty()),
    }
});
