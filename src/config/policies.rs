//! `[policies]` of the file: limits with names. Only the file has them, for what is said to running Tollgates stands in
//! Redis. They are read again while Tollgate runs, and then it is all of them or none.

use std::collections::BTreeMap;
use std::path::Path;

use ::config::{Map, Value, ValueKind};

use super::layers::parse_toml;
use super::report::basic_string;
use crate::limit::PolicyName;
use crate::limit::policy_name::{MAX_POLICY_NAME_BYTES, RESERVED};
use crate::policy::{
    ALLOWED_FALLBACK, ALLOWED_MODE, Definition, Layer, MAX_OVERRIDES, MAX_PATTERN_BYTES, MAX_POLICIES, Mode, Override,
    Overrides, Rule, fallback_of,
};

/// The section.
pub(super) const SECTION: &str = "policies";
const KEYS: &str = "limits, by, prefetch, mode, fallback, overrides";

/// The policies of the file at `path`, which says this now.
///
/// # Errors
/// Every mistake in them, a line each.
pub fn read_policies(text: &str, path: &Path) -> Result<Vec<(PolicyName, Layer)>, String> {
    let source = path.display().to_string();
    let section = parse_toml(text, path)?.remove(SECTION);
    let mut mistakes = Vec::new();
    let policies = section.map(|section| read(section, &source, &mut mistakes)).unwrap_or_default();
    if mistakes.is_empty() { Ok(policies) } else { Err(mistakes.join("\n")) }
}

/// Reads the section, as far as there is nothing wrong with it.
pub(super) fn read(section: Value, source: &str, mistakes: &mut Vec<String>) -> Vec<(PolicyName, Layer)> {
    let mut reader = Reader { source, mistakes, overrides: 0 };
    let ValueKind::Table(table) = section.kind else {
        reader.mistake(SECTION, "must be a table, each policy a line below [policies], as login = \"5 1m 20 1h\"");
        return Vec::new();
    };
    if table.len() > MAX_POLICIES {
        reader.mistake(SECTION, &format!("must be at most {MAX_POLICIES} policies"));
    }
    let policies = sorted(table).into_iter().filter_map(|(name, value)| reader.policy(&name, value)).collect();
    if reader.overrides > MAX_OVERRIDES {
        reader.mistake(SECTION, &format!("must have at most {MAX_OVERRIDES} overrides in all"));
    }
    policies
}

/// What the file says, as it would be written: policies in the short form first, for the long form opens a section.
pub(super) fn lines(policies: &[(PolicyName, Layer)]) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    let (long, short): (Vec<_>, Vec<_>) = policies.iter().partition(|(_, layer)| !layer.overrides.is_empty());
    let mut define = |policies: &[&(PolicyName, Layer)], limits: &str| {
        for (name, Layer { definition, overrides }) in policies {
            let key = format!("{SECTION}.{}{limits}", quoted(name.as_str()));
            lines.extend(definition.map(|definition| (key, definition.to_string())));
            let of_pattern = |(pattern, found): (Vec<u8>, &Override)| {
                let pattern = quoted(&String::from_utf8_lossy(&pattern));
                (format!("{SECTION}.{}.overrides.{pattern}", quoted(name.as_str())), found.rule.to_string())
            };
            lines.extend(overrides.iter().map(of_pattern).collect::<BTreeMap<_, _>>());
        }
    };
    define(&short, "");
    define(&long, ".limits");
    lines
}

struct Reader<'a> {
    source: &'a str,
    mistakes: &'a mut Vec<String>,
    /// How many were read.
    overrides: usize,
}

impl Reader<'_> {
    fn mistake(&mut self, key: &str, text: &str) {
        self.mistakes.push(format!("{}: {key}: {text}", self.source));
    }

    fn policy(&mut self, name: &str, value: Value) -> Option<(PolicyName, Layer)> {
        let key = format!("{SECTION}.{}", quoted(name));
        let Some(policy) = PolicyName::new(name) else {
            let rule = format!(
                "a policy's name must be 1 to {MAX_POLICY_NAME_BYTES} of A-Z a-z 0-9 _ . -, begin with a letter, and be \
                 none of {}",
                RESERVED.join(", ")
            );
            self.mistake(&key, &rule);
            return None;
        };
        let mut layer = Layer::default();
        match value.kind {
            ValueKind::String(text) => layer.definition = self.definition(&key, &text),
            ValueKind::Table(table) => self.long_form(&key, table, &mut layer),
            _ => self.mistake(&key, "must be a text as \"5 1m 20 1h\", or a table"),
        }
        Some((policy, layer))
    }

    fn definition(&mut self, key: &str, text: &str) -> Option<Definition> {
        let read = Definition::parse(text.split_ascii_whitespace().map(str::as_bytes));
        read.map_err(|error| self.mistake(&format!("{key} = '{}'", text.escape_debug()), &error.to_string())).ok()
    }

    fn long_form(&mut self, key: &str, table: Map<String, Value>, layer: &mut Layer) {
        let (mut limits, mut mode, mut fallback) = (None, None, None);
        let mut table = sorted(table);
        let by = match table.remove("by").map(|by| by.kind) {
            Some(ValueKind::String(by)) => format!(" BY {by}"),
            Some(_) => {
                self.mistake(&format!("{key}.by"), "must be a text as \"gcra\" or \"gcra BURST 20\"");
                String::new()
            }
            None => String::new(),
        };
        let prefetch = match table.remove("prefetch").map(|prefetch| prefetch.kind) {
            Some(ValueKind::String(ahead)) => format!(" PREFETCH {ahead}"),
            Some(ValueKind::I64(units)) => format!(" PREFETCH {units}"),
            Some(_) => {
                self.mistake(&format!("{key}.prefetch"), "must be a time as \"20ms\", or a number");
                String::new()
            }
            None => String::new(),
        };
        for (name, value) in table {
            let key = format!("{key}.{}", quoted(&name));
            match (name.as_str(), value.kind) {
                ("limits", ValueKind::String(text)) => {
                    limits = Some(self.definition(&key, &format!("{text}{by}{prefetch}")));
                }
                ("mode", ValueKind::String(text)) => {
                    mode = self.word(&key, &text, ALLOWED_MODE, Mode::of(text.as_bytes()));
                }
                ("fallback", ValueKind::String(text)) => {
                    fallback = self.word(&key, &text, ALLOWED_FALLBACK, fallback_of(text.as_bytes()));
                }
                ("overrides", ValueKind::Table(table)) => layer.overrides = self.overrides(&key, table),
                ("limits" | "mode" | "fallback", _) => self.mistake(&key, "must be a text"),
                ("overrides", _) => self.mistake(&key, "must be a table, as \"user:42\" = \"1000 1s\""),
                _ => self.mistake(&key, &format!("unknown key: a policy has {KEYS}")),
            }
        }
        match limits {
            Some(definition) => layer.definition = definition,
            None => self.mistake(key, "limits are missing, as limits = \"5 1m 20 1h\""),
        }
        if let Some(definition) = &mut layer.definition {
            definition.mode = mode.unwrap_or(definition.mode);
            definition.fallback = fallback.or(definition.fallback);
        }
    }

    fn word<T>(&mut self, key: &str, text: &str, allowed: &str, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.mistake(&format!("{key} = '{}'", text.escape_debug()), &format!("must be {allowed}"));
        }
        value
    }

    fn overrides(&mut self, key: &str, table: Map<String, Value>) -> Overrides {
        let mut overrides = Overrides::default();
        for (pattern, value) in table {
            self.overrides += 1;
            let key = format!("{key}.{}", quoted(&pattern));
            if !(1..=MAX_PATTERN_BYTES).contains(&pattern.len()) {
                self.mistake(&key, "must be a key of 1 to 1024 bytes, or a prefix of one and *");
                continue;
            }
            let ValueKind::String(text) = value.kind else {
                self.mistake(&key, "must be a text: limits as \"1000 1s\", \"off\" or \"block\"");
                continue;
            };
            match Rule::parse(text.split_ascii_whitespace().map(str::as_bytes)) {
                Ok(rule) => {
                    let found = Override { rule, until: None, reason: "".into() };
                    overrides.set(pattern.as_bytes(), Some(found));
                }
                Err(error) => {
                    let rule = format!("must be limits as \"1000 1s\", off or block: {error}");
                    self.mistake(&format!("{key} = '{}'", text.escape_debug()), &rule);
                }
            }
        }
        overrides
    }
}

fn sorted(table: Map<String, Value>) -> BTreeMap<String, Value> {
    table.into_iter().collect()
}

/// A key of TOML: in quotes where it needs them.
fn quoted(key: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.chars().all(is_bare) { key.to_owned() } else { basic_string(key) }
}
