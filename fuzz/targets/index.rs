//! Any bytes are an index of git or none.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runlet::exec::is_index;

fuzz_target!(|input: &[u8]| {
    is_index(input);
});
