//! `[log]`: Tollgate's own log.

use std::fmt;

use tracing_subscriber::filter::{LevelFilter, Targets};

use super::layers::Settings;

/// `[log]`: Tollgate's own log.
#[derive(Debug, Clone)]
pub struct Log {
    /// What is logged: a level, or levels by target.
    pub level: Targets,
    /// In what form.
    pub format: LogFormat,
    /// Most lines a second about denials: 0 to 1,000, 0 for none.
    pub denials_per_s: u32,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Log {
    pub(super) fn read(settings: &mut Settings) -> Self {
        Self {
            level: settings.parsed("log.level", Targets::new().with_default(LevelFilter::INFO), parse_level),
            format: settings.one_of("log.format", LogFormat::Text, &[LogFormat::Text, LogFormat::Json]),
            denials_per_s: settings.int("log.denials_per_s", 0, 0..=1000),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// Stricter than [`Targets`] itself, which takes a misspelt level for the name of a target and then logs nothing.
fn parse_level(text: &str) -> Result<Targets, String> {
    let is_level = |word: &str| matches!(word, "off" | "error" | "warn" | "info" | "debug" | "trace");
    let directives_hold = text.split(',').all(|directive| match directive.rsplit_once('=') {
        Some((target, level)) => !target.is_empty() && is_level(level),
        None => is_level(directive),
    });
    text.parse().ok().filter(|_| directives_hold).ok_or_else(|| {
        "off, error, warn, info, debug, trace, or a list of those by target as in 'warn,tollgate=debug'".to_owned()
    })
}
