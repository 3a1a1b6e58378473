//! Reading of JUnit XML, whole and broken.

use super::summary::LONGEST_MESSAGE;
use super::*;
use std::io::Cursor;

fn parse(xml: &[u8]) -> Result<Vec<TestCase>, String> {
    Cases::new(Cursor::new(xml)).map(|case| case.map_err(|e| e.to_string())).collect()
}

/// The tests that are read, and what is said of the file.
fn read(xml: &[u8]) -> (Vec<TestCase>, String) {
    let (mut cases, mut remark) = (Vec::new(), String::new());
    for item in Cases::new(Cursor::new(xml)) {
        assert_eq!(remark, "", "nothing follows what is said of the file");
        match item {
            Ok(case) => cases.push(case),
            Err(why) => remark = why.to_string(),
        }
    }
    (cases, remark)
}

fn names(cases: &[TestCase]) -> Vec<&str> {
    cases.iter().map(|case| case.name.as_str()).collect()
}

#[test]
fn cases_are_read_from_nested_suites() {
    let xml = br#"<testsuites><testsuite file="s.c"><testsuite>
        <testcase classname="k" name="a" time="1,234.5"/>
        <testcase name="b" file="t.c"><failure message="m">text</failure></testcase>
        <testcase name="c"><skipped message="later"/></testcase>
        <testcase><error message="boom"/></testcase>
    </testsuite></testsuite></testsuites>"#;
    let cases = parse(xml).expect("valid");
    let brief: Vec<_> = cases.iter().map(|c| (c.name.as_str(), c.result, c.message.as_str())).collect();
    assert_eq!(
        brief,
        [
            ("a", TestResult::Success, ""),
            ("b", TestResult::Failure, "m\n\ntext"),
            ("c", TestResult::Skipped, "later"),
            ("", TestResult::Failure, "boom"),
        ]
    );
    assert_eq!((cases[0].run_time, cases[0].file.as_deref()), (1234.5, Some("s.c")));
    assert_eq!((cases[1].run_time, cases[1].file.as_deref()), (0.0, Some("t.c")));
}

#[test]
fn a_suite_names_the_file_of_its_own_tests_only() {
    let xml = br#"<testsuites><testsuite file="a.c"><testsuite file="b.c"><testcase/></testsuite><testcase/></testsuite>
        <testsuite><properties><property/></properties><testcase/></testsuite></testsuites>"#;
    let files: Vec<_> = parse(xml).expect("valid").into_iter().map(|case| case.file).collect();
    assert_eq!(files, [Some("b.c".to_owned()), Some("a.c".to_owned()), None]);
}

#[test]
fn what_is_not_junit_is_explained() {
    assert!(parse(b"<html/>").is_err_and(|e| e.contains("`html`")));
    assert!(parse(b"").is_err() && parse(b"text").is_err());
    let deep = format!("<testsuite>{}", "<a>".repeat(super::element::DEEPEST));
    assert!(parse(deep.as_bytes()).is_err_and(|e| e.contains("in each other")));
}

#[test]
fn what_a_document_type_declares_stands_for_nothing() {
    let xml = b"<!DOCTYPE x [<!ENTITY a 'aaaa'>]><testsuite><testcase name='&a;'/></testsuite>";
    assert_eq!(parse(xml).expect("read")[0].name, "&a;");
}

#[test]
fn bytes_and_entities_that_xml_does_not_know_lose_nothing() {
    let xml = b"\xef\xbb\xbf<?xml version=\"1.0\" encoding=\"UTF-8\"?><testsuite>
        <testcase name=\"a &lt;b&gt; &nbsp; &#27;[1m & c &#x41;&#0;\" classname=\"\x1b\xff\">
        <failure>\n \x1b[31mred\x00 &nbsp; & <![CDATA[<x>]]> &#65;&amp; \n</failure></testcase>
        <testcase name='b' name='c' broken/></testsuite>";
    let (cases, remark) = read(xml);
    assert_eq!(cases[0].name, "a <b> &nbsp;  & c A\u{fffd}");
    assert_eq!(cases[0].classname, "\u{fffd}\u{fffd}");
    assert_eq!(cases[0].message, "red\u{fffd} &nbsp; & <x> A&");
    assert_eq!(cases[1].name, "b");
    assert_eq!(
        remark,
        "read with mistakes: `testcase` has the attribute `name` twice: the first counts (at 6:6); \
         `testcase` has a malformed attribute, such as one with quotation marks inside of its value: it counts as far as it can be read (at 6:6); \
         read, but 1 text of it had bytes that are no UTF-8 and 3 texts of it had control characters, which were replaced"
    );
}

#[test]
fn the_tests_before_a_cut_count() {
    let (cases, why) = read(b"<testsuite>\n<testcase name='a'/>\n<testcase name='b'>");
    assert_eq!((names(&cases), why.contains("at 3:20: it ends")), (vec!["a"], true), "{why}");
    let (cases, why) = read(b"<testsuite><testcase name='a'/><testcase name='b'><failure message='no'>tra");
    assert_eq!((names(&cases), why.contains("it ends")), (vec!["a", "b"], true), "{why}");
    assert_eq!((cases[1].result, cases[1].message.as_str()), (TestResult::Failure, "no\n\ntra"));
    let (cases, why) = read(b"<testsuite><testcase name='b'><failure message='no'/></testcase><testcase na");
    assert_eq!((names(&cases), why.contains("not valid XML at 1:")), (vec!["b"], true), "{why}");
}

#[test]
fn a_tag_that_is_cut_off_counts_as_far_as_it_goes() {
    let two = "<testsuite name='x'><testcase name='t1' classname='c'/><testcase name='t2' classname='c'>";
    for (cut, message) in [
        ("<failure message=\"oh", "oh"),
        ("<failure message=\"oh\"/", "oh"),
        ("<failure message=\"oh\" type='X", "oh"),
        ("<failure message='oh\"", "oh\""),
        ("<failure mess", ""),
        ("<failure", ""),
        ("<x:error type='OSError'", "OSError"),
        ("<ERROR ", ""),
        ("<system-out>a</system-out><error", ""),
    ] {
        let (cases, why) = told(&format!("{two}{cut}"));
        let failed = ("t2".to_owned(), TestResult::Failure, message.to_owned());
        assert_eq!(cases[1..], [failed], "{cut}");
        assert!(why.contains("not valid XML at 1:") && !why.contains("`t2`"), "{cut}: {why}");
    }
    // Nobody knows what these would have been.
    for cut in
        ["<err", "<f", "<", "</", "</testcase", "<!", "<![CDATA[x", "<system-out><failure", "<rerunFailure"]
    {
        let (cases, why) = told(&format!("{two}{cut}"));
        assert_eq!(cases.len(), 1, "{cut}");
        assert!(why.contains("the test `t2` is left out, since its result is not known"), "{cut}: {why}");
    }
    // The tag of a test, and a failure beside the tests.
    for open in ["", "<testcase name='t2'><failure/>", "<testcase name='t2'>"] {
        let (cases, why) = told(&format!("<testsuite>{open}<testcase name='t3' class"));
        assert_eq!(cases.len(), usize::from(open.ends_with("/>")), "{open}");
        assert!(why.contains("the test `t3` is left out"), "{open}: {why}");
        let (cases, _) = told(&format!("<testsuite>{open}<testcase name='t3' status='failed'"));
        assert_eq!(cases.last().map(|case| (&*case.0, case.1)), Some(("t3", TestResult::Failure)), "{open}");
    }
    let (cases, why) = told("<testsuite name='s'><testcase name='a'/><error message='setu");
    assert_eq!(cases[1], ("error".to_owned(), TestResult::Failure, "setu".to_owned()), "{why}");
}

#[test]
fn reading_goes_on_after_elements_that_are_closed_wrongly() {
    let xml = b"<testsuites><testsuite file='f'>\n<testcase name='a'><failure>got <foo> & <br> here</failure></testcase>
        <testcase name='b'><failure message='x'><testcase name='c'></testsuite><testcase name='d'/></testsuites>";
    let (cases, remark) = read(xml);
    // The third was never closed: nobody knows how it ended.
    assert_eq!(names(&cases), ["a", "b", "d"]);
    assert_eq!(cases[0].message, "got  &  here");
    assert_eq!((cases[1].file.as_deref(), cases[2].file.as_deref()), (Some("f"), None));
    assert!(
        remark.starts_with("read with mistakes: an element is not closed before `failure` is (at 2:"),
        "{remark}"
    );
    let (cases, remark) = read(b"<testsuite><testcase name='a'/>\n</testsuites>");
    assert_eq!(names(&cases), ["a"]);
    assert!(remark.contains("2:14: it ends"), "{remark}");
}

#[test]
fn the_summary_of_a_failure_is_what_its_attribute_says() {
    let xml = b"<testsuite><testcase><failure message='AssertionError: 3 != 4'>Traceback:
  File</failure></testcase><testcase><failure message='x'>x: more</failure></testcase>
  <testcase><error type='OSError'/></testcase><testcase><error type='OSError' message=' '>
  </error></testcase></testsuite>";
    let cases = parse(xml).expect("valid");
    assert_eq!(cases[0].message, "AssertionError: 3 != 4\n\nTraceback:\n  File");
    assert_eq!(cases[1].message, "x: more");
    // A failure that says nothing more has its type at least.
    assert_eq!([&*cases[2].message, &*cases[3].message], ["OSError", "OSError"]);
    let xml =
        b"<testsuite><testcase name='t'><failure message='Failed'>    x_test.go:7: no</failure></testcase>
  <testcase><failure message='Failed'>x</failure></testcase></testsuite>";
    let cases = parse(xml).expect("valid");
    assert_eq!(cases[0].message, "no\n\nx_test.go:7: no");
    assert_eq!(cases[1].message, "x");
}

#[test]
fn the_first_failure_counts_and_long_messages_are_cut() {
    let long = "ö".repeat(LONGEST_MESSAGE);
    let xml = format!(
        "<testsuite><testcase><skipped>s</skipped><failure><p>{long}</p>more</failure><error>second</error></testcase></testsuite>"
    );
    let cases = parse(xml.as_bytes()).expect("valid");
    assert_eq!(cases[0].result, TestResult::Failure);
    assert_eq!(cases[0].message, "ö".repeat(LONGEST_MESSAGE / 2));
    // Text behind the cut would fit, and is no part of the message.
    let xml = format!("<testsuite><testcase><failure>a{long}<![CDATA[b]]></failure></testcase></testsuite>");
    assert_eq!(parse(xml.as_bytes()).expect("valid")[0].message.len(), LONGEST_MESSAGE - 1);
}

/// The reading of a broken file: each test with its result, and the remark.
fn told(xml: &str) -> (Vec<(String, TestResult, String)>, String) {
    let (cases, remark) = read(xml.as_bytes());
    (cases.into_iter().map(|case| (case.name, case.result, case.message)).collect(), remark)
}

#[test]
fn what_is_guessed_or_left_out_is_said_with_its_place() {
    for (inside, name, said) in [
        (
            "<testcase name=foo classname='c'/>",
            "foo",
            "`testcase` has an attribute without quotation marks around its value (at 2:1)",
        ),
        (
            "<testcase name='a' name='b'/>",
            "a",
            "`testcase` has the attribute `name` twice: the first counts (at 2:1)",
        ),
        (
            "<testcase name='a' time='soon'/>",
            "a",
            "the `time` of the test `a` is `soon`, which is no number of seconds: it counts as 0 (at 2:1)",
        ),
        ("<testcase name='a' time='-1'/>", "a", "`-1`, which is no number of seconds"),
        ("<testcase name=\"a \"b\" c\"/>", "a ", "`testcase` has a malformed attribute"),
        (
            "<testcase name='a'/> words",
            "a",
            "there is text between the elements of `testsuite`, which is left out (at 2:21)",
        ),
        (
            "<testcase name='a'/></testsuite>\nwords<testsuite>",
            "a",
            "there is text behind the end of the root, which is left out (at 2:33); `testsuite` stands behind the end of the root (at 3:6)",
        ),
        (
            "<testcase name='a'/><testsuite name='s' errors='1' failures='2'/>",
            "a",
            "`testsuite` `s` counts 3 failures and errors, of which 0 are in it: the others are not stored (at 2:21)",
        ),
    ] {
        let (cases, remark) = told(&format!("<testsuite>\n{inside}</testsuite>"));
        assert_eq!(cases, [(name.to_owned(), TestResult::Success, String::new())], "{inside}");
        assert!(remark.contains(said), "{inside}: {remark}");
    }
    let (cases, remark) = told("junk\n<testsuites><testsuite><testcase name='a'/></testsuite></testsuites>");
    assert_eq!(
        (cases.len(), remark.as_str()),
        (1, "read with mistakes: there is text before the root, which is left out (at 1:1)")
    );
    // A file as it should be gets no remark.
    let (_, remark) = told(
        "<testsuites failures='1' errors='0'><testsuite name='s' failures='1'><properties/>\n<testcase name='vector&lt;int&gt; Result<error>' time='1,5' status='run' result='completed'/><testcase><failure/></testcase><system-out>a <b> c</b></system-out></testsuite>\n</testsuites>\n",
    );
    assert_eq!(remark, "");
    // Of many the first are told.
    let many = format!("<testsuite>{}</testsuite>", "<testcase name=a/>".repeat(9));
    let (cases, remark) = told(&many);
    assert!(
        cases.len() == 9 && remark.ends_with("; 4 more") && remark.matches("(at 1:").count() == 5,
        "{remark}"
    );
    // The text before a cut is given, too.
    let (_, remark) = told("<testsuite><testcase name=a/><testcase");
    assert!(
        remark.starts_with("not valid XML at 1:")
            && remark.contains("; what stands before was read with mistakes: "),
        "{remark}"
    );
}

#[test]
fn nothing_that_may_have_failed_is_a_success() {
    use TestResult::{Failure, Success};
    for (inside, expected) in [
        // Elements that are torn, misspelled, in others, or in no test.
        ("<testcase name='a'><failure message='m'</testcase>", vec![("a", Failure, "m")]),
        ("<testcase name='a' <failure message='m'/></testcase>", vec![("a", Failure, "m")]),
        (
            "<testcase name='a' <error/></testcase><testcase name='b'/>",
            vec![("a", Failure, ""), ("b", Success, "")],
        ),
        ("<testcase name='a'>< failure/></testcase><testcase name='b'/>", vec![("b", Success, "")]),
        ("<testcase name='a'><Failure message='m'/></testcase>", vec![("a", Failure, "m")]),
        ("<testcase name='a'><failed>m</failed></testcase>", vec![("a", Failure, "m")]),
        (
            "<testcase name='a'><result><failure>m <error> n</error> o</failure></result></testcase>",
            vec![("a", Failure, "m  n o")],
        ),
        ("<testcase name='a'><system-out>x<failure message='m'/></testcase>", vec![("a", Failure, "")]),
        ("<testcase name='a'><system-out>x <failure/> y</system-out></testcase>", vec![("a", Success, "")]),
        ("<testcase name='a'><flakyFailure><failure/></flakyFailure></testcase>", vec![("a", Success, "")]),
        (
            "<error message='m'>t</error><testcase name='a'/>",
            vec![("error", Failure, "m\n\nt"), ("a", Success, "")],
        ),
        ("<failure message='m'/>", vec![("failure", Failure, "m")]),
        // Tests that say so themselves, and those that nobody closed.
        ("<testcase name='a' status='FAILED'/>", vec![("a", Failure, "FAILED")]),
        ("<testcase name='a' result='error'><failure message='m'/></testcase>", vec![("a", Failure, "m")]),
        (
            "<testcase name='a'><testcase name='b'><failure message='m'/></testcase>",
            vec![("b", Failure, "m")],
        ),
        ("<testcase name='a'><system-out>", vec![]),
        // A quotation mark too few: what it swallows is no success, nor is it as a runner writes it that masks secrets.
        (
            "<testcase name='a&#62;&#60;failure message='m/></testcase>",
            vec![("a><failure message=", Failure, "")],
        ),
        ("<testcase name='a&#62;&#60;/testcase&#62;&#60;testcase name='b`></testcase>", vec![]),
        (
            "<testcase name='a><failure message='m/></testcase><testcase name='b'/>",
            vec![("a><failure message=", Failure, ""), ("b", Success, "")],
        ),
        ("<testcase name='a></testcase><testcase name='b'></testcase>", vec![]),
    ] {
        let (cases, remark) = told(&format!("<testsuite name='s'>{inside}</testsuite>"));
        let brief: Vec<_> =
            cases.iter().map(|(name, result, message)| (&**name, *result, &**message)).collect();
        assert_eq!(brief, expected, "{inside}: {remark}");
        let is_plain = inside.contains("flaky")
            || inside.contains("y</system-out>")
            || inside.contains("atus=")
            || inside.contains("result=");
        assert_eq!(remark.is_empty(), is_plain || inside.contains("<result>"), "{inside}: {remark}");
    }
    let (cases, _) =
        read(b"<testsuites><testsuite name='s' file='f'><error message='m'/></testsuite></testsuites>");
    assert_eq!((cases[0].classname.as_str(), cases[0].file.as_deref()), ("s", Some("f")));
}

/// A secret is masked where it is a value or text. No sentence about a file has other words of it.
#[test]
fn sentences_tell_no_names_of_others() {
    for (inside, said) in [
        ("</tok3n_ab>", "an element is closed, and was not open"),
        ("<tok3n_ab><testcase name='t'/>", "an element is not closed before `testsuite` is"),
        ("<testcase><tok3n_ab></testcase>", "an element is not closed before `testcase` is"),
        ("<testcase></tok3n_ab></testcase>", "an element is closed, and was not open"),
        ("<tok3n_ab name='a' name='b'/>", "an element has the attribute `name` twice"),
        ("<tok3n_ab name=x/>", "an element has an attribute without"),
        ("<tok3n_ab 'x/>", "an element has a malformed attribute"),
        ("<tok3n_ab 'x <testcase name='b'/>", "the tag of an element does not end"),
        ("</testsuite><tok3n_ab/><testsuite>", "an element stands behind the end of the root"),
    ] {
        let (_, remark) = told(&format!("<testsuite>{inside}</testsuite>"));
        assert!(remark.contains(said) && !remark.contains("tok3n"), "{inside}: {remark}");
    }
    let (_, remark) = told("<tok3n_ab/>");
    assert_eq!(remark, "not JUnit XML: its root is an element (expected `testsuites` or `testsuite`)");
}

#[test]
fn seconds_are_read_as_places_write_them() {
    for (text, expected) in [
        ("", Some(0.0)),
        ("1.5", Some(1.5)),
        (" 2 ", Some(2.0)),
        ("1,234.5", Some(1234.5)),
        ("1.234,5", Some(1234.5)),
        ("0,25", Some(0.25)),
        ("1,234,567", Some(1_234_567.0)),
        ("1e-3", Some(0.001)),
        ("x", None),
        ("-1", None),
        ("NaN", None),
        ("inf", None),
        ("00:01", None),
        ("1.5s", None),
    ] {
        assert_eq!(seconds(text), expected, "{text}");
    }
}

#[test]
fn output_tells_what_a_failure_that_says_nothing_leaves_open() {
    use TestResult::{Failure, Success};
    for (case, result, message) in [
        // CTest writes so.
        (
            "<testcase name='a'><failure message='Failed'/><system-out>\nboom at x.c:3\nend</system-out></testcase>",
            Failure,
            "boom at x.c:3\nend",
        ),
        ("<testcase name='a'><failure message='m'/><system-out>o</system-out></testcase>", Failure, "m"),
        ("<testcase name='a'><failure>m</failure><system-err>o</system-err></testcase>", Failure, "m"),
        (
            "<testcase name='a'><failure message='Failed'/><properties><p>no</p></properties><system-out/></testcase>",
            Failure,
            "Failed",
        ),
        (
            "<testcase name='a'><error/><system-out>o</system-out><system-err>e</system-err></testcase>",
            Failure,
            "oe",
        ),
        ("<testcase name='a'><system-out>o</system-out></testcase>", Success, ""),
    ] {
        let text = format!("<testsuite>{case}</testsuite>");
        let (found, why) = read(text.as_bytes());
        let found: Vec<_> = found.iter().map(|case| (case.result, case.message.as_str())).collect();
        assert_eq!((found, why), (vec![(result, message)], String::new()), "{case}");
    }
}
