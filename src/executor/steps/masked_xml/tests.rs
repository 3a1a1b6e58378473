//! Reports with secrets in them, and how the control plane reads them then.
#![expect(clippy::unwrap_used)]

use super::*;
use crate::protocol::Secret;

fn masked(text: &str, secrets: &[&str]) -> String {
    masked_bytes(text.as_bytes(), secrets)
}

fn masked_bytes(mut text: &[u8], secrets: &[&str]) -> String {
    let secrets: Vec<_> = secrets.iter().map(|value| Secret::new(*value)).collect();
    let mut out = Vec::new();
    let secrets = Secrets::new(&[], &secrets);
    assert!(copy(&mut text, &mut out, &secrets, &AtomicBool::new(false)).unwrap());
    String::from_utf8(out).unwrap()
}

#[test]
fn values_and_text_are_masked_and_markup_stays() {
    let secrets = ["testcase", "a<b>\"c\"&'d'", "two\nlines", "12345", "]]x]]"];
    for (text, expected) in [
        (r#"<testcase name="x testcase y" time='12345'/>"#, r#"<testcase name="x **** y" time='****'/>"#),
        (r#"<f m="a&lt;b&gt;&quot;c&#34;&amp;&apos;d&#x27;.">"#, r#"<f m="****.">"#),
        (r#"<f m='a&lt;b>"c"&amp;&apos;d&apos;'>"#, "<f m='****'>"),
        ("<f m=\"two&#10;lines\">a &amp; two\nlines</f>", "<f m=\"****\">a &#38; ****</f>"),
        ("<o><![CDATA[a<b>\"c\"&'d']]]]></o>", "<o>****]]</o>"),
        ("<o><![CDATA[]]x]]]]><![CDATA[]]></o>", "<o>****</o>"),
        ("<!-- testcase \"testcase --><a/>testcase", "<a/>****"),
        ("<!-- -- > testcase ->--><a b=\"testcase\"/>", "<a b=\"****\"/>"),
        ("<?xml version=\"1.0\"?>\n<a>&foo; &#xZ; & b</a>", "\n<a>&#38;foo; &#38;#xZ; &#38; b</a>"),
        // These have an end of their own, which is not that of a tag.
        ("<?p <a><!--?>testcase<?>testcase<?p ?testcase>?>.", "****."),
        ("<a/><?p testcase>testcase", "<a/>"),
        ("<a/><b testcase", "<a/><b testcase"),
        ("<a/><!-", "<a/><!-"),
        ("<a/><!--testcase--testcase>", "<a/>"),
        ("<!DOCTYPE a [<!ENTITY b \"testcase\"> <!ELEMENT c (d)>]><a>testcase</a>", "<a>****</a>"),
        ("<!doctype a [<b>]<!--><a>testcase</a>", "<a>****</a>"),
        ("no XML: testcase", "no XML: ****"),
    ] {
        assert_eq!(masked(text, &secrets), expected);
    }
}

#[test]
fn without_secrets_in_it_a_report_means_the_same() {
    let text = "<a b=\"1 &lt; 2\n\" c='x \"y\"'>t &gt; u<![CDATA[<&>]]><!-- c --></a>";
    let expected = "<a b=\"1 &#60; 2&#10;\" c='x &#34;y&#34;'>t &#62; u&#60;&#38;&#62;</a>";
    assert_eq!(masked(text, &["hunter22"]), expected);
}

#[test]
fn a_secret_that_ends_as_it_begins_takes_nothing_of_the_next_text() {
    let text = "<a>42 != q7wertyuq</a><b>57 != q7wertyuq</b><c>of q7wertyuq</c><d>Pass</d>";
    let expected = "<a>42 != ****</a><b>57 != ****</b><c>of ****</c><d>Pass</d>";
    assert_eq!(masked(text, &["q7wertyuq"]), expected);
    assert_eq!(masked("<a>x q7wertyuq</a>7wertyuq y", &["q7wertyuq"]), "<a>x ****</a> y");
}

#[test]
fn a_secret_is_found_in_text_as_readers_join_it() {
    for (text, expected) in [
        ("<f>token XY12-<![CDATA[more]]> refused</f>", "<f>token **** refused</f>"),
        ("<f><![CDATA[XY12]]><![CDATA[-more]]></f>", "<f>****</f>"),
        ("<f>XY12<!-- XY --><!-- 12 -->-more.</f>", "<f>****.</f>"),
        ("<f>a XY1<?pi x?>2-more</f>", "<f>a ****</f>"),
        ("<f>a <?pi <x> <!-- \"?>XY12-more</f>", "<f>a ****</f>"),
        ("<f>a XY<b c=\"XY12\">12-</b>more.</f>", "<f>a ****<b c=\"XY12\"></b>.</f>"),
        ("<f>XY<b/>12-<i/>mor.</f>XY12<g/>", "<f>XY<b/>12-<i/>mor.</f>XY12<g/>"),
        ("<f>XY&#49;<b/>2</f>-more", "<f>****<b/></f>"),
        ("<f>XY12-more XY<b/>12</f><f m='XY12-more'/>XY12", "<f>**** XY<b/>12</f><f m='****'/>XY12"),
    ] {
        assert_eq!(masked(text, &["XY12-more"]), expected);
    }
    for length in 0..5 {
        let (text, more) = (".".repeat(length), "]".repeat(length));
        let cdata = format!("<a><![CDATA[{text}]]><b/><![CDATA[{more}]]></a>XY12-more");
        assert_eq!(masked(&cdata, &["XY12-more"]), format!("<a>{text}<b/>{more}</a>****"));
    }
    let many = format!("<f>XY12{}-more</f>", "<b c=''/>".repeat(10_000));
    assert_eq!(masked(&many, &["XY12-more"]), many, "all of it comes, and nothing waits for ever");
}

#[test]
fn utf_16_is_masked_and_read_as_utf_8() {
    // Units of these have the bytes of `&`, `<` and `>`.
    let text = "<a b=\"\u{126} \u{3e26} \u{4e3c} \u{1f600} hunter22\">hunter22</a>";
    let expected = "<a b=\"\u{126} \u{3e26} \u{4e3c} \u{1f600} ****\">****</a>";
    let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let marked: Vec<u8> =
        std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(u16::to_be_bytes).collect();
    assert_eq!(masked_bytes(&little, &["hunter22"]), expected);
    assert_eq!(masked_bytes(&marked, &["hunter22"]), format!("\u{feff}{expected}"));
    let half = [little, vec![0x00, 0xd8, 0x3c]].concat();
    assert_eq!(masked_bytes(&half, &["hunter22"]), format!("{expected}\u{fffd}"));
}

#[test]
fn encodings_of_one_byte_are_masked_and_read_as_utf_8() {
    let of = |encoding: &str, text: &[u8]| {
        let head = format!("<?xml version=\"1.0\" encoding=\"{encoding}\"?>");
        masked_bytes(&[head.as_bytes(), text].concat(), &["pä€sswört", "<ü>"])
    };
    for (encoding, text) in [
        ("windows-1252", &b"<a b=\"\xe9 p\xe4\x80ssw\xf6rt\">p\xe4\x80ssw\xf6rt \xe9</a>"[..]),
        ("ISO-8859-15", b"<a b=\"\xe9 p\xe4\xa4ssw\xf6rt\">p\xe4\xa4ssw\xf6rt \xe9</a>"),
        // With entities, and in UTF-8, which many files are whatever they say.
        ("iso-8859-1", "<a b=\"&#xe9; p&#228;\u{20ac}sswört\">pä&#8364;ssw&#246;rt &#233;</a>".as_bytes()),
        ("latin1", b"<a b=\"\xe9 p\xe4\xe2\x82\xacssw&#246;rt\">p\xc3\xa4\x80ssw\xf6rt \xe9</a>"),
    ] {
        assert_eq!(of(encoding, text), "<a b=\"é ****\">**** é</a>", "{encoding}");
    }
    assert_eq!(of("cp1252", b"<a>\xe2\x82"), "<a>â‚");
    // In a file that says nothing, too, where other bytes stay as they are.
    let mut out = Vec::new();
    let secrets = Secrets::new(&[], &[Secret::new("pässwort")]);
    let mut text = &b"<a>p\xe4sswort \xe4</a>"[..];
    assert!(copy(&mut text, &mut out, &secrets, &AtomicBool::new(false)).unwrap());
    assert_eq!(out, b"<a>**** \xe4</a>");
}

#[test]
fn values_without_quotation_marks_are_masked_and_stray_marks_are_none() {
    for (text, expected) in [
        ("<t a=XY12-more b = XY12-more\n c=XY12-more/>", "<t a=**** b = ****\n c=****/>"),
        ("<t a=x&#32;XY12-more>XY12-more", "<t a=x&#32;****>****"),
        ("<t a=x'XY12-more'>", "<t a=x&#39;****&#39;>"),
        ("<t a=\"x\"XY12\" b=XY12-more \"c=\"XY12-more\">", "<t a=\"x\"XY12` b=**** `c=\"****\">"),
        ("<t =b=\"XY12-more\" a=\u{1b}[1m b>", "<t =b=\"****\" a='' b>"),
        ("<t a=XY12-more", "<t a=****"),
    ] {
        assert_eq!(masked(text, &["XY12-more"]), expected);
    }
}

#[test]
fn a_colour_is_no_part_of_a_secret_nor_of_the_text() {
    for text in [
        "XY\u{1b}[31m12-more",
        "XY12&#27;[1m-m\u{1b}[1;2;3more",
        "XY12&#x1b;[0m-more",
        "XY12&#0027;&#x5B;1;0m-more",
        "XY12\u{1b}\u{1b}[m[3\u{1b}[0m1m-more",
    ] {
        assert_eq!(masked(&format!("<f>{text}.</f>"), &["XY12-more"]), "<f>****.</f>");
        assert_eq!(masked(&format!("<f m='{text}'/>"), &["XY12-more"]), "<f m='****'/>");
        assert_eq!(masked(&format!("<f m={text}/>"), &["XY12-more"]), "<f m=****/>");
        let cdata = format!("<f><![CDATA[{}]]></f>", text.replace("&#27;", "\u{1b}"));
        let has_entities = text.contains('&') && !text.contains("&#27;");
        assert!(has_entities || masked(&cdata, &["XY12-more"]) == "<f>****</f>", "{cdata}");
    }
    // Nor is one that a secret has.
    for text in ["a\u{1b}[31mbcd\u{1b}[m", "a&#27;[31mb<b/>cd", "abcd"] {
        assert!(
            masked(&format!("<f>{text}.</f>"), &["a\u{1b}[31mbcd\u{1b}[m"]).starts_with("<f>****"),
            "{text}"
        );
    }
    // An escape that begins no sequence, or one only behind markup, is written as another byte.
    assert_eq!(masked("<f>\u{1b}[<b/>1m \u{1b}[2J 3m</f>", &["XY12"]), "<f>\u{1a}[<b/>1m \u{1a}[2J 3m</f>");
    let long = format!("<f>{}</f>", "0\u{1b}[31m".repeat(PIECE));
    assert_eq!(masked(&long, &["XY12"]), format!("<f>{}</f>", "0".repeat(PIECE)));
}

/// Reading as the control plane does it.
#[cfg(feature = "server")]
mod read {
    use super::*;
    use crate::server::junit::Cases;
    use crate::system::seeded;
    use proptest::prelude::*;
    use std::io::Cursor;

    /// All texts that are stored of a file.
    fn texts(file: &str) -> Vec<String> {
        let mut texts = Vec::new();
        for item in Cases::new(Cursor::new(file)) {
            match item {
                Ok(case) => {
                    texts.push(format!("{:?} {}", case.result, case.run_time));
                    texts.extend([case.name, case.classname, case.message]);
                    texts.extend([case.file, case.place].map(Option::unwrap_or_default));
                }
                Err(why) => texts.push(why.to_string()),
            }
        }
        texts
    }

    /// A text with colours in it, and with characters as entities, as the numbers say.
    fn written(text: &str, how: &[u8], is_raw: bool) -> String {
        let mut written = String::new();
        for (at, c) in text.chars().enumerate() {
            match how.get(at % how.len().max(1)).copied().unwrap_or_default() {
                1 => written += "\u{1b}[31m",
                2 => written += "\u{1b}[m",
                3 if !is_raw => written += "&#27;[0m",
                4 if !is_raw => written += "&#x1B;&#091;1;2m",
                _ => {}
            }
            match how.get((at + 1) % how.len().max(1)) {
                Some(5) if !is_raw => written += &format!("&#{};", u32::from(c)),
                Some(6) if !is_raw => written += &format!("&#x{:04X};", u32::from(c)),
                _ if is_raw => written.push(c),
                _ => match c {
                    '<' => written += "&lt;",
                    '&' => written += "&amp;",
                    '"' => written += "&quot;",
                    '\'' => written += "&apos;",
                    c => written.push(c),
                },
            }
        }
        written
    }

    const PIECES: [&str; 54] = [
        "<testsuite>",
        "<testsuite name=\"s\">",
        "</testsuite>",
        "<testcase ",
        "<testcase name=",
        "</testcase>",
        "<failure>",
        "<failure message=",
        "<error type='",
        "</failure>",
        "<skipped/>",
        "<system-out>",
        "</system-out>",
        "<x>",
        "</x>",
        " name=",
        " classname = ",
        " file=\"",
        " message='",
        " line=3",
        " status=",
        "name",
        "=",
        " ",
        "\n",
        "\"",
        "'",
        "\" ",
        "' ",
        "/>",
        "/",
        ">",
        "<",
        "<!--",
        "-->",
        "<![CDATA[",
        "]]>",
        "<?p ",
        "?>",
        "<!DOCTYPE x",
        "<!doctype x [",
        "]",
        "]>",
        "&",
        "&#27;[",
        "&#109;",
        ";",
        "\u{1b}",
        "\u{1b}[",
        "31",
        "m",
        "\u{1b}[31m",
        "text",
        "\u{0}",
    ];

    #[derive(Clone, Debug)]
    enum Part {
        Piece(usize),
        /// The secret, from and to these parts of it.
        Secret(usize, usize, Vec<u8>, bool),
    }

    fn part() -> impl Strategy<Value = Part> {
        let how = || prop::collection::vec(0..9u8, 0..4);
        prop_oneof![
            12 => (0..PIECES.len()).prop_map(Part::Piece),
            4 => (how(), any::<bool>()).prop_map(|(how, is_raw)| Part::Secret(0, 4, how, is_raw)),
            2 => (0..4usize, 0..5usize, how(), any::<bool>())
                .prop_map(|(from, to, how, is_raw)| Part::Secret(from, to, how, is_raw)),
        ]
    }

    #[test]
    fn no_secret_is_read_of_what_was_masked() {
        let secret = "[ab]{2}[0-9\"'<>&=/;m \\[-]{1,4}[yz]{3}";
        seeded::check(&(secret, prop::collection::vec(part(), 0..30)), |(secret, parts)| {
            let mut file = "<testsuite><testcase name='t'>".to_owned();
            for part in &parts {
                match part {
                    Part::Piece(piece) => file += PIECES[*piece],
                    Part::Secret(from, to, how, is_raw) => {
                        let (from, to) = (secret.len() * from / 4, secret.len() * to / 4);
                        file += &written(secret.get(from..to).unwrap_or_default(), how, *is_raw);
                    }
                }
            }
            let copy = masked(&file, &[&secret]);
            for text in texts(&copy) {
                prop_assert!(!text.contains(&secret), "{secret:?} of {file:?} by {copy:?} in {text:?}");
            }
            Ok(())
        });
    }

    #[test]
    fn whatever_is_no_secret_is_read_as_it_was() {
        let text = "[a-z0-9\"'<>&=/;m \\[\\]ö-]{0,12}";
        let how = || prop::collection::vec(0..9u8, 0..4);
        let value = (text, how(), 0..3usize);
        let body = prop::collection::vec((text, how(), 0..6usize), 0..4);
        let test = (value.clone(), value.clone(), value, body);
        let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) };
        proptest!(config, |(tests in prop::collection::vec(test, 0..4))| {
            let attribute = |(text, how, quote): &(String, Vec<u8>, usize)| {
                let quote = ["\"", "'", ""][*quote];
                let bare = text.replace([' ', '>'], "_");
                let bare = written(&format!("x{}x", bare.trim_matches('/')), how, false);
                let quoted = written(text, how, false).replace('ö', "&#246;");
                format!("{quote}{}{quote}", if quote.is_empty() { bare } else { quoted })
            };
            let mut file = "<?xml version=\"1.0\"?><!DOCTYPE testsuite>\n<testsuite>".to_owned();
            for (name, class, message, body) in &tests {
                let [name, class, message] = [name, class, message].map(attribute);
                file += &format!("<testcase name={name} classname = {class} ><failure message={message} >");
                for (text, how, kind) in body {
                    match kind {
                        0 => file += &format!("<![CDATA[{}]]>", written(&text.replace("]]>", ""), how, true)),
                        1 => file += &format!("<!--{}-->", text.replace('-', "")),
                        2 => file += "<b c='d>'/>",
                        _ => file += &written(text, how, false),
                    }
                }
                file += "</failure></testcase>";
            }
            file += "</testsuite>";
            let copy = masked(&file, &["hunter22"]);
            let of_cases = |file: &str| {
                let mut texts = texts(file);
                // Places in the file are others.
                texts.iter_mut().filter(|text| text.contains("(at ")).for_each(|text| text.truncate(20));
                texts
            };
            prop_assert_eq!(of_cases(&copy), of_cases(&file), "{:?} by {:?}", file, copy);
        });
    }
}
