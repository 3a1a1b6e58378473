//! Of a report of tests that was masked, no secret is read: not by whoever reads the file, not as the control plane reads it.
//!
//! A `~` in the input stands for the secret, a `^` for its first half, a backquote for its second.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runlet::executor::masked_report;
use runlet::executor::output::secrets::Secrets;
use runlet::protocol::Secret;
use runlet::server::junit::Cases;
use std::io::Cursor;

const HALVES: (&str, &str) = ("XY12-", "m\u{f6}re");

fuzz_target!(|input: &[u8]| {
    let (first, second) = HALVES;
    let secret = format!("{first}{second}");
    let mut report = Vec::new();
    for byte in input {
        match byte {
            b'~' => report.extend(secret.bytes()),
            b'^' => report.extend(first.bytes()),
            b'`' => report.extend(second.bytes()),
            byte => report.push(*byte),
        }
    }
    let copy = masked_report(&report, &Secrets::new(&[], &[Secret::new(&*secret)]));
    let text = String::from_utf8_lossy(&copy);
    assert!(!text.contains(&secret), "the copy has it: {text}");
    for item in Cases::new(Cursor::new(&copy)) {
        let texts = match item {
            Ok(case) => {
                let places = [case.file, case.place].map(Option::unwrap_or_default);
                Vec::from_iter([case.name, case.classname, case.message].into_iter().chain(places))
            }
            Err(why) => vec![why.to_string()],
        };
        for read in texts {
            assert!(!read.contains(&secret), "`{read}` is read of {text}");
        }
    }
    // The control plane reads what older runners send, too.
    Cases::new(Cursor::new(&report)).for_each(drop);
});
