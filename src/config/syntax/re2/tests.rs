//! Meanings of patterns, and texts that are no pattern.

#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;
use crate::config::syntax::Pattern;
use proptest::prelude::*;

/// For each pattern, texts that it matches as a whole, and texts that it does not.
const MEANINGS: &[(&str, &[&str], &[&str])] = &[
    // Perl's classes are of ASCII.
    (r"\d+", &["42"], &["٤٢", "x"]),
    (r"\D", &["٤", "x"], &["4"]),
    (r"\w+", &["a_1"], &["é"]),
    (r"\W", &["é", " "], &["a"]),
    (r"\s", &[" ", "\t"], &["\u{a0}", "\u{b}"]),
    (r"\S", &["\u{a0}", "x"], &[" "]),
    (r"a\b.*", &["a é", "aé"], &["ab"]),
    (r"a\Bb", &["ab"], &["a"]),
    (r"[\d-z]+", &["1-z"], &["y"]),
    (r"[^\d\s]", &["x", "٤"], &["1", " "]),
    (r"[\D1]", &["1", "x"], &["2"]),
    // A `{` that repeats nothing stands for itself.
    ("a{x}", &["a{x}"], &["a"]),
    ("a{,2}", &["a{,2}"], &["aa"]),
    ("a{01}", &["a{01}"], &["a"]),
    ("a{", &["a{"], &["a"]),
    ("a}", &["a}"], &["a"]),
    ("a{2}", &["aa"], &["a", "aaa"]),
    ("a{2,}", &["aa", "aaaa"], &["a"]),
    ("a{2,3}?", &["aa", "aaa"], &["aaaa"]),
    // Quoted text.
    (r"\Qa.b\E", &["a.b"], &["axb"]),
    (r"\Qa.b", &["a.b"], &["axb"]),
    (r"\Q(\E+x", &["((x"], &["x"]),
    (r"x\Q\E", &["x"], &[]),
    (r"\Qa\b\E", &[r"a\b"], &["a"]),
    // Brackets and operators in classes stand for themselves.
    ("[[]", &["["], &["a"]),
    ("[]a]+", &["]a"], &["b"]),
    ("[^]a]", &["b"], &["]", "a"]),
    ("[a-c&&b]+", &["a&b", "c"], &["d"]),
    ("[+--b]+", &["+,-b"], &["a"]),
    ("[a~~b]", &["~", "a"], &["c"]),
    ("[a-]+", &["a-"], &["b"]),
    ("[-a]+", &["a-"], &["b"]),
    ("[[:alpha:]-]+", &["a-b"], &["1"]),
    ("[[:^digit:]x]", &["a", "x"], &["1"]),
    ("[[:x]+", &["[:x"], &["y"]),
    (r"[\]\\\-]+", &[r"]\-"], &["x"]),
    (r"[\x41-\x{43}]", &["B"], &["D"]),
    ("[é-ü]", &["ê"], &["e"]),
    // Escapes.
    (r"\.\*\_\-\/\<\>", &[".*_-/<>"], &["x"]),
    (r"\x41\101\07", &["AA\x07"], &[]),
    (r"\a\f\n\r\t\v", &["\x07\x0c\n\r\t\x0b"], &[]),
    (r"\pN", &["٤", "4"], &["N", "a"]),
    (r"\PN", &["a"], &["4"]),
    (r"\pNN", &["4N"], &["44"]),
    (r"\p{Greek}+", &["αβγ"], &["abc"]),
    (r"\p{^Greek}", &["a"], &["α"]),
    (r"\P{^Greek}", &["α"], &["a"]),
    (r"[\pL\d]+", &["é1"], &["-"]),
    (r"\p{Lu}", &["É"], &["é"]),
    (r"\p{Any}", &["x"], &[]),
    (r"\P{Cs}|\p{Cs}", &["x"], &[]),
    // Groups and flags.
    ("(?P<n>a)(?<m>b)", &["ab"], &[]),
    ("(?i)ab", &["AB"], &[]),
    ("(?i:a)b", &["Ab"], &["AB"]),
    ("(?i-s:A.)", &["ax"], &["a\n"]),
    ("(?s).", &["\n"], &[]),
    (".", &["é"], &["\n"]),
    ("(?ii)a", &["A"], &[]),
    ("(?)a", &["a"], &[]),
    ("(?U)a+", &["aa"], &[]),
    ("(?m)a$\n^b", &["a\nb"], &[]),
    ("a$", &["a"], &["a\n"]),
    (r"\Aa\z", &["a"], &["ab"]),
    ("a||b", &["a", "", "b"], &["c"]),
    ("()x", &["x"], &[]),
    ("(?:a{10}){100}", &[], &["a"]),
    // Patterns that both dialects read alike stay the same.
    (r"^v[0-9]+\.[0-9]+(-rc\.\d+)?$", &["v1.2", "v1.2-rc.3"], &["v1.2-rc."]),
    ("release/.*", &["release/é x"], &["release"]),
    ("#  x", &["#  x"], &["x"]),
];

#[test]
fn patterns_mean_what_they_mean_to_re2() {
    for (pattern, matching, other) in MEANINGS {
        let compiled = Pattern::new(pattern).unwrap_or_else(|why| panic!("{pattern}: {why}"));
        for text in *matching {
            assert!(compiled.is_match(text), "`{pattern}` and `{text}`: {}", translate(pattern).unwrap());
        }
        for text in *other {
            assert!(!compiled.is_match(text), "`{pattern}`, not `{text}`: {}", translate(pattern).unwrap());
        }
    }
}

#[test]
fn what_re2_refuses_is_refused_with_a_reason() {
    for (pattern, why) in [
        ("(", "a `(` is not closed"),
        (")(", "a `)` has no `(`"),
        ("[a", "a `[` is not closed"),
        ("[]", "a `[` is not closed"),
        ("[z-a]", "the range `z-a` ends below its beginning"),
        ("[a--b]", "the range `a--` ends below its beginning"),
        (r"[a-\d]", "ends with a class"),
        ("[[:alfa:]]", "no class of characters (known: alnum,"),
        ("*a", "nothing stands before the `*`"),
        ("a|+", "nothing stands before the `+`"),
        ("{1}x", "nothing stands before the `{1}`"),
        ("a**", "repeats a repetition"),
        ("a{2}{3}", "repeats a repetition"),
        ("a{1001}", "more than 1000 times"),
        ("a{1001,}", "more than 1000 times"),
        ("a{99999999999}", "more than 1000 times"),
        ("(a{100}){11}", "more than 1000 times"),
        ("((a{20}|b){10}c){6}", "more than 1000 times"),
        ("a{3,2}", "`{3,2}` ends below its beginning"),
        ("(?x)a", "`(?x` is not supported"),
        ("(?=a)", "`(?=` looks around"),
        ("(?!a)", "`(?!` looks around"),
        ("(?<=a)b", "`(?<=` looks around"),
        ("(?<!a)b", "`(?<!` looks around"),
        ("(?>a)", "`(?>` is not supported"),
        ("(?P=n)", "`(?P` is not supported"),
        ("(?i-)a", "`(?i-)` is not supported"),
        ("(?P<n>a)(?P<n>b)", "two groups are called `n`"),
        ("(?P<n-m>a)", "a group has a name"),
        (r"(a)\1", r"`\1` refers back"),
        (r"\8", r"`\8` refers back"),
        (r"a\", r"it ends with a `\`"),
        (r"\E", r"`\E` is no escape"),
        (r"\Z", r"`\Z` is no escape"),
        (r"\C", r"`\C` is no escape"),
        (r"\é", r"`\é` is no escape"),
        (r"[\b]", r"`\b` is no escape"),
        (r"[\Qa\E]", r"`\Q` is no escape"),
        (r"\p{Letter}", ""),
        (r"\p{letter}", r"`letter` after `\p` is no category"),
        (r"\p{sc=Greek}", "no category or script"),
        (r"\pÄ", "no category or script"),
        (r"\x4", "two hexadecimal digits"),
        (r"\x{110000}", "two hexadecimal digits"),
    ] {
        let error = Pattern::new(pattern).err().unwrap_or_else(|| panic!("`{pattern}` is accepted"));
        assert!(error.contains(why), "`{pattern}`: {error}");
        assert!(error.starts_with(&format!("`{pattern}` is not a regular expression: ")), "{error}");
    }
}

proptest! {
    /// A translated pattern can be compiled: RE2's rules are the stricter ones.
    #[test]
    fn what_is_translated_compiles(pattern in r"[ab1\[\](){}*+?|.,^$\\QEdwspPN<>:=i&~\-]{0,24}") {
        if let Ok(translated) = translate(&pattern) {
            prop_assert!(regex::Regex::new(&translated).is_ok(), "{} -> {}", pattern, translated);
        }
    }
}
