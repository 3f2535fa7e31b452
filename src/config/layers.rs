//! The layers under a configuration: what file, environment and flags say of each key, and what is wrong with it.
//!
//! Every layer is brought down to text first, so that a value is parsed by the same rule wherever it stands. The
//! `config` crate reads the file. Its merge is not used: it keeps the top layer's value alone, so that a mistake
//! below would pass unseen, and it forgets which variable or flag a value came from, which a message has to name.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use ::config::{File, FileFormat, Source, Value, ValueKind};

/// A flag of the command line that sets a key.
#[derive(Debug, Clone)]
pub struct Flag {
    /// The flag, with its dashes.
    pub name: &'static str,
    /// The key that it sets, as `server.listen`.
    pub key: &'static str,
    /// To what.
    pub value: String,
}

/// All layers, and what has been read from them so far.
#[derive(Default)]
pub(super) struct Settings {
    /// What was given for each key, lowest layer first. Reading a key takes it out: what stays is unknown.
    given: BTreeMap<String, Vec<Setting>>,
    /// How many tables each list of tables has. Only a file has any; a table's keys are `list[n].name`, n from 1.
    tables: BTreeMap<String, usize>,
    /// The file, if there is one.
    file: String,
    in_force: Vec<InForce>,
    mistakes: Vec<String>,
}

/// One layer's word on a key.
struct Setting {
    /// The file, variable or flag.
    source: String,
    text: String,
}

/// A key with its value, masked, if it has one.
struct InForce {
    key: String,
    value: Option<String>,
    source: String,
}

impl Settings {
    /// Adds a file. The `Err` is one that leaves nothing to read on with: it is not there, or not TOML.
    pub(super) fn add_file(&mut self, path: &Path) -> Result<(), String> {
        let source = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| format!("{source}: {error}"))?;
        let table = File::from_str(&text, FileFormat::Toml).collect();
        let table = table.map_err(|error| format!("{source}: {}", without_excerpt(&error.to_string())))?;
        for (key, value) in table {
            self.add_value(key, value, &source);
        }
        self.file = source;
        Ok(())
    }

    fn add_value(&mut self, key: String, value: Value, source: &str) {
        match value.kind {
            ValueKind::Table(table) => {
                for (name, value) in table {
                    self.add_value(format!("{key}.{name}"), value, source);
                }
            }
            ValueKind::Array(items) if items.iter().any(is_table) => {
                self.tables.insert(key.clone(), items.len());
                for (n, item) in (1..).zip(items) {
                    self.add_value(format!("{key}[{n}]"), item, source);
                }
            }
            ValueKind::Array(items) => {
                let items: Vec<_> = items.iter().map(Value::to_string).collect();
                self.add(key, source.to_owned(), items.join(","));
            }
            scalar => self.add(key, source.to_owned(), scalar.to_string()),
        }
    }

    /// Adds the variables that are Tollgate's: `REDIS_ADDR` and `TOLLGATE_<SECTION>__<NAME>`. One without the double
    /// underscore is left alone: Kubernetes gives `TOLLGATE_PORT` and more to each pod beside a service of that name.
    pub(super) fn add_environment(&mut self, variables: impl IntoIterator<Item = (OsString, OsString)>) {
        let mut own = BTreeMap::new();
        for (name, text) in variables {
            let Some(name) = name.to_str() else { continue };
            let Some(key) = variable_key(name) else { continue };
            match text.into_string() {
                Ok(text) => drop(own.insert(name.to_owned(), (key, text))),
                Err(_) => self.mistakes.push(format!("{name}: {key}: must be UTF-8")),
            }
        }
        // In the order of names, in which TOLLGATE_REDIS__ADDR comes after REDIS_ADDR, which it overrides.
        for (name, (key, text)) in own {
            self.add(key, name, text);
        }
    }

    pub(super) fn add_flags(&mut self, flags: &[Flag]) {
        for flag in flags {
            self.add(flag.key.to_owned(), flag.name.to_owned(), flag.value.clone());
        }
    }

    fn add(&mut self, key: String, source: String, text: String) {
        self.given.entry(key).or_default().push(Setting { source, text });
    }

    /// A value of the type that `parse` makes. Its `Err` says what is allowed, to follow "must be".
    pub(super) fn parsed<T: fmt::Display>(
        &mut self,
        key: &str,
        default: T,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        let (value, source) = self.top(key, parse).unwrap_or((default, "default".to_owned()));
        self.show(key, Some(value.to_string()), source);
        value
    }

    /// An integer within `range`.
    pub(super) fn int<T>(&mut self, key: &str, default: T, range: RangeInclusive<T>) -> T
    where
        T: FromStr + PartialOrd + fmt::Display,
    {
        self.parsed(key, default, |text| {
            let value = text.parse().ok().filter(|value| range.contains(value));
            value.ok_or_else(|| format!("an integer from {} to {}", range.start(), range.end()))
        })
    }

    /// A whole number of milliseconds within `range`.
    pub(super) fn millis(&mut self, key: &str, default: u64, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.int(key, default, range))
    }

    pub(super) fn bool(&mut self, key: &str, default: bool) -> bool {
        self.parsed(key, default, |text| text.parse().map_err(|_| "true or false".to_owned()))
    }

    /// One of `choices`, by its name.
    pub(super) fn one_of<T: fmt::Display + Copy>(&mut self, key: &str, default: T, choices: &[T]) -> T {
        self.parsed(key, default, |text| {
            let choice = choices.iter().find(|choice| choice.to_string() == text);
            let names = || choices.iter().map(T::to_string).collect::<Vec<_>>().join(" or ");
            choice.copied().ok_or_else(names)
        })
    }

    /// A path, if one is given. Nothing is opened.
    pub(super) fn path(&mut self, key: &str) -> Option<PathBuf> {
        let parse = |text: &str| match text {
            "" => Err("the path of a file".to_owned()),
            _ => Ok(PathBuf::from(text)),
        };
        self.optional(key, parse, |path| path.display().to_string())
    }

    /// A value if one is given, and how it is shown.
    pub(super) fn optional<T>(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
        show: impl Fn(&T) -> String,
    ) -> Option<T> {
        let (value, source) = self.top(key, parse).unzip();
        self.show(key, value.as_ref().map(show), source.unwrap_or_default());
        value
    }

    /// A value of a table, without which the table is wrong. `None` comes with a mistake.
    pub(super) fn required<T>(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
        show: impl Fn(&T) -> String,
    ) -> Option<T> {
        if !self.given.contains_key(key) {
            self.add(key.to_owned(), self.file.clone(), String::new());
        }
        self.optional(key, parse, show)
    }

    /// How many tables the file lists as `[[key]]`, at most `max`.
    pub(super) fn tables(&mut self, key: &str, max: usize) -> usize {
        let count = self.tables.remove(key).unwrap_or_default();
        if count > max {
            self.mistakes.push(format!("{}: {key}: must be at most {max} tables", self.file));
        }
        for Setting { source, .. } in self.given.remove(key).unwrap_or_default() {
            self.mistakes.push(format!("{source}: {key}: must be tables in the file, each below a line [[{key}]]"));
        }
        count
    }

    fn show(&mut self, key: &str, value: Option<String>, source: String) {
        self.in_force.push(InForce { key: key.to_owned(), value, source });
    }

    /// The value of the highest layer that has the key, and that layer. Those below must be valid too.
    fn top<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<(T, String)> {
        let mut top = None;
        for Setting { source, text } in self.given.remove(key).unwrap_or_default() {
            match parse(&text) {
                Ok(value) => top = Some((value, source)),
                Err(allowed) => {
                    let text = shown(key, &text);
                    self.mistakes.push(format!("{source}: {key} = '{text}': must be {allowed}"));
                }
            }
        }
        top
    }

    /// Records that `key`, read before, does not go with another one.
    pub(super) fn conflict<T>(&mut self, key: &str, rule: &str) -> Option<T> {
        if let Some(InForce { value: Some(value), source, .. }) = self.in_force.iter().find(|read| read.key == key) {
            self.mistakes.push(format!("{source}: {key} = '{value}': {rule}"));
        }
        None
    }

    /// What is in force, or all mistakes, once every known key has been read.
    pub(super) fn finish(mut self) -> Result<String, String> {
        for (key, settings) in std::mem::take(&mut self.given) {
            for setting in settings {
                // Without its value: `redis.password` is a likely one here.
                self.mistakes.push(format!("{}: unknown key '{key}': {}", setting.source, self.keys_beside(&key)));
            }
        }
        if self.mistakes.is_empty() { Ok(report(&self.in_force)) } else { Err(self.mistakes.join("\n")) }
    }

    /// What may stand where an unknown key stands.
    fn keys_beside(&self, unknown: &str) -> String {
        let known = || self.in_force.iter().filter_map(|read| read.key.rsplit_once('.'));
        let is_around =
            |section: &str| unknown.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        // A table of a list is read after the section that holds the list, and lies closer.
        if let Some((around, _)) = known().rfind(|(section, _)| is_around(section)) {
            let keys: Vec<_> = known().filter(|(section, _)| *section == around).map(|(_, name)| name).collect();
            return format!("{} has {}", header(around), keys.join(", "));
        }
        let mut sections: Vec<_> = known().map(|(section, _)| section).filter(|section| !is_listed(section)).collect();
        sections.dedup();
        format!("the sections are {}", sections.join(", "))
    }
}

fn is_table(value: &Value) -> bool {
    matches!(value.kind, ValueKind::Table(_))
}

/// Whether a section is a table of a list: `auth.users[1]`.
fn is_listed(section: &str) -> bool {
    section.ends_with(']')
}

/// The line that a section begins with in a file.
fn header(section: &str) -> String {
    match section.split_once('[') {
        Some((list, _)) => format!("[[{list}]]"),
        None => format!("[{section}]"),
    }
}

/// The key that a variable sets, known or not; `None` if it is not one of Tollgate's.
fn variable_key(name: &str) -> Option<String> {
    if name == "REDIS_ADDR" {
        return Some("redis.addr".to_owned());
    }
    let (section, key) = name.strip_prefix("TOLLGATE_")?.split_once("__")?;
    Some(format!("{section}.{key}").to_ascii_lowercase())
}

/// A rejected value as a message may show it: one short line, nothing of a secret, and of an address that may hold a
/// password the scheme.
fn shown(key: &str, text: &str) -> String {
    const MAX_CHARS: usize = 100;
    if key.contains(".password") && !text.is_empty() {
        return "***".to_owned();
    }
    if key == "redis.addr" {
        match text.split_once("://") {
            Some((scheme, _)) if scheme.contains(['@', ':']) => return "***".to_owned(),
            Some((scheme, rest)) if rest.contains(['@', ':', '?', '#', '%']) => return format!("{scheme}://***"),
            None if text.contains(['@', '?', '#', '%']) => return "***".to_owned(),
            _ => {}
        }
    }
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}...", text.split_at(end).0.escape_debug()),
        None => text.escape_debug().to_string(),
    }
}

/// A TOML error without the line that it quotes from the file, which may hold a password.
fn without_excerpt(error: &str) -> String {
    let is_margin = |c: char| c == ' ' || c.is_ascii_digit();
    let is_excerpt = |line: &str| line.trim_start_matches(is_margin).starts_with('|');
    let lines: Vec<_> = error.lines().filter(|line| !is_excerpt(line)).collect();
    lines.join(": ")
}

/// The file that would set what is in force, each value with its source.
fn report(in_force: &[InForce]) -> String {
    let mut report = String::new();
    let mut current = "";
    for InForce { key, value, source } in in_force {
        let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
        if section != current {
            // Writing to a String cannot fail.
            let _ = writeln!(report, "{}{}", if current.is_empty() { "" } else { "\n" }, header(section));
            current = section;
        }
        let _ = match value {
            Some(value) => writeln!(report, "{:<44} # {source}", format!("{name} = {}", toml(value))),
            None => writeln!(report, "{:<44} # not set", format!("# {name} =")),
        };
    }
    report
}

/// Numbers and booleans bare, all else as a basic string.
fn toml(value: &str) -> String {
    let is_number = value.starts_with(|c: char| c.is_ascii_digit()) && value.parse::<f64>().is_ok();
    if is_number || matches!(value, "true" | "false") {
        return value.to_owned();
    }
    let escaped = value.chars().map(|c| match c {
        '"' | '\\' => format!("\\{c}"),
        c if c.is_control() => format!("\\u{:04X}", u32::from(c)),
        c => c.to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}
