//! Completions for shells, made of the texts of `--help`: commands, the words after them, and their options.

use super::commands::{COMMANDS, options};
use super::manual::{Line, lines};
use crate::outcome::Failure;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// Completions for `bash`, `zsh` or `fish`.
pub(super) fn of(shell: &str) -> Result<String, Failure> {
    let tree = tree();
    match shell {
        "bash" => Ok(bash(&tree)),
        "zsh" => Ok(format!(
            "#compdef runlet circleci-agent\nautoload -U +X bashcompinit && bashcompinit\n{}",
            bash(&tree)
        )),
        "fish" => Ok(fish(&tree)),
        _ => Err(Failure::usage(format!("no completions for `{shell}` (known: bash, zsh, fish)"))),
    }
}

/// What may follow the words so far, for all that is known: `admin token` -> `create`, `list`, `delete` and options.
fn tree() -> BTreeMap<String, BTreeSet<&'static str>> {
    let mut tree: BTreeMap<String, BTreeSet<&'static str>> = BTreeMap::new();
    let first = tree.entry(String::new()).or_default();
    first.extend(COMMANDS.iter().map(|command| command.name));
    first.extend(["help", "version", "--help", "--version"]);
    tree.insert("help".to_owned(), COMMANDS.iter().map(|command| command.name).collect());
    for command in COMMANDS {
        let options: Vec<_> = options(command.help).into_iter().collect();
        tree.entry(command.name.to_owned()).or_default().extend(&options);
        for line in lines(command.help) {
            let head = match line {
                Line::Entry(head, _) => head,
                Line::Usage(usage) => {
                    let words = usage.split_once(command.name).map_or("", |(_, words)| words);
                    words.trim_start()
                }
                _ => continue,
            };
            let mut path = command.name.to_owned();
            for word in head.split_whitespace().take_while(|word| is_word(word)) {
                tree.entry(path.clone()).or_default().insert(word);
                path = format!("{path} {word}");
                tree.entry(path.clone()).or_default().extend(&options);
            }
        }
    }
    tree
}

/// Whether it is typed as it stands, rather than the name of a value.
fn is_word(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_lowercase())
        && word.chars().all(|c| c.is_ascii_lowercase() || c == '-')
}

fn bash(tree: &BTreeMap<String, BTreeSet<&'static str>>) -> String {
    let mut cases = String::new();
    for (path, words) in tree {
        let words: Vec<_> = words.iter().copied().collect();
        cases += &format!("        \"{path}\") words=\"{}\" ;;\n", words.join(" "));
    }
    format!(
        r#"# Completions of runlet for bash, made of its help.
_runlet() {{
    local path= word words current=${{COMP_WORDS[COMP_CWORD]}}
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case $word in
            -*) ;;
            *) path+=${{path:+ }}$word ;;
        esac
    done
    # What follows a value is what follows the words before it.
    while :; do
        _runlet_words "$path" && break
        [[ $path == *" "* ]] || break
        path=${{path% *}}
    done
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
    # Values are files, more often than not.
    [[ $current == -* || ${{#COMPREPLY[@]}} -gt 0 ]] || mapfile -t COMPREPLY < <(compgen -f -- "$current")
}}
_runlet_words() {{
    case $1 in
{cases}        *) return 1 ;;
    esac
}}
complete -F _runlet runlet
"#
    )
}

fn fish(tree: &BTreeMap<String, BTreeSet<&'static str>>) -> String {
    let mut text = String::from("# Completions of runlet for fish, made of its help.\n");
    for (path, words) in tree {
        let condition = match path.is_empty() {
            true => "__fish_use_subcommand".to_owned(),
            false => path
                .split(' ')
                .map(|word| format!("__fish_seen_subcommand_from {word}"))
                .collect::<Vec<_>>()
                .join("; and "),
        };
        for word in words {
            text += &match word.strip_prefix("--") {
                Some(option) => format!("complete -c runlet -n '{condition}' -l {option}\n"),
                None => format!("complete -c runlet -n '{condition}' -f -a {word}\n"),
            };
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nouns_verbs_and_options_are_known() {
        let tree = tree();
        let has = |path: &str, word: &str| tree.get(path).is_some_and(|words| words.contains(word));
        assert!(has("", "machine") && has("help", "server") && has("machine", "--check"));
        assert!(
            has("admin", "token") && has("admin token", "create") && has("admin token create", "--nickname")
        );
        assert!(has("config", "validate") && has("orb", "pack") && has("tool", "tests"));
        assert!(has("server", "backup"), "{:?}", tree.get("server"));
        assert!(of("tcsh").is_err());
    }
}
