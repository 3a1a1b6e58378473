//! Templates of cache keys: text with `{{ ... }}`, evaluated when the step runs. Of Go's templates there is
//! what keys use: fields (`.Branch`), `checksum`, `epoch` and `arch`, comments, and `{{-`, `-}}` to trim.

use crate::protocol::limits::CACHE_KEY_CHARS;

/// Values that a key may refer to.
pub(super) trait Values {
    /// `{{ .NAME }}`: `Branch`, `BuildNum`, `Revision`, `CheckoutKey`; `None` for every other.
    fn field(&self, name: &str) -> Option<String>;
    /// `{{ .Environment.NAME }}`.
    fn variable(&self, name: &str) -> Option<String>;
    /// `{{ checksum "path" }}`, or why there is none.
    fn checksum(&self, path: &str) -> Result<String, String>;
    /// `{{ epoch }}`: Unix seconds.
    fn epoch(&self) -> u64;
    /// `{{ arch }}`: system and processor.
    fn arch(&self) -> String;
}

/// Evaluates a template. The error is a sentence for people.
pub(super) fn render(template: &str, values: &dyn Values) -> Result<String, String> {
    let wrong = |why: &str| format!("the cache key `{template}` cannot be evaluated: {why}");
    let mut key = String::new();
    let mut rest = template;
    let mut trim = false;
    while let Some(start) = rest.find("{{") {
        let (text, tag) = (&rest[..start], &rest[start + 2..]);
        let text = if trim { text.trim_start() } else { text };
        let end = end_of_tag(tag).ok_or_else(|| wrong("a `{{` is not closed"))?;
        let (body, left) = (&tag[..end], &tag[end + 2..]);
        let (body, trim_before) = match body.strip_prefix('-') {
            Some(rest) if rest.starts_with(char::is_whitespace) => (rest, true),
            _ => (body, false),
        };
        let (body, trim_after) = match body.strip_suffix('-') {
            Some(rest) if rest.ends_with(char::is_whitespace) => (rest, true),
            _ => (body, false),
        };
        key.push_str(if trim_before { text.trim_end() } else { text });
        key.push_str(&evaluate(body.trim(), values).map_err(|why| wrong(&why))?);
        (rest, trim) = (left, trim_after);
    }
    key.push_str(if trim { rest.trim_start() } else { rest });
    match key.chars().count() {
        0 => Err(wrong("it is empty")),
        1..=CACHE_KEY_CHARS => Ok(key),
        length => {
            Err(wrong(&format!("it has {length} characters, and at most {CACHE_KEY_CHARS} are allowed")))
        }
    }
}

/// Position of the `}}` that closes the tag: not inside of a quoted text.
fn end_of_tag(tag: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in tag.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            None if matches!(c, '"' | '`') => quote = Some(c),
            None if tag[at..].starts_with("}}") => return Some(at),
            _ => {}
        }
    }
    None
}

fn evaluate(body: &str, values: &dyn Values) -> Result<String, String> {
    const KNOWN: &str = "known are `.Branch`, `.BuildNum`, `.Revision`, `.CheckoutKey`, `.Environment.NAME`, `checksum \"FILE\"`, `epoch` and `arch`";
    if body.is_empty() {
        return Err("a `{{ }}` is empty".to_owned());
    }
    if body.starts_with("/*") && body.ends_with("*/") {
        return Ok(String::new());
    }
    if let Some(field) = body.strip_prefix('.') {
        if let Some(name) = field.strip_prefix("Environment.") {
            return Ok(values.variable(name).unwrap_or_else(|| "<no value>".to_owned()));
        }
        return values.field(field).ok_or_else(|| format!("`.{field}` is no field ({KNOWN})"));
    }
    let (name, argument) = body.split_once(char::is_whitespace).unwrap_or((body, ""));
    match (name, argument.trim()) {
        ("epoch", "") => Ok(values.epoch().to_string()),
        ("arch", "") => Ok(values.arch()),
        ("checksum", "") => Err("`checksum` needs the name of a file in quotes".to_owned()),
        ("checksum", argument) => values.checksum(&quoted(argument)?),
        ("epoch" | "arch", _) => Err(format!("`{name}` takes no argument")),
        _ => Err(format!("`{name}` is no function ({KNOWN})")),
    }
}

/// The text of a string in quotes.
fn quoted(text: &str) -> Result<String, String> {
    let wrong = || format!("`{text}` is not the name of a file in quotes");
    if let Some(raw) = text.strip_prefix('`') {
        return raw.strip_suffix('`').filter(|raw| !raw.contains('`')).map(str::to_owned).ok_or_else(wrong);
    }
    let inner = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or_else(wrong)?;
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some(c @ ('\\' | '"')) => out.push(c),
                _ => return Err(wrong()),
            },
            '"' => return Err(wrong()),
            c => out.push(c),
        }
    }
    Ok(out)
}

/// `linux-amd64-6_62`: system, architecture as Go calls it, and family and model where the processor has them.
pub(super) fn arch(cpuinfo: &str) -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        other => other,
    };
    let value = |name: &str| {
        let line =
            cpuinfo.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
        line.split_once(':').map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
    };
    let processor = match (value("cpu family"), value("model")) {
        (Some(family), Some(model)) => format!("-{family}_{model}"),
        _ => String::new(),
    };
    format!("{}-{architecture}{processor}", std::env::consts::OS)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Fixed;

    impl Values for Fixed {
        fn field(&self, name: &str) -> Option<String> {
            match name {
                "Branch" => Some("main".into()),
                "BuildNum" => Some("7".into()),
                _ => None,
            }
        }
        fn variable(&self, name: &str) -> Option<String> {
            (name == "TOOL").then(|| "v2".into())
        }
        fn checksum(&self, path: &str) -> Result<String, String> {
            if path == "lock file" { Ok("abc=".into()) } else { Err(format!("there is no `{path}`")) }
        }
        fn epoch(&self) -> u64 {
            1_700_000_000
        }
        fn arch(&self) -> String {
            "linux-s390x".into()
        }
    }

    #[test]
    fn templates_are_evaluated() {
        for (template, key) in [
            ("v1-plain", "v1-plain"),
            ("v1-{{ .Branch }}-{{.BuildNum}}", "v1-main-7"),
            ("{{ .Environment.TOOL }}{{ .Environment.NONE }}", "v2<no value>"),
            ("a-{{ checksum \"lock file\" }}", "a-abc="),
            ("a-{{checksum `lock file`}}", "a-abc="),
            ("{{ epoch }} {{ arch }}", "1700000000 linux-s390x"),
            ("a {{- .Branch -}}  b", "amainb"),
            ("{{ .Branch }}{{/* a note */}}", "main"),
            ("a } b }} c", "a } b }} c"),
        ] {
            assert_eq!(render(template, &Fixed).as_deref(), Ok(key), "{template}");
        }
    }

    #[test]
    fn mistakes_are_explained() {
        for (template, why) in [
            ("v1-{{ .Branch", "not closed"),
            ("v1-{{ checksum \"a }} b", "not closed"),
            ("{{ }}", "empty"),
            ("{{ .Nonsense }}", "`.Nonsense` is no field (known are"),
            ("{{ hash \"x\" }}", "`hash` is no function"),
            ("{{ checksum }}", "needs the name"),
            ("{{ checksum lock }}", "not the name of a file in quotes"),
            ("{{ checksum \"a\" \"b\" }}", "not the name"),
            ("{{ checksum \"other\" }}", "there is no `other`"),
            ("{{ epoch 1 }}", "takes no argument"),
            ("", "it is empty"),
            (&"x".repeat(901), "901 characters"),
        ] {
            let error = render(template, &Fixed).unwrap_err();
            assert!(error.contains(why), "{template}: {error}");
        }
    }

    #[test]
    fn processors_are_told_apart_where_they_have_a_family() {
        let intel = "processor\t: 0\ncpu family\t: 6\nmodel\t\t: 62\nmodel name\t: x\n";
        assert!(arch(intel).ends_with("-6_62"), "{}", arch(intel));
        assert_eq!(arch("processor: 0\n").matches('-').count(), 1);
    }

    proptest! {
        #[test]
        fn no_template_makes_it_panic(template in "[{}\\-.a\"`\\\\ é]{0,30}") {
            let _ = render(&template, &Fixed);
        }

        #[test]
        fn text_without_tags_is_its_own_key(text in "[a-z}{ ]{1,40}") {
            prop_assume!(!text.contains("{{"));
            prop_assert_eq!(render(&text, &Fixed), Ok(text));
        }
    }
}
