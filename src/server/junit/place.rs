//! The place of a failure: the line of its test at which it was noticed, which stands in the text as a rule; attributes
//! have the line at which the test begins, where they have one.

/// Longest place that is kept, in bytes: a path as long as systems have them.
const LONGEST: usize = 4096;
/// Parts of paths of code that is nobody's own.
const FOREIGN: [&str; 6] = ["node_modules", "site-packages", "dist-packages", "/vendor/", "/usr/", "/nix/"];
/// Characters that stand around a path.
const AROUND: &str = "()[]{}<>\"'`,;=|";
/// Parts of names that tests have.
const TESTS: [&str; 2] = ["test", "spec"];

/// File and line as attributes name them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) file: Option<String>,
    pub(super) line: Option<String>,
}

impl Spot {
    /// `file:line`, where both are known. `else_file` stands in for the file.
    fn shown(&self, else_file: Option<&str>) -> Option<String> {
        let line = self.line.as_deref().map(str::trim).filter(|line| is_number(line))?;
        let file = self.file.as_deref().or(else_file)?;
        Some(format!("{file}:{line}"))
    }
}

/// The place of a failure as `file:line`; `None` where no line is known. `test` and `failure` are what the tags of the two
/// say, `text` is the message.
pub(super) fn of(test: &Spot, classname: &str, failure: &Spot, text: &str) -> Option<String> {
    // Some runners have the line behind the name of the file.
    let file = test.file.as_deref().map(|file| match file.rsplit_once(':') {
        Some((file, line)) if is_number(line) => file,
        _ => file,
    });
    let of_failure = failure.shown(None);
    let named = of_failure.or_else(|| match file {
        Some(file) => {
            let line = places(text).find(|(path, _)| base(path) == base(file)).map(|(_, line)| line);
            line.map(|line| format!("{file}:{line}"))
        }
        None => {
            places(text).find(|(path, _)| is_of(path, classname)).map(|(path, line)| format!("{path}:{line}"))
        }
    });
    // Deno has the file as the class.
    let class = Some(classname).filter(|class| class.contains(['/', '\\']));
    let begins = Spot { file: file.map(str::to_owned), line: test.line.clone() };
    named.or_else(|| begins.shown(class)).filter(|place| place.len() <= LONGEST)
}

/// Paths with lines in a text, in its order: `path:7`, `path:line 7`, `File "path", line 7`.
fn places(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.match_indices([':', '"']).filter_map(|(at, mark)| {
        let (before, after) = (&text[..at], &text[at + 1..]);
        let after = match mark {
            "\"" => after.strip_prefix(", line ")?,
            _ => after.strip_prefix("line ").unwrap_or(after),
        };
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let line = after.get(..digits).filter(|line| is_number(line))?;
        let begin = match mark {
            "\"" => before.rfind('"'),
            _ => before.rfind(|c: char| c.is_whitespace() || AROUND.contains(c)),
        };
        let path = begin.map_or(before, |at| {
            before[at..].trim_start_matches(|c: char| c.is_whitespace() || AROUND.contains(c))
        });
        let path = path.strip_prefix("file://").unwrap_or(path);
        is_file(path).then_some((path, line))
    })
}

/// Whether a path ends in a name with an extension of letters.
fn is_file(path: &str) -> bool {
    base(path).rsplit_once('.').is_some_and(|(stem, extension)| {
        !stem.is_empty()
            && (1..=6).contains(&extension.len())
            && extension.starts_with(|c: char| c.is_ascii_alphabetic())
            && extension.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+')
    })
}

/// Whether a file seems to be that of a test of this class.
fn is_of(path: &str, classname: &str) -> bool {
    let stem = base(path).split('.').next().unwrap_or_default();
    let is_class = classname.rsplit(['.', '/', '\\', ':', '$']).any(|part| part == stem);
    let small = path.to_ascii_lowercase();
    let is_foreign = FOREIGN.iter().any(|part| small.contains(part));
    !is_foreign && (is_class || TESTS.iter().any(|part| small.contains(part)))
}

fn base(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or_default()
}

fn is_number(text: &str) -> bool {
    (1..=7).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_failed_is_found_in_what_test_runners_write() {
        for (file, line, class, text, expected) in [
            // pytest: the attributes count from 0, and name the beginning.
            (
                "t/test_x.py",
                "3",
                "t.test_x",
                "assert 3 == 4\n\ndef test():\n>   assert\nE   assert 3 == 4\n\nt/test_x.py:5: AssertionError",
                "t/test_x.py:5",
            ),
            (
                "",
                "",
                "t.test_x",
                "assert\n\nlib/x.py:9: in f\nt/test_x.py:5: AssertionError",
                "t/test_x.py:5",
            ),
            // unittest, whose traceback begins with the test.
            (
                "tests/test_a.py",
                "",
                "A",
                "Traceback (most recent call last):\n  File \"/w/tests/test_a.py\", line 4, in t\n  File \"/usr/lib/python3/unittest/case.py\", line 9, in f\nAssertionError",
                "tests/test_a.py:4",
            ),
            (
                "",
                "",
                "A",
                "  File \"/usr/lib/python3/unittest/case.py\", line 9, in f\n  File \"a b/test_a.py\", line 4, in t",
                "a b/test_a.py:4",
            ),
            // PHPUnit, minitest, GoogleTest, unittest-xml-reporting without a place in the text.
            (
                "/w/tests/MyTest.php",
                "9",
                "MyTest",
                "MyTest::testX\nFailed asserting\n\n/w/tests/MyTest.php:12",
                "/w/tests/MyTest.php:12",
            ),
            ("test/x_test.rb", "12", "X", "Expected: 3\n  Actual: 4", "test/x_test.rb:12"),
            // Go.
            ("", "", "example.com/x", "=== RUN   TestX\n    x_test.go:7: got 3\n", "x_test.go:7"),
            (
                "",
                "",
                "example.com/x",
                "panic: boom\n\n\t/usr/lib/go/src/testing/testing.go:1 +0x1\n\t/w/x_test.go:7 +0x2",
                "/w/x_test.go:7",
            ),
            // RSpec.
            (
                "./spec/x_spec.rb",
                "",
                "spec.x_spec",
                "Failure/Error: expect\n./lib/x.rb:1:in `f'\n./spec/x_spec.rb:3:in `block'",
                "./spec/x_spec.rb:3",
            ),
            // Jest, with and without `file`; Playwright; node.
            (
                "src/x.test.js",
                "",
                "x",
                "Error: expect(received)\n    at f (/w/node_modules/expect/x.js:1:2)\n    at Object.<anonymous> (/w/src/x.test.js:3:14)",
                "src/x.test.js:3",
            ),
            (
                "",
                "",
                "x adds",
                "Error\n    at f (/w/node_modules/jest-test/x.js:1:2)\n    at Object.<anonymous> (/w/src/x.test.js:3:14)",
                "/w/src/x.test.js:3",
            ),
            ("", "", "x", "at TestContext (file:///w/x.test.mjs:8:1)", "/w/x.test.mjs:8"),
            // JUnit of Java, .NET.
            (
                "",
                "",
                "a.b.Calc",
                "java.lang.AssertionError\n\tat org.junit.Assert.fail(Assert.java:89)\n\tat a.b.Calc.adds(Calc.java:7)",
                "Calc.java:7",
            ),
            ("", "", "A.Calc", "   at A.Calc.Adds() in C:\\w\\Calc.cs:line 12", "C:\\w\\Calc.cs:12"),
            // Rust, ExUnit, Deno.
            ("", "", "x", "thread 'tests::x' panicked at tests/cli.rs:8:9:\nboom", "tests/cli.rs:8"),
            (
                "test/x_test.exs:12",
                "",
                "X",
                "** (ExUnit)\n  test/x_test.exs:14: (test)",
                "test/x_test.exs:14",
            ),
            ("", "3", "./x.ts", "boom", "./x.ts:3"),
            // Neither times, versions, addresses nor columns are places.
            ("", "", "x", "at 10:30:00 version 1.2:3 http://10.0.0.1:80/ ::1", ""),
            ("", "x", "x", "boom", ""),
            ("a.c", "", "x", "b.c:3: boom", ""),
        ] {
            let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
            let spot = Spot { file: some(file), line: some(line) };
            let found = of(&spot, class, &Spot::default(), text);
            assert_eq!(found.unwrap_or_default(), expected, "{text}");
        }
        let failure = Spot { file: Some("b.c".to_owned()), line: Some(" 4 ".to_owned()) };
        assert_eq!(of(&Spot::default(), "", &failure, "x_test.c:3").as_deref(), Some("b.c:4"));
    }
}
