//! What is in force, written as the file that would set it, and what a message may show of a value.

use std::fmt::Write as _;

use super::layers::InForce;
use super::secret::MASK;

/// Most characters of a value in a message.
const MAX_SHOWN_CHARS: usize = 100;

/// The file that would set what is in force, each value with its source, and then the warnings as comments.
pub(super) fn report(in_force: &[InForce], warnings: &[String]) -> String {
    let mut report = String::new();
    let mut current = "";
    for InForce { key, value, origin } in in_force {
        let (section, name) = split(key);
        if section != current {
            // Writing to a String cannot fail.
            let _ = writeln!(report, "{}{}", if current.is_empty() { "" } else { "\n" }, header(section));
            current = section;
        }
        // What stands in a file of its own is set by the key that names that file.
        let is_elsewhere = origin.as_ref().is_some_and(|origin| origin.file.is_some());
        let comment = if value.is_none() || is_elsewhere { "# " } else { "" };
        let (value, source) = match (value, origin) {
            (None, _) => (String::new(), "not set".to_owned()),
            (Some(value), None) => (format!(" {}", toml(value)), "default".to_owned()),
            (Some(value), Some(origin)) => (format!(" {}", toml(value)), origin.to_string()),
        };
        let _ = writeln!(report, "{:<44} # {source}", format!("{comment}{name} ={value}"));
    }
    if !warnings.is_empty() {
        report.push('\n');
    }
    for warning in warnings {
        let _ = writeln!(report, "# warning: {warning}");
    }
    report
}

/// A key's section and its name there, which may stand in quotes, and then hold dots.
pub(super) fn split(key: &str) -> (&str, &str) {
    match key.rfind(".\"").filter(|_| key.ends_with('"')).or_else(|| key.rfind('.')) {
        Some(at) => (key.get(..at).unwrap_or_default(), key.get(at + 1..).unwrap_or_default()),
        None => ("", key),
    }
}

/// The line that a section begins with in a file.
pub(super) fn header(section: &str) -> String {
    match section.split_once('[') {
        Some((list, _)) => format!("[[{list}]]"),
        None => format!("[{section}]"),
    }
}

/// A rejected value as a message may show it: one short line, nothing of a secret, and of an address that may hold a
/// password the scheme. The path of a secret is none, unless the secret itself stands where the path should.
pub(super) fn shown(key: &str, text: &str) -> String {
    let is_path = key.ends_with("_file") && text.starts_with(['/', '.']);
    if (key.contains(".password") || key.contains(".token")) && !text.is_empty() && !is_path {
        return MASK.to_owned();
    }
    if key.starts_with("redis.addr") && !is_path {
        match text.split_once("://") {
            Some((scheme, _)) if scheme.contains(['@', ':']) => return MASK.to_owned(),
            Some((scheme, rest)) if rest.contains(['@', ':', '?', '#', '%']) => return format!("{scheme}://{MASK}"),
            None if text.contains(['@', '?', '#', '%']) => return MASK.to_owned(),
            _ => {}
        }
    }
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", text.split_at(end).0.escape_debug()),
        None => text.escape_debug().to_string(),
    }
}

/// Numbers and booleans bare, all else as a basic string.
fn toml(value: &str) -> String {
    let is_number = value.starts_with(|c: char| c.is_ascii_digit()) && value.parse::<f64>().is_ok();
    if is_number || matches!(value, "true" | "false") {
        return value.to_owned();
    }
    basic_string(value)
}

/// A text in quotes.
pub(super) fn basic_string(value: &str) -> String {
    let escaped = value.chars().map(|c| match c {
        '"' | '\\' => format!("\\{c}"),
        c if c.is_control() => format!("\\u{:04X}", u32::from(c)),
        c => c.to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}
