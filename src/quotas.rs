//! Limits as they are written: `10 1s 100 1m`, in a command, in a file, in Redis.

pub(crate) mod numbers;

use crate::limit::{Limit, MAX_LIMIT, MAX_LIMITS_PER_ASK, Terms, Window};
use numbers::{parse_bounded, parse_window};
use std::fmt;

/// What a window is, to follow "must be".
pub const ALLOWED_WINDOW: &str =
    "an integer number of seconds, or an integer with a unit (ms, s, m, h, d), between 1ms and 366d";

/// The limits that hold together, in place: no command allocates for them.
#[derive(Debug, Clone, Copy)]
pub struct Quotas {
    items: [Limit; MAX_LIMITS_PER_ASK],
    len: usize,
}

/// What is wrong with a limit and its window. Quotes what was written as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaError<'a> {
    /// A limit without its window.
    NoWindow,
    /// What is no integer from 1 to [`MAX_LIMIT`].
    Limit(&'a [u8]),
    /// A window, and then a limit.
    LimitBehindWindow {
        /// What stands where the limit belongs.
        window: &'a [u8],
        /// What stands where the window belongs.
        limit: &'a [u8],
    },
    /// What is no window, or is out of range.
    Window(&'a [u8]),
    /// One window twice.
    WindowTwice(&'a [u8]),
    /// More than [`MAX_LIMITS_PER_ASK`].
    TooMany,
}

impl Default for Quotas {
    fn default() -> Self {
        // What stands beyond `len` is never read; this is only a valid value.
        Self { items: [Limit::log(1, Window::MIN); MAX_LIMITS_PER_ASK], len: 0 }
    }
}

impl Quotas {
    /// Those of a text whose words are set apart by blanks.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(text: &str) -> Result<Self, QuotaError<'_>> {
        let mut quotas = Self::default();
        let mut words = text.split_ascii_whitespace().map(str::as_bytes);
        while let Some(limit) = words.next() {
            quotas.add(limit, words.next())?;
        }
        if quotas.len == 0 { Err(QuotaError::NoWindow) } else { Ok(quotas) }
    }

    /// Adds a limit and its window.
    ///
    /// # Errors
    /// What is wrong with them. Nothing is added.
    pub fn add<'a>(&mut self, limit: &'a [u8], window: Option<&'a [u8]>) -> Result<(), QuotaError<'a>> {
        let max = parse_bounded(limit, MAX_LIMIT).ok_or_else(|| no_limit(limit, window))?;
        let text = window.ok_or(QuotaError::NoWindow)?;
        let window = parse_window(text).ok_or(QuotaError::Window(text))?;
        if self.as_slice().iter().any(|quota| quota.window == window) {
            return Err(QuotaError::WindowTwice(text));
        }
        *self.items.get_mut(self.len).ok_or(QuotaError::TooMany)? = Limit::log(max, window);
        self.len += 1;
        Ok(())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The limits in the order they were named.
    pub fn as_slice(&self) -> &[Limit] {
        self.items.get(..self.len).unwrap_or_default()
    }

    /// These limits, of which those beyond [`MAX_LIMITS_PER_ASK`] are left out.
    pub fn of(limits: &[Limit]) -> Self {
        let mut quotas = Self::default();
        for (item, limit) in quotas.items.iter_mut().zip(limits) {
            *item = *limit;
            quotas.len += 1;
        }
        quotas
    }

    /// The same limits by other terms.
    pub fn under(&self, terms: Terms) -> Self {
        let mut quotas = *self;
        quotas.items.iter_mut().take(quotas.len).for_each(|limit| limit.terms = terms);
        quotas
    }
}

/// What to say of a word that is no limit, before what should be its window.
fn no_limit<'a>(word: &'a [u8], next: Option<&'a [u8]>) -> QuotaError<'a> {
    match next.filter(|next| parse_window(word).is_some() && parse_bounded(next, MAX_LIMIT).is_some()) {
        Some(next) => QuotaError::LimitBehindWindow { window: word, limit: next },
        None => QuotaError::Limit(word),
    }
}

impl fmt::Display for QuotaError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
        match self {
            Self::NoWindow => f.write_str("each limit must be followed by its window, as in '10 1m'"),
            Self::Limit(got) => write!(f, "limit must be an integer between 1 and {MAX_LIMIT}, not '{}'", quoted(got)),
            Self::LimitBehindWindow { window, limit } => {
                let (window, limit) = (quoted(window), quoted(limit));
                write!(f, "the limit comes before its window, as in '{limit} {window}'")
            }
            Self::Window(got) => write!(f, "window must be {ALLOWED_WINDOW}, not '{}'", quoted(got)),
            Self::WindowTwice(got) => write!(f, "window '{}' is named twice", quoted(got)),
            Self::TooMany => write!(f, "at most {MAX_LIMITS_PER_ASK} windows can be checked together"),
        }
    }
}

/// Limits as they are read again: each with its window, in the largest unit that is whole.
impl fmt::Display for Quotas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, limit) in self.as_slice().iter().enumerate() {
            let blank = if index == 0 { "" } else { " " };
            write!(f, "{blank}{} {}", limit.max, limit.window)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_and_written_again() {
        for (text, again) in [
            ("10 60", "10 1m"),
            (" 10  1s\t100 90s  ", "10 1s 100 90s"),
            ("1e3 1500ms 5 24h 6 7d", "1000 1500ms 5 1d 6 7d"),
        ] {
            let quotas = Quotas::parse(text).unwrap();
            assert_eq!(quotas.to_string(), again);
            assert_eq!(Quotas::parse(again).unwrap().as_slice(), quotas.as_slice());
        }
    }

    #[test]
    fn what_is_wrong_with_a_text_is_told() {
        use QuotaError::*;
        for (text, error) in [
            ("", NoWindow),
            ("10", NoWindow),
            ("10 1m 5", NoWindow),
            ("x 1m", Limit(b"x")),
            ("0 1m", Limit(b"0")),
            ("60s 10", LimitBehindWindow { window: b"60s", limit: b"10" }),
            ("10 367d", Window(b"367d")),
            ("10 60 20 1m", WindowTwice(b"1m")),
            ("1 1 2 2 3 3 4 4 5 5 6 6 7 7 8 8 9 9", TooMany),
        ] {
            assert_eq!(Quotas::parse(text).map(|_| ()), Err(error), "{text}");
        }
    }
}
