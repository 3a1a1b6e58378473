//! Any text is compiled or refused; what was compiled compiles again to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runlet::config::probe::{compile_text, without_names};

// Limits of memory are far from what fits into an input, so a `%` stands for a long word.
fuzz_target!(|source: &str| {
    let source = &source.replace('%', &"w".repeat(5000));
    match compile_text(source) {
        // More than a source may have.
        Ok(compiled) if compiled.processed.len() > 4 << 20 => {}
        Ok(compiled) => {
            let again = compile_text(&compiled.processed).expect("a compiled config is a config");
            assert_eq!(again.processed, compiled.processed);
            assert_eq!(without_names(again.workflows), without_names(compiled.workflows));
        }
        Err(diagnostics) => assert!(!diagnostics.0.is_empty()),
    }
});
