//! The layers under a configuration: what file, environment and flags say of each key, and what is wrong with it.
//!
//! Every layer is brought down to text first, so that a value is parsed by the same rule wherever it stands. The
//! `config` crate reads the file. Its merge is not used: it keeps the top layer's value alone, so that a mistake
//! below would pass unseen, and it forgets which variable or flag a value came from, which a message has to name.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use ::config::{File, FileFormat, Map, Source, Value, ValueKind};

use super::environment::Variables;
use super::policies;
use super::report::{header, report, shown, split};
use super::secret;
use crate::limit::PolicyName;
use crate::policy::Layer as PolicyLayer;

/// Keys whose value may stand in a file of its own, which `<key>_file` names.
const SECRETS: [&str; 4] = ["auth.password", "http.token", "redis.addr", "redis.password"];

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
    variables: Variables,
    in_force: Vec<InForce>,
    mistakes: Vec<String>,
    warnings: Vec<String>,
    policies: Vec<(PolicyName, PolicyLayer)>,
}

/// The layers over the defaults, lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Layer {
    File,
    Environment,
    Flags,
}

/// Where a value comes from.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub layer: Layer,
    /// The file of settings, the variable or the flag.
    source: String,
    /// The file of a secret that this names, with the value in it.
    pub file: Option<String>,
}

/// One layer's word on a key.
struct Setting {
    origin: Origin,
    text: String,
}

/// A key with its value, masked, if it has one; and where that comes from, if it is no default.
pub(super) struct InForce {
    pub key: String,
    pub value: Option<String>,
    pub origin: Option<Origin>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{} ({file})", self.source),
            None => f.write_str(&self.source),
        }
    }
}

impl Settings {
    /// Adds a file. The `Err` is one that leaves nothing to read on with: it is not there, or not TOML.
    pub(super) fn add_file(&mut self, path: &Path) -> Result<(), String> {
        let source = path.display().to_string();
        let mut table = read_toml(path)?;
        if let Some(section) = table.remove(policies::SECTION) {
            self.policies = policies::read(section, &source, &mut self.mistakes);
        }
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
                self.add(key, Layer::File, source, items.join(","));
            }
            scalar => self.add(key, Layer::File, source, scalar.to_string()),
        }
    }

    pub(super) fn add_environment(&mut self, variables: Variables) {
        // In the order of names, in which TOLLGATE_REDIS__ADDR comes after REDIS_ADDR, which it overrides.
        for (name, (key, value)) in &variables.settings {
            match value.to_str() {
                Some(text) => self.add(key.clone(), Layer::Environment, name, text.to_owned()),
                None => self.mistakes.push(format!("{name}: {key}: must be UTF-8")),
            }
        }
        self.variables = variables;
    }

    pub(super) fn add_flags(&mut self, flags: &[Flag]) {
        for flag in flags {
            self.add(flag.key.to_owned(), Layer::Flags, flag.name, flag.value.clone());
        }
    }

    fn add(&mut self, key: String, layer: Layer, source: &str, text: String) {
        let origin = Origin { layer, source: source.to_owned(), file: None };
        self.given.entry(key).or_default().push(Setting { origin, text });
    }

    /// Puts what stands in the files that `<key>_file` names beside what the same layers say of `key` itself.
    fn add_secret_files(&mut self, key: &str) {
        let file_key = format!("{key}_file");
        for Setting { mut origin, text: path } in self.given.remove(&file_key).unwrap_or_default() {
            let settings = self.given.entry(key.to_owned()).or_default();
            let of_same_layer = settings.iter().find(|setting| setting.origin.layer == origin.layer);
            if let Some(Setting { origin: other, .. }) = of_same_layer {
                self.mistakes.push(format!("{origin}: {file_key}: {key} is set too, by {other}: only one may be"));
            }
            match secret::read(&path) {
                Ok(text) => {
                    origin.file = Some(path);
                    settings.push(Setting { origin, text });
                    settings.sort_by_key(|setting| setting.origin.layer);
                }
                Err(error) => {
                    let path = shown(&file_key, &path);
                    self.mistakes.push(format!("{origin}: {file_key} = '{path}': {error}"));
                }
            }
        }
    }

    /// A value of the type that `parse` makes. Its `Err` says what is allowed, to follow "must be".
    pub(super) fn parsed<T: fmt::Display>(
        &mut self,
        key: &str,
        default: T,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        let (value, origin) = self.top(key, parse).unzip();
        let value = value.unwrap_or(default);
        self.show(key, Some(value.to_string()), origin);
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
        let (value, origin) = self.top(key, parse).unzip();
        self.show(key, value.as_ref().map(show), origin);
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
            let file = self.file.clone();
            self.add(key.to_owned(), Layer::File, &file, String::new());
        }
        self.optional(key, parse, show)
    }

    /// How many tables the file lists as `[[key]]`, at most `max`.
    pub(super) fn tables(&mut self, key: &str, max: usize) -> usize {
        let count = self.tables.remove(key).unwrap_or_default();
        if count > max {
            self.mistakes.push(format!("{}: {key}: must be at most {max} tables", self.file));
        }
        for Setting { origin, .. } in self.given.remove(key).unwrap_or_default() {
            self.mistakes.push(format!("{origin}: {key}: must be tables in the file, each below a line [[{key}]]"));
        }
        count
    }

    fn show(&mut self, key: &str, value: Option<String>, origin: Option<Origin>) {
        let file = origin.as_ref().and_then(|origin| origin.file.clone());
        let file_origin = origin.clone().map(|origin| Origin { file: None, ..origin });
        self.in_force.push(InForce { key: key.to_owned(), value, origin });
        if SECRETS.contains(&key) {
            self.in_force.push(InForce { key: format!("{key}_file"), value: file, origin: file_origin });
        }
    }

    /// The value of the highest layer that has the key, and where it stands. Those below must be valid too.
    fn top<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<(T, Origin)> {
        if SECRETS.contains(&key) {
            self.add_secret_files(key);
        }
        let mut top = None;
        for Setting { origin, text } in self.given.remove(key).unwrap_or_default() {
            match parse(&text) {
                Ok(value) => top = Some((value, origin)),
                Err(allowed) => {
                    let text = shown(key, &text);
                    self.mistakes.push(format!("{origin}: {key} = '{text}': must be {allowed}"));
                }
            }
        }
        top
    }

    /// Where the file is, if there is one.
    pub(super) fn file_path(&self) -> Option<PathBuf> {
        (!self.file.is_empty()).then(|| self.file.clone().into())
    }

    /// The policies of the file.
    pub(super) fn take_policies(&mut self) -> Vec<(PolicyName, PolicyLayer)> {
        for (key, text) in policies::lines(&self.policies) {
            let origin = Origin { layer: Layer::File, source: self.file.clone(), file: None };
            self.show(&key, Some(text), Some(origin));
        }
        std::mem::take(&mut self.policies)
    }

    /// Where the value of `key`, read before, comes from, if it is no default.
    pub(super) fn origin(&self, key: &str) -> Option<&Origin> {
        self.in_force.iter().find(|read| read.key == key)?.origin.as_ref()
    }

    /// Records that `key`, read before, does not go with another one.
    pub(super) fn conflict<T>(&mut self, key: &str, rule: &str) -> Option<T> {
        self.mistakes.extend(self.objection(key, rule));
        None
    }

    /// Records that `key`, read before, has no effect.
    pub(super) fn warn(&mut self, key: &str, rule: &str) {
        self.warnings.extend(self.objection(key, rule));
    }

    fn objection(&self, key: &str, rule: &str) -> Option<String> {
        let InForce { value, origin, .. } = self.in_force.iter().find(|read| read.key == key)?;
        let source = origin.as_ref().map_or("default".to_owned(), Origin::to_string);
        Some(format!("{source}: {key} = '{}': {rule}", value.as_ref()?))
    }

    /// What is in force and the warnings, or all mistakes, once every known key has been read.
    pub(super) fn finish(mut self) -> Result<(String, Vec<String>), String> {
        for (key, settings) in std::mem::take(&mut self.given) {
            for Setting { origin, .. } in settings {
                // Without its value, which may be a secret in the wrong place.
                self.mistakes.push(format!("{origin}: unknown key '{key}': {}", self.keys_beside(&key)));
            }
        }
        let keys: Vec<&str> = self.in_force.iter().map(|read| &*read.key).filter(|key| !key.contains('[')).collect();
        self.warnings.extend(self.variables.near_misses(&keys));
        if self.mistakes.is_empty() {
            return Ok((report(&self.in_force, &self.warnings), self.warnings));
        }
        // What was not read is a likely reason for what is wrong.
        let warnings = self.warnings.iter().map(|warning| format!("warning: {warning}"));
        Err(self.mistakes.into_iter().chain(warnings).collect::<Vec<_>>().join("\n"))
    }

    /// What may stand where an unknown key stands.
    fn keys_beside(&self, unknown: &str) -> String {
        let known = || self.in_force.iter().map(|read| split(&read.key));
        let is_around =
            |section: &str| unknown.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        // A table of a list is read after the section that holds the list, and lies closer.
        if let Some((around, _)) = known().rfind(|(section, _)| is_around(section)) {
            let keys: Vec<_> = known().filter(|(section, _)| *section == around).map(|(_, name)| name).collect();
            return format!("{} has {}", header(around), keys.join(", "));
        }
        let is_section = |section: &&str| !is_listed(section) && !section.starts_with(policies::SECTION);
        let mut sections: Vec<_> = known().map(|(section, _)| section).filter(is_section).collect();
        sections.dedup();
        sections.push(policies::SECTION);
        format!("the sections are {}", sections.join(", "))
    }
}

/// What stands in a file of TOML.
///
/// # Errors
/// It cannot be read, or is no TOML.
fn read_toml(path: &Path) -> Result<Map<String, Value>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    parse_toml(&text, path)
}

/// The values of the file at `path`, which says this.
pub(super) fn parse_toml(text: &str, path: &Path) -> Result<Map<String, Value>, String> {
    let table = File::from_str(text, FileFormat::Toml).collect();
    table.map_err(|error| format!("{}: {}", path.display(), without_excerpt(&error.to_string())))
}

fn is_table(value: &Value) -> bool {
    matches!(value.kind, ValueKind::Table(_))
}

/// Whether a section is a table of a list: `auth.users[1]`.
fn is_listed(section: &str) -> bool {
    section.ends_with(']')
}

/// A TOML error without the line that it quotes from the file, which may hold a password.
fn without_excerpt(error: &str) -> String {
    let is_margin = |c: char| c == ' ' || c.is_ascii_digit();
    let is_excerpt = |line: &str| line.trim_start_matches(is_margin).starts_with('|');
    let lines: Vec<_> = error.lines().filter(|line| !is_excerpt(line)).collect();
    lines.join(": ")
}
