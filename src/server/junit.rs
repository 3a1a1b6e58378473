//! JUnit XML, as test runners of all kinds write it, to test cases.

use crate::server::store::status::TestResult;

/// One test.
#[derive(Clone, Debug, PartialEq)]
pub struct TestCase {
    /// `testcase@name`.
    pub name: String,
    /// `testcase@classname`.
    pub classname: String,
    /// `testcase@file`, else that of the suite.
    pub file: Option<String>,
    /// Seconds.
    pub run_time: f64,
    /// How it ended.
    pub result: TestResult,
    /// Of the failure or the skip.
    pub message: String,
}

/// Longest message that is kept, in bytes.
const LONGEST_MESSAGE: usize = 64 * 1024;

/// Reads a file. The error is a sentence for people, with a place.
pub fn parse(xml: &[u8]) -> Result<Vec<TestCase>, String> {
    let text = String::from_utf8_lossy(xml);
    let options =
        roxmltree::ParsingOptions { allow_dtd: false, nodes_limit: 2_000_000, ..Default::default() };
    let document =
        roxmltree::Document::parse_with_options(&text, options).map_err(|e| format!("not valid XML: {e}"))?;
    let root = document.root_element().tag_name().name();
    if !matches!(root, "testsuites" | "testsuite") {
        return Err(format!("not JUnit XML: the root is `{root}` (expected `testsuites` or `testsuite`)"));
    }
    let cases = document.descendants().filter(|node| node.has_tag_name("testcase"));
    Ok(cases.map(case).collect())
}

fn case(node: roxmltree::Node<'_, '_>) -> TestCase {
    let own = |name: &str| node.attribute(name).unwrap_or_default().to_owned();
    let suite_file = || node.ancestors().find_map(|suite| suite.attribute("file"));
    let child = |names: &[&str]| node.children().find(|child| names.contains(&child.tag_name().name()));
    let (result, about) = match (child(&["failure", "error"]), child(&["skipped"])) {
        (Some(failure), _) => (TestResult::Failure, Some(failure)),
        (None, Some(skipped)) => (TestResult::Skipped, Some(skipped)),
        (None, None) => (TestResult::Success, None),
    };
    let message = about.map(|node| {
        let text = node.text().map(str::trim).unwrap_or_default();
        if text.is_empty() { node.attribute("message").unwrap_or_default() } else { text }
    });
    let mut message = message.unwrap_or_default().to_owned();
    if message.len() > LONGEST_MESSAGE {
        let cut = (0..=LONGEST_MESSAGE).rev().find(|&at| message.is_char_boundary(at)).unwrap_or(0);
        message.truncate(cut);
    }
    let seconds: f64 = own("time").replace(',', "").trim().parse().unwrap_or(0.0);
    TestCase {
        name: own("name"),
        classname: own("classname"),
        file: node.attribute("file").or_else(suite_file).map(str::to_owned),
        run_time: if seconds.is_finite() && seconds >= 0.0 { seconds } else { 0.0 },
        result,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_read_from_nested_suites() {
        let xml = br#"<testsuites><testsuite file="s.c"><testsuite>
            <testcase classname="k" name="a" time="1,234.5"/>
            <testcase name="b" file="t.c" time="x"><failure message="m">text</failure></testcase>
            <testcase name="c"><skipped message="later"/></testcase>
            <testcase><error message="boom"/></testcase>
        </testsuite></testsuite></testsuites>"#;
        let cases = parse(xml).expect("valid");
        let brief: Vec<_> = cases.iter().map(|c| (c.name.as_str(), c.result, c.message.as_str())).collect();
        assert_eq!(
            brief,
            [
                ("a", TestResult::Success, ""),
                ("b", TestResult::Failure, "text"),
                ("c", TestResult::Skipped, "later"),
                ("", TestResult::Failure, "boom"),
            ]
        );
        assert_eq!((cases[0].run_time, cases[0].file.as_deref()), (1234.5, Some("s.c")));
        assert_eq!((cases[1].run_time, cases[1].file.as_deref()), (0.0, Some("t.c")));
    }

    #[test]
    fn what_is_not_junit_is_explained() {
        assert!(parse(b"<a><b></a>").is_err_and(|e| e.contains("not valid XML") && e.contains("1:")));
        assert!(parse(b"<html/>").is_err_and(|e| e.contains("`html`")));
        let bomb = b"<!DOCTYPE x [<!ENTITY a 'aaaa'>]><testsuite>&a;</testsuite>";
        assert!(parse(bomb).is_err());
    }
}
