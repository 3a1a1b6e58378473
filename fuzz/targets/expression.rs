//! Any text is an expression with a value, or a mistake with a place.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runlet::config::probe::evaluate_text;

fuzz_target!(|source: &str| {
    evaluate_text(source);
});
