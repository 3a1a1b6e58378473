//! Completions for shells, made of the texts of `--help`: commands, the words after them, and their options.

use super::commands::{COMMANDS, options};
use super::manual::{Line, lines};
use crate::outcome::Failure;
use std::collections::{BTreeMap, BTreeSet};

/// Completions for `bash`, `zsh` or `fish`.
pub(super) fn of(shell: &str) -> Result<String, Failure> {
    match shell {
        "bash" => Ok(bash()),
        "zsh" => Ok(format!("#compdef runlet\nautoload -U +X bashcompinit && bashcompinit\n{}", bash())),
        "fish" => Ok(fish()),
        _ => Err(Failure::usage(format!("no completions for `{shell}` (known: bash, zsh, fish)"))),
    }
}

/// Gathers the words that may follow the words so far: `admin token` -> `create`, `list`, `delete`.
fn tree() -> BTreeMap<String, BTreeSet<&'static str>> {
    let mut tree: BTreeMap<String, BTreeSet<&'static str>> = BTreeMap::new();
    let names = || COMMANDS.iter().map(|command| command.name);
    tree.entry(String::new()).or_default().extend(names().chain(["help", "version"]));
    tree.entry("help".to_owned()).or_default().extend(names());
    for command in COMMANDS {
        for line in lines(command.help) {
            let head = match line {
                Line::Entry(head, _) => head,
                Line::Usage(usage) => usage.split_once(command.name).map_or("", |(_, words)| words),
                _ => continue,
            };
            let mut path = command.name.to_owned();
            let mut words = head.split_whitespace().peekable();
            while let Some(word) = words.next().filter(|word| is_word(word)) {
                tree.entry(path.clone()).or_default().insert(word);
                // `check | backup`: each may stand there.
                if words.next_if_eq(&"|").is_none() {
                    path = format!("{path} {word}");
                }
            }
        }
    }
    tree
}

/// The options of each command, and of none.
fn all_options() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let mut all: BTreeMap<_, _> =
        COMMANDS.iter().map(|command| (command.name, options(command.help).into_iter().collect())).collect();
    all.insert("", BTreeSet::from(["--help", "--version"]));
    all
}

/// Whether it is typed as it stands, rather than the name of a value.
fn is_word(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_lowercase())
        && word.chars().all(|c| c.is_ascii_lowercase() || c == '-')
}

fn cases<'a>(table: impl Iterator<Item = (&'a str, &'a BTreeSet<&'static str>)>) -> String {
    let case = |(name, words): (&str, &BTreeSet<&'static str>)| {
        let words: Vec<_> = words.iter().copied().collect();
        format!("        \"{name}\") words+=\" {}\" ;;\n", words.join(" "))
    };
    table.map(case).collect()
}

/// Serves bash and zsh, which loads the functions of bash; avoids names that zsh reserves, such as `path`.
fn bash() -> String {
    let (tree, options) = (tree(), all_options());
    let (words, options) = (
        cases(tree.iter().map(|(path, words)| (path.as_str(), words))),
        cases(options.iter().map(|(name, words)| (*name, words))),
    );
    format!(
        r#"# Completions of runlet, made of its help.
_runlet() {{
    local so_far='' first='' words='' word current=${{COMP_WORDS[COMP_CWORD]}}
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case $word in
            -*) ;;
            *)
                so_far="$so_far${{so_far:+ }}$word"
                first=${{first:-$word}}
                ;;
        esac
    done
    case $so_far in
{words}    esac
    case $first in
{options}    esac
    # shellcheck disable=SC2207
    COMPREPLY=($(compgen -W "$words" -- "$current"))
    case $current in
        -*) ;;
        # Values are files, more often than not.
        *) [ ${{#COMPREPLY[@]}} -gt 0 ] || COMPREPLY=($(compgen -f -- "$current")) ;;
    esac
}}
complete -F _runlet runlet
"#
    )
}

fn fish() -> String {
    let mut text = String::from("# Completions of runlet for fish, made of its help.\n");
    let condition = |path: &str| match path.is_empty() {
        true => "__fish_use_subcommand".to_owned(),
        false => path
            .split(' ')
            .map(|word| format!("__fish_seen_subcommand_from {word}"))
            .collect::<Vec<_>>()
            .join("; and "),
    };
    for (path, words) in &tree() {
        for word in words {
            text += &format!("complete -c runlet -n '{}' -f -a {word}\n", condition(path));
        }
    }
    for (name, options) in &all_options() {
        for option in options {
            let option = option.trim_start_matches('-');
            text += &format!("complete -c runlet -n '{}' -l {option}\n", condition(name));
        }
    }
    text
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn nouns_verbs_and_options_are_known() {
        let (tree, options) = (tree(), all_options());
        let has = |path: &str, word: &str| tree.get(path).is_some_and(|words| words.contains(word));
        assert!(has("", "machine") && has("help", "server") && options["machine"].contains("--check"));
        assert!(
            has("admin", "token") && has("admin token", "create") && options["admin"].contains("--nickname")
        );
        assert!(has("config", "validate") && has("orb", "pack") && has("tool", "tests"));
        assert!(has("server", "backup"), "{:?}", tree.get("server"));
        assert!(of("tcsh").is_err());
    }

    #[test]
    fn a_shell_completes_with_them() {
        let script = format!(
            "{}\nfor line in 'mach' 'admin tok' 'admin token cre' 'machine --che' 'admin token create --nick'; do\n\
             COMP_WORDS=(runlet $line); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _runlet; echo \"${{COMPREPLY[@]}}\"; done",
            of("bash").unwrap()
        );
        let Ok(output) = std::process::Command::new("bash").args(["-c", &script]).output() else { return };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(said, "machine\ntoken\ncreate\n--check\n--nickname\n");
    }
}
