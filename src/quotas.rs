//! Limits as they are written: `10 1s 100 1m`, in a command, in a file, in Redis.

pub(crate) mod numbers;

use crate::limit::{Limit, MAX_LIMIT, MAX_LIMITS_PER_ASK, Window};
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

    /// The same.
    pub fn as_mut_slice(&mut self) -> &mut [Limit] {
        self.items.get_mut(..self.len).unwrap_or_default()
    }
}

/// What to say of a word that is no limit, before what should be its window.
fn no_limit<'a>(word: &'a [u8], next: Option<&'a [u8]>) -> QuotaError<'a> {
    match next.filter(|next| parse_window(word).is_some() && parse_bounded(next, MAX_LIMIT).is_some()) {
        Some(next) => QuotaError::LimitBehindWindow { window: word, limit: next },
        None => QuotaError::Limit(word),
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
