//! Manual pages, made of the texts of `--help`.
//!
//! A help has a title, lines of usage, entries (two blanks, a head, two blanks or a line break, what it means) and other
//! lines, which are paragraphs. That is all that a page needs.

use super::commands::{COMMANDS, Command, HELP, HELP_OF_RUNNER};
use crate::outcome::Failure;

/// The commands of the runner-only build that have a page; `config` there is one of the settings alone.
const OF_RUNNER: [&str; 6] = ["machine", "doctor", "status", "task", "pod", "tool"];

/// The names of the pages, a line each; only those of the runner, or all.
pub(super) fn pages(of_runner: bool) -> String {
    let is_wanted = |command: &&Command| !of_runner || OF_RUNNER.contains(&command.name);
    let mut names = String::from("runlet\n");
    for command in COMMANDS.iter().filter(is_wanted) {
        names += &format!("runlet-{}\n", command.name);
    }
    names
}

/// A page by its name, such as `runlet-machine`.
pub(super) fn page(name: &str) -> Result<String, Failure> {
    let help = match name {
        "runlet" => Some(HELP),
        // A host that has the runner alone gets the page under the same name.
        "runlet-runner" => return Ok(of("runlet", HELP_OF_RUNNER)),
        _ => {
            let command = name.strip_prefix("runlet-");
            COMMANDS.iter().find(|known| Some(known.name) == command).map(|command| command.help)
        }
    };
    let help = help.ok_or_else(|| Failure::usage(format!("there is no manual page `{name}`")))?;
    Ok(of(name, help))
}

/// A line of a help, as far as pages and completions are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// A command or an option, and the first line of what it means.
    Entry(&'a str, &'a str),
    /// Meaning of an entry, continued.
    More(&'a str),
    /// Line of usage.
    Usage(&'a str),
    /// Line of any other kind.
    Text(&'a str),
    Empty,
}

/// The lines of a help after its title.
pub(super) fn lines(help: &str) -> impl Iterator<Item = Line<'_>> {
    let mut in_usage = false;
    help.lines().skip(1).map(move |line| {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if let Some(usage) = line.strip_prefix("Usage: ") {
            in_usage = true;
            return Line::Usage(usage);
        }
        match indent {
            _ if text.is_empty() => {
                in_usage = false;
                Line::Empty
            }
            1.. if in_usage => Line::Usage(text),
            2 => {
                let (head, meaning) = text.split_once("  ").unwrap_or((text, ""));
                Line::Entry(head, meaning.trim_start())
            }
            3.. => Line::More(text),
            _ => Line::Text(line),
        }
    })
}

fn of(name: &str, help: &str) -> String {
    let title = help.lines().next().unwrap_or_default();
    let title = title.split_once(": ").map_or(title, |(_, title)| title).trim_end_matches('.');
    let mut page = format!(
        ".TH {} 1 \"\" \"runlet {}\" \"Runlet\"\n.SH NAME\n{name} \\- {}\n.SH SYNOPSIS\n.nf\n",
        name.to_uppercase(),
        env!("CARGO_PKG_VERSION"),
        escaped(title)
    );
    for line in lines(help) {
        if let Line::Usage(usage) = line {
            page += &format!("{}\n", escaped(usage));
        }
    }
    page += ".fi\n.SH DESCRIPTION\n";
    let mut is_new = true;
    for line in lines(help) {
        match line {
            Line::Usage(_) => {}
            Line::Empty => is_new = true,
            Line::Entry(head, meaning) => {
                page += &format!(".TP\n.B {}\n{}\n", escaped(head), escaped(meaning))
            }
            Line::More(text) => page += &format!("{}\n", escaped(text)),
            Line::Text(text) => {
                if std::mem::take(&mut is_new) {
                    page += ".PP\n";
                }
                page += &format!("{}\n", escaped(text));
            }
        }
    }
    page
}

/// Text that no letter of means anything to roff.
fn escaped(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-");
    // These begin a request, an empty line a gap.
    if escaped.starts_with(['.', '\'']) || escaped.is_empty() { format!("\\&{escaped}") } else { escaped }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_what_its_help_has() {
        let help = "x: does it.\n\nUsage: x [A]\n       x B\n\n  --one FILE   first\n               and more\n  --two\n\n.text - \\n\n";
        let page = of("x", help);
        let expected = ".SH NAME\nx \\- does it\n.SH SYNOPSIS\n.nf\nx [A]\nx B\n.fi\n.SH DESCRIPTION\n\
            .TP\n.B \\-\\-one FILE\nfirst\nand more\n.TP\n.B \\-\\-two\n\\&\n.PP\n\\&.text \\- \\en\n";
        assert!(page.ends_with(expected), "{page}");
    }

    #[test]
    fn every_command_has_a_page() {
        for name in pages(false).lines() {
            let page = page(name).unwrap();
            assert!(page.contains(".SH SYNOPSIS\n.nf\n"), "{page}");
            assert!(!page.contains(".nf\n.fi"), "no usage: {page}");
        }
        let heads = lines(HELP_OF_RUNNER).filter_map(|line| match line {
            Line::Entry(head, _) => {
                head.split(' ').next().filter(|name| name.starts_with(char::is_alphabetic))
            }
            _ => None,
        });
        let of_runner: String = heads
            .filter(|name| !["config", "help"].contains(name))
            .map(|name| format!("runlet-{name}\n"))
            .collect();
        assert_eq!(pages(true), format!("runlet\n{of_runner}"));
        assert!(page("runlet-nothing").is_err());
    }
}
