//! The message of a failure, which begins with the line that says what went wrong: test runners put that below a stack
//! trace, or say nothing but that the test failed.

use crate::terminal::without_colours;

/// Longest message that is kept, in bytes.
pub(super) const LONGEST_MESSAGE: usize = 64 * 1024;
/// Attributes that say no more than the element itself, in lower case.
const SAYS_NOTHING: [&str; 8] =
    ["fail", "failed", "failure", "error", "test failed", "test failure", "no message", "null"];
/// The line that Python puts above a stack trace, whose last line counts.
const TRACEBACK: &str = "Traceback (most recent call last):";

/// Message of a failure or a skip.
pub(super) struct CaseMessage {
    pub text: String,
    pub attribute: Option<String>,
    /// Value of `type`: the name of an exception, as a rule.
    pub kind: Option<String>,
    /// There was more text than is kept: what comes behind it does not follow what is.
    pub is_cut: bool,
}

impl CaseMessage {
    /// Message for which the output of a test is read: one that says nothing, as CTest's `Failed`, to which it is added.
    pub(super) fn beside(known: &str, test: &str) -> Option<Self> {
        let is_vague = known.is_empty() || says_nothing(known, test);
        let attribute = Some(known.to_owned());
        is_vague.then(|| Self { text: String::new(), attribute, kind: None, is_cut: false })
    }

    /// Adds text as long as it is short enough.
    pub(super) fn add(&mut self, text: &str) {
        let text = if self.text.is_empty() { text.trim_start() } else { text };
        let text = if self.is_cut { "" } else { text };
        let fits = cut(text, LONGEST_MESSAGE - self.text.len());
        self.is_cut |= fits.len() < text.len();
        self.text.push_str(fits);
    }

    /// The attribute, which says in short what failed, and below it the text, unless one has the other in it. An
    /// attribute that says nothing gives way to the line of the text that does, and one that is a stack trace to its own;
    /// where there is neither, the type says something at least.
    pub(super) fn message(self, test: &str) -> String {
        // Runners colour the text and not the attribute, or the other way round.
        let attribute = self.attribute.unwrap_or_default();
        let (attribute, text) = (without_colours(&attribute), without_colours(&self.text));
        let (attribute, text) = (attribute.trim(), text.trim());
        let is_trace = attribute.starts_with(TRACEBACK);
        let both = (is_trace && !text.contains(attribute)).then(|| format!("{attribute}\n\n{text}"));
        let text = both.as_deref().unwrap_or(text).trim_end();
        let wants = attribute.is_empty() || is_trace || says_nothing(attribute, test);
        let short = Some(text).filter(|_| wants).and_then(|text| line_of(text, test)).unwrap_or(attribute);
        let message = match (short.is_empty(), text.is_empty()) {
            (true, true) => self.kind.as_deref().unwrap_or_default().trim().to_owned(),
            (true, false) => text.to_owned(),
            (false, true) => short.to_owned(),
            (false, false) if text.starts_with(short) => text.to_owned(),
            (false, false) if short.contains(text) => short.to_owned(),
            (false, false) => format!("{short}\n\n{text}"),
        };
        cut(&message, LONGEST_MESSAGE).to_owned()
    }
}

fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|&at| text.is_char_boundary(at));
    &text[..end.unwrap_or(0)]
}

/// Whether the `message` of a failure of `test` leaves open what went wrong.
fn says_nothing(attribute: &str, test: &str) -> bool {
    let plain = attribute.trim_end_matches(['.', ':', '!']).to_lowercase();
    let is_name =
        attribute.strip_prefix("failed ").is_some_and(|name| !test.is_empty() && name.ends_with(test));
    SAYS_NOTHING.contains(&plain.as_str()) || is_name || is_place_of_panic(attribute)
}

/// The line of `text` that says what went wrong in the test `name`; `None` when there is only a stack trace, or
/// nothing.
fn line_of<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    from_traceback(text).or_else(|| from_pytest(text)).or_else(|| from_go(text)).or_else(|| first(text, name))
}

/// The exception after the last stack trace of Python: the others are its causes.
fn from_traceback(text: &str) -> Option<&str> {
    let (_, rest) = text.rsplit_once(TRACEBACK)?;
    let is_exception = |line: &&str| !line.is_empty() && !line.starts_with([' ', '\t', '|', '+']);
    rest.lines().map(str::trim_end).find(is_exception)
}

/// The first line that pytest marks as the error.
fn from_pytest(text: &str) -> Option<&str> {
    let marked = text.lines().filter_map(|line| line.strip_prefix("E  "));
    marked.map(str::trim).find(|line| !line.is_empty())
}

/// The first line that a test of Go has logged, or the error that an assertion of `testify` names below it; a panic.
fn from_go(text: &str) -> Option<&str> {
    let mut is_below = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("panic: ") {
            return Some(line);
        }
        if let Some((place, said)) = line.split_once(": ").or_else(|| Some((line.strip_suffix(':')?, ""))) {
            let at = place.rsplit_once(".go:").filter(|(file, _)| !file.contains(char::is_whitespace));
            if at.is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
            {
                if !said.trim().is_empty() {
                    return Some(said.trim());
                }
                is_below = true;
            }
        }
        if let Some(said) = line.strip_prefix("Error:").filter(|said| is_below && !said.trim().is_empty()) {
            return Some(said.trim());
        }
    }
    None
}

/// The first line that is neither the name of the test nor a part of a stack trace.
fn first<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().map(str::trim).find(|line| !line.is_empty() && !is_name(line, name) && !is_trace(line))
}

/// `Class::test`, with or without what PHPUnit adds about its data.
fn is_name(line: &str, name: &str) -> bool {
    let own = line.split(" with data set ").next().unwrap_or_default();
    let test = own.rsplit_once("::").map_or(own, |(_, test)| test);
    let name = name.split(" with data set ").next().unwrap_or_default();
    !name.is_empty() && test == name && !own.contains(' ')
}

/// Words that test runners and languages write around a failure.
fn is_trace(line: &str) -> bool {
    let begins = [
        "at ",
        "=== ",
        "--- FAIL",
        "--- SKIP",
        "stack backtrace:",
        "goroutine ",
        "# ./",
        "Stack trace:",
        "(in test file ",
        "in test file ",
        "(from function ",
    ];
    line == "FAIL" || begins.iter().any(|begin| line.starts_with(begin)) || is_place_of_panic(line)
}

/// The line of Rust above the message of a panic; older ones have the message in it, in quotes.
fn is_place_of_panic(line: &str) -> bool {
    line.starts_with("thread '")
        && line.split_once(" panicked at ").is_some_and(|(_, place)| !place.starts_with('\''))
        && !line.contains('\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_summed_up_by_the_line_that_says_what_went_wrong() {
        for (name, text, expected) in [
            // unittest, and an exception with a cause.
            (
                "t",
                "Traceback (most recent call last):\n  File \"t.py\", line 4, in t\n    self.assertEqual(3, 4)\n    ~~~~^^^\nAssertionError: 3 != 4\n",
                "AssertionError: 3 != 4",
            ),
            (
                "t",
                "Traceback (most recent call last):\n  File \"a\"\nKeyError: 1\n\nDuring handling of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n  File \"b\"\n\nValueError: bad\nmore",
                "ValueError: bad",
            ),
            // pytest.
            (
                "t",
                "def test_x():\n>       assert f() == 4\nE       assert 3 == 4\nE        +  where 3 = f()\n\nt.py:5: AssertionError",
                "assert 3 == 4",
            ),
            // Go, with and without testify.
            (
                "TestX",
                "=== RUN   TestX\n    x_test.go:7: got 3, want 4\n--- FAIL: TestX (0.00s)\n",
                "got 3, want 4",
            ),
            (
                "TestX",
                "=== RUN   TestX\n    x_test.go:7: \n        \tError Trace:\t/x/x_test.go:7\n        \tError:      \tNot equal: \n        \t            \texpected: 4\n",
                "Not equal:",
            ),
            (
                "TestX",
                "=== RUN   TestX\n--- FAIL: TestX (0.00s)\npanic: boom [recovered]\n\tpanic: boom\n",
                "panic: boom [recovered]",
            ),
            // Jest, in colours.
            (
                "x",
                "Error: \x1b[2mexpect(\x1b[22m\x1b[31mreceived\x1b[39m)\n\nExpected: 4\n    at Object.<anonymous> (x.test.js:3:1)",
                "Error: expect(received)",
            ),
            (
                "x",
                "\x1b[2m\x1b[22m\n    at a (b)\nAssertionError [ERR_ASSERTION]: 3 == 4",
                "AssertionError [ERR_ASSERTION]: 3 == 4",
            ),
            // Surefire.
            (
                "t",
                "org.opentest4j.AssertionFailedError: expected: <4> but was: <3>\n\tat a.B.t(B.java:7)",
                "org.opentest4j.AssertionFailedError: expected: <4> but was: <3>",
            ),
            // RSpec.
            (
                "t",
                "Failure/Error: expect(3).to eq 4\n\n  expected: 4\n       got: 3\n# ./spec/x_spec.rb:3",
                "Failure/Error: expect(3).to eq 4",
            ),
            // PHPUnit.
            (
                "testX",
                "Tests\\MyTest::testX\nFailed asserting that 3 matches expected 4.\n\n/x/MyTest.php:9",
                "Failed asserting that 3 matches expected 4.",
            ),
            (
                "testX with data set #0",
                "MyTest::testX with data set #0 (3, 4)\nFailed asserting that 3 is 4.",
                "Failed asserting that 3 is 4.",
            ),
            // Bats.
            (
                "t",
                "(from function `check' in file a.bash, line 2,\n in test file a.bats, line 3)\n  `check 3' failed with status 4",
                "`check 3' failed with status 4",
            ),
            ("t", "(in test file a.bats, line 3)\n  `[ 3 -eq 4 ]' failed", "`[ 3 -eq 4 ]' failed"),
            // Rust.
            (
                "x",
                "thread 'tests::x' (7) panicked at src/lib.rs:8:9:\nassertion `left == right` failed\n  left: 3",
                "assertion `left == right` failed",
            ),
            (
                "x",
                "thread 'x' panicked at 'boom', src/lib.rs:8:9",
                "thread 'x' panicked at 'boom', src/lib.rs:8:9",
            ),
        ] {
            assert_eq!(line_of(&without_colours(text), name), Some(expected), "{text}");
        }
        for text in ["", " \n", "\tat a.B.t(B.java:7)\n\tat c", "Traceback (most recent call last):\n  File"]
        {
            let found = line_of(text, "t");
            assert!(found.is_none() || found == Some(TRACEBACK), "{found:?}");
        }
        for nothing in ["Failed", "failed.", "error", "thread 'x' panicked at src/a.rs:1:2"] {
            assert!(says_nothing(nothing, "t"), "{nothing}");
        }
        assert!(!says_nothing("Failed asserting that 3 is 4", "") && !says_nothing("boom", "boom"));
        assert!(says_nothing("failed tests::x", "x"));
        for (attribute, text) in
            [("\x1b[31mFailed\x1b[0m", "\x1b[2mboom\n at x"), ("boom", "\x1b[31mboom\x1b[0m\n at x")]
        {
            let told = CaseMessage {
                text: text.to_owned(),
                attribute: Some(attribute.to_owned()),
                kind: None,
                is_cut: false,
            };
            assert_eq!(told.message("t"), "boom\n at x");
        }
        let trace = format!("{TRACEBACK}\n  File\nAssertionError: 3 != 4");
        for text in ["", "\n\nprinted"] {
            let told = CaseMessage {
                text: text.trim().to_owned(),
                attribute: Some(trace.clone()),
                kind: None,
                is_cut: false,
            };
            assert_eq!(told.message("t"), format!("AssertionError: 3 != 4\n\n{trace}{text}"));
        }
    }
}
