//! Help, man page and completions, made from the description of the command line.

use super::flags::{EXAMPLES, EXIT_STATUS, FLAGS, Flag, Offers, SIGNALS, SUMMARY, USAGE, VARIABLES};
use super::version;
use std::fmt::Write;

/// What `--help` prints.
pub fn help() -> String {
    let left = |flag: &Flag| match flag.short {
        Some(short) => format!("{short}, {}", flag.name),
        None => with_value(flag),
    };
    let width = FLAGS.iter().map(|flag| left(flag).len()).max().unwrap_or(0) + 2;
    let mut text = format!("Tollgate: {SUMMARY}.\n\nUsage: {USAGE}\n\n");
    for flag in &FLAGS {
        row(&mut text, &left(flag), width, flag.text);
    }
    text.push_str("\nEnvironment (over the file, under the flags):\n");
    for (names, meaning) in VARIABLES {
        row(&mut text, names, 30, meaning);
    }
    text.push_str("\nExamples:\n");
    for line in EXAMPLES.lines() {
        push(&mut text, format_args!("  {line}\n"));
    }
    push(&mut text, format_args!("\nExit status: {EXIT_STATUS}\n"));
    text
}

/// A row of two columns. The second begins on a line of its own where the first is too wide.
fn row(text: &mut String, left: &str, width: usize, right: &str) {
    let indent = format!("\n  {:width$}", "");
    let begin = if left.len() < width { format!("  {left:width$}") } else { format!("  {left}{indent}") };
    push(text, format_args!("{begin}{}\n", right.replace('\n', &indent)));
}

/// Writing to a String cannot fail.
fn push(text: &mut String, more: std::fmt::Arguments<'_>) {
    let _ = text.write_fmt(more);
}

fn with_value(flag: &Flag) -> String {
    flag.value.as_ref().map_or(flag.name.to_owned(), |value| format!("{} {}", flag.name, value.name))
}

/// What a completion says of a flag.
fn summary(flag: &Flag) -> &str {
    flag.text.split([':', '(', '[']).next().unwrap_or_default().trim()
}

/// What `--man` prints: a page in roff, by man(7).
pub fn man() -> String {
    let mut page = format!(".TH TOLLGATE 1 \"\" \"{}\" \"User Commands\"\n", roff(&version()));
    // Aligned at the left alone, and without hyphens within addresses.
    page.push_str(".ad l\n.nh\n.SH NAME\n");
    push(&mut page, format_args!("tollgate \\- {}\n", roff(SUMMARY)));
    push(&mut page, format_args!(".SH SYNOPSIS\n.B {}\n", roff(USAGE)));
    page.push_str(".SH DESCRIPTION\n");
    page.push_str(&roff(
        "Serves clients that speak Redis's protocol: RL.CHECK says whether one more request may go ahead, and counts it if so; \
         all other commands pass through to a Redis. Settings are defaults, the file over them, the environment over that, and \
         flags over all.\n",
    ));
    page.push_str(".SH OPTIONS\n");
    for flag in &FLAGS {
        let short = flag.short.map(|short| format!("{short}, ")).unwrap_or_default();
        let (names, text) = (roff(&format!("{short}{}", with_value(flag))), roff(&flag.text.replace('\n', " ")));
        push(&mut page, format_args!(".TP\n.B {names}\n{text}\n"));
    }
    page.push_str(".SH ENVIRONMENT\n");
    for (names, meaning) in VARIABLES {
        push(&mut page, format_args!(".TP\n.B {}\n{}\n", roff(names), roff(meaning)));
    }
    push(&mut page, format_args!(".SH EXAMPLES\n.nf\n{}.fi\n", roff(EXAMPLES)));
    push(&mut page, format_args!(".SH SIGNALS\n{}\n", roff(SIGNALS)));
    push(&mut page, format_args!(".SH EXIT STATUS\n{}\n", roff(EXIT_STATUS)));
    page
}

/// Text in which roff sees nothing to do. A line of ours never begins with its control characters.
fn roff(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

/// What `--completions` prints for one of [`super::flags::SHELLS`].
pub fn completions(shell: &str) -> String {
    match shell {
        "bash" => bash(),
        "zsh" => zsh(),
        _ => fish(),
    }
}

fn bash() -> String {
    let mut cases = String::new();
    for (flag, value) in FLAGS.iter().filter_map(|flag| Some((flag, flag.value.as_ref()?))) {
        let offer = match value.offers {
            Offers::Nothing => "COMPREPLY=()".to_owned(),
            Offers::Files => "compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- \"$word\")".to_owned(),
            Offers::Words(words) => format!("mapfile -t COMPREPLY < <(compgen -W '{}' -- \"$word\")", words.join(" ")),
        };
        push(&mut cases, format_args!("        {}) {offer} ;;\n", flag.name));
    }
    let names: Vec<&str> = FLAGS.iter().flat_map(|flag| [flag.name].into_iter().chain(flag.short)).collect();
    let names = names.join(" ");
    format!(
        "_tollgate() {{\n    local word=${{COMP_WORDS[COMP_CWORD]}}\n    case ${{COMP_WORDS[COMP_CWORD-1]}} in\n{cases}        \
         *) mapfile -t COMPREPLY < <(compgen -W '{names}' -- \"$word\") ;;\n    esac\n}}\ncomplete -F _tollgate tollgate\n"
    )
}

fn zsh() -> String {
    let mut text = "#compdef tollgate\n_arguments".to_owned();
    for flag in &FLAGS {
        let (name, says) = (flag.name, summary(flag));
        let value = flag.value.as_ref().map(|value| match value.offers {
            Offers::Nothing => format!(":{}: ", value.name),
            Offers::Files => format!(":{}:_files", value.name),
            Offers::Words(words) => format!(":{}:({})", value.name, words.join(" ")),
        });
        let spec = match (value, flag.short) {
            (Some(value), _) => format!("'{name}=[{says}]{value}'"),
            (None, Some(short)) => format!("'({short} {name})'{{{short},{name}}}'[{says}]'"),
            (None, None) => format!("'{name}[{says}]'"),
        };
        push(&mut text, format_args!(" \\\n    {spec}"));
    }
    text + "\n"
}

fn fish() -> String {
    let mut text = "complete -c tollgate -f\n".to_owned();
    for flag in &FLAGS {
        let short = flag.short.map(|short| format!(" -s {}", short.trim_start_matches('-'))).unwrap_or_default();
        let value = flag.value.as_ref().map_or(String::new(), |value| match value.offers {
            Offers::Nothing => " -x".to_owned(),
            Offers::Files => " -r -F".to_owned(),
            Offers::Words(words) => format!(" -x -a '{}'", words.join(" ")),
        });
        let (name, says) = (flag.name.trim_start_matches('-'), summary(flag));
        push(&mut text, format_args!("complete -c tollgate -l {name}{short}{value} -d '{says}'\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_completions_say_needs_no_quoting() {
        for flag in &FLAGS {
            let says = summary(flag);
            assert!(!says.is_empty() && !says.contains(['\'', '\\', '\n']), "{}: {says}", flag.name);
        }
    }

    #[test]
    fn roff_takes_no_line_for_a_request() {
        let page = man();
        let known = [".TH", ".ad", ".nh", ".SH", ".TP", ".B", ".nf", ".fi"];
        for line in page.lines().filter(|line| line.starts_with(['.', '\''])) {
            assert!(known.contains(&line.split(' ').next().unwrap()), "{line}");
        }
    }
}
