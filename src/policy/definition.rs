//! What a policy is: limits, a mode, and what is answered while Redis cannot be asked. As text: what would follow the key
//! in RL.CHECK, then `MODE m` and `FALLBACK f`, in a file, in RL.POLICY SET and in Redis alike.

use crate::limit::FallbackMode;
use crate::quotas::{QuotaError, Quotas, read_by, read_prefetch};
use crate::shown::quoted;
use std::fmt;

/// What a mode may be, to follow "must be".
pub const ALLOWED_MODE: &str = "enforce, shadow, off or block";
/// What the answer without Redis may be, to follow "must be".
pub const ALLOWED_FALLBACK: &str = "local, open, closed or error";

/// What becomes of a policy's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They hold.
    Enforce,
    /// They are told of, and keep nobody from anything.
    Shadow,
    /// All pass, and nobody is asked.
    Off,
    /// None pass, and nobody is asked.
    Block,
}

impl Mode {
    /// All that there are.
    pub const ALL: [Self; 4] = [Self::Enforce, Self::Shadow, Self::Off, Self::Block];

    /// The mode of this name, in any case.
    pub fn of(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str().as_bytes().eq_ignore_ascii_case(name))
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Shadow => "shadow",
            Self::Off => "off",
            Self::Block => "block",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a policy is.
#[derive(Debug, Clone, Copy)]
pub struct Definition {
    /// Its limits, at least one.
    pub quotas: Quotas,
    /// Its own mode.
    pub mode: Mode,
    /// The answer while Redis cannot be asked, if it is another than is configured for all.
    pub fallback: Option<FallbackMode>,
}

/// What is wrong with the text of a policy. Quotes what was written as it was.
#[derive(Debug, PartialEq, Eq)]
pub enum DefinitionError<'a> {
    /// With its limits.
    Quota(QuotaError<'a>),
    /// With its mode.
    Mode(&'a [u8]),
    /// With its fallback.
    Fallback(&'a [u8]),
    /// This belongs nowhere.
    Unknown(&'a [u8]),
}

impl Definition {
    /// The policy of these words.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, DefinitionError<'a>> {
        let mut definition = Self { quotas: Quotas::default(), mode: Mode::Enforce, fallback: None };
        let mut has_mode = false;
        let mut words = words.into_iter().peekable();
        while let Some(word) = words.next() {
            if word.eq_ignore_ascii_case(b"mode") && !has_mode {
                let name = words.next().unwrap_or_default();
                definition.mode = Mode::of(name).ok_or(DefinitionError::Mode(name))?;
                has_mode = true;
            } else if word.eq_ignore_ascii_case(b"fallback") && definition.fallback.is_none() {
                let name = words.next().unwrap_or_default();
                definition.fallback = Some(fallback_of(name).ok_or(DefinitionError::Fallback(name))?);
            } else if word.eq_ignore_ascii_case(b"by") && definition.quotas.takes_by() {
                let by = read_by(&mut words).map_err(DefinitionError::Quota)?;
                definition.quotas.set_by(by).map_err(DefinitionError::Quota)?;
            } else if word.eq_ignore_ascii_case(b"prefetch") && definition.quotas.prefetch().is_none() {
                let prefetch = read_prefetch(words.next().unwrap_or_default()).map_err(DefinitionError::Quota)?;
                definition.quotas.set_prefetch(prefetch);
            } else if word.first().is_some_and(u8::is_ascii_alphabetic) {
                return Err(DefinitionError::Unknown(word));
            } else {
                definition.quotas.add(word, words.next()).map_err(DefinitionError::Quota)?;
            }
        }
        definition.quotas.check().map_err(DefinitionError::Quota)?;
        Ok(definition)
    }
}

/// The answer of this name.
pub fn fallback_of(name: &[u8]) -> Option<FallbackMode> {
    FallbackMode::ALL.into_iter().find(|mode| mode.to_string().as_bytes().eq_ignore_ascii_case(name))
}

/// As it is read again.
impl fmt::Display for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.quotas.fmt(f)?;
        if self.mode != Mode::Enforce {
            write!(f, " MODE {}", self.mode)?;
        }
        match self.fallback {
            Some(fallback) => write!(f, " FALLBACK {fallback}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for DefinitionError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quota(error) => error.fmt(f),
            Self::Mode(got) => write!(f, "mode must be {ALLOWED_MODE}, not '{}'", quoted(got)),
            Self::Fallback(got) => write!(f, "fallback must be {ALLOWED_FALLBACK}, not '{}'", quoted(got)),
            Self::Unknown(got) => write!(f, "'{}' is neither a limit nor BY, PREFETCH, MODE or FALLBACK", quoted(got)),
        }
    }
}
