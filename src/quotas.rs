//! Limits as they are written, in a command, in a file, in Redis: `limit window [limit window ...]`, where the calendar's
//! `hour day week month year` may stand for a window, and `BY log | gcra [BURST n] | fixed` and `PREFETCH n | time` follow.

pub(crate) mod numbers;

use crate::limit::gcra::{MAX_WINDOWS_TO_EMPTY, allows_burst};
use crate::limit::{
    Algorithm, Limit, MAX_LIMIT, MAX_LIMITS_PER_ASK, MAX_PREFETCH_MS, MAX_PREFETCH_UNITS, MIN_PREFETCH_MS, Period,
    Prefetch, Terms, Window,
};
use crate::shown::quoted;
use numbers::{parse_bounded, parse_window};
use std::fmt;
use std::iter::Peekable;

/// What a window is, to follow "must be".
pub const ALLOWED_WINDOW: &str =
    "an integer number of seconds, or an integer with a unit (ms, s, m, h, d), between 1ms and 366d";

/// The limits that hold together, in place: no command allocates for them.
#[derive(Debug, Clone, Copy)]
pub struct Quotas {
    items: [Limit; MAX_LIMITS_PER_ASK],
    len: usize,
    /// How each is counted, if that is said.
    bys: [Option<By>; MAX_LIMITS_PER_ASK],
    prefetch: Option<Prefetch>,
}

/// How the windows are counted, if that is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// As if nothing were said.
    Log,
    /// With this burst, or as much as each limit.
    Gcra(Option<u32>),
    /// In windows of the clock.
    Fixed,
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
    /// The same, by what follows BY.
    CountedTwice(Limit),
    /// More than [`MAX_LIMITS_PER_ASK`].
    TooMany,
    /// Nothing behind BY, or behind BURST.
    NoAlgorithm,
    /// What is no algorithm.
    Algorithm(&'a [u8]),
    /// What is no integer from 1 to [`MAX_LIMIT`].
    Burst(&'a [u8]),
    /// A burst that is too high for its limit.
    BurstTooLong(u32),
    /// A period of the calendar, by GCRA.
    GcraOfCalendar(Period),
    /// What is neither a number of units to prefetch nor a time to do so for.
    Prefetch(&'a [u8]),
    /// Units of what is no log cannot be prefetched.
    PrefetchOfNoLog,
    /// An override is prefetched as its policy is.
    PrefetchOfOverride,
}

impl Default for Quotas {
    fn default() -> Self {
        // What stands beyond `len` is never read; this is only a valid value.
        Self {
            items: [Limit::log(1, Window::MIN); MAX_LIMITS_PER_ASK],
            len: 0,
            bys: [None; MAX_LIMITS_PER_ASK],
            prefetch: None,
        }
    }
}

impl Quotas {
    /// Those of a text whose words are set apart by blanks.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(text: &str) -> Result<Self, QuotaError<'_>> {
        Self::read(&mut text.split_ascii_whitespace().map(str::as_bytes).peekable())
    }

    /// Those of these words. Each BY is for the windows that were named since the one before.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn read<'a>(words: &mut Peekable<impl Iterator<Item = &'a [u8]>>) -> Result<Self, QuotaError<'a>> {
        let mut quotas = Self::default();
        while let Some(word) = words.next() {
            if quotas.takes_by() && word.eq_ignore_ascii_case(b"by") {
                quotas.set_by(read_by(words)?)?;
            } else if quotas.len > 0 && quotas.prefetch.is_none() && word.eq_ignore_ascii_case(b"prefetch") {
                quotas.set_prefetch(read_prefetch(words.next().unwrap_or_default())?);
            } else {
                quotas.add(word, words.next())?;
            }
        }
        quotas.check()?;
        Ok(quotas)
    }

    /// Adds a limit and its window.
    ///
    /// # Errors
    /// What is wrong with them. Nothing is added.
    pub fn add<'a>(&mut self, limit: &'a [u8], window: Option<&'a [u8]>) -> Result<(), QuotaError<'a>> {
        let max = parse_bounded(limit, MAX_LIMIT).ok_or_else(|| no_limit(limit, window))?;
        let text = window.ok_or(QuotaError::NoWindow)?;
        let limit = of_window(max, text).ok_or(QuotaError::Window(text))?;
        if self.as_slice().iter().any(|other| other.counter() == limit.counter()) {
            return Err(QuotaError::WindowTwice(text));
        }
        let limit = Limit { terms: Terms { prefetch: self.prefetch, ..limit.terms }, ..limit };
        *self.items.get_mut(self.len).ok_or(QuotaError::TooMany)? = limit;
        self.len += 1;
        Ok(())
    }

    /// Has the windows counted so of which nothing is said. Those of the calendar are fixed.
    ///
    /// # Errors
    /// They cannot be.
    pub fn set_by(&mut self, by: By) -> Result<(), QuotaError<'static>> {
        for (limit, said) in self.items.iter_mut().zip(&mut self.bys).take(self.len) {
            if said.is_none() {
                (limit.algorithm, *said) = (algorithm_of(limit, by)?, Some(by));
            }
        }
        Ok(())
    }

    /// Has units be asked for ahead.
    pub fn set_prefetch(&mut self, prefetch: Prefetch) {
        self.prefetch = Some(prefetch);
        self.items.iter_mut().take(self.len).for_each(|limit| limit.terms.prefetch = Some(prefetch));
    }

    /// Looks at the whole, once all is said.
    ///
    /// # Errors
    /// There is no limit, or something is not possible together.
    pub fn check(&self) -> Result<(), QuotaError<'static>> {
        if self.is_empty() {
            return Err(QuotaError::NoWindow);
        }
        for (place, limit) in self.as_slice().iter().enumerate() {
            if self.as_slice().iter().take(place).any(|other| other.counter() == limit.counter()) {
                return Err(QuotaError::CountedTwice(*limit));
            }
        }
        let is_possible = self.prefetch.is_none() || self.is_of_logs();
        is_possible.then_some(()).ok_or(QuotaError::PrefetchOfNoLog)
    }

    fn is_of_logs(&self) -> bool {
        self.as_slice().iter().all(|limit| limit.algorithm == Algorithm::Log)
    }

    /// Takes over what `other` says of how windows are counted, and of how far ahead units are asked for, as far as nothing
    /// is said here and it can be.
    pub fn inherit(&mut self, other: &Self) {
        if !self.says_by() {
            for limit in self.items.iter_mut().take(self.len) {
                // As the window of the same length, or else the first.
                let same = other.as_slice().iter().position(|of_other| of_other.window == limit.window);
                if let Some(by) = other.bys.get(same.unwrap_or(0)).copied().flatten() {
                    limit.algorithm = algorithm_of(limit, by).unwrap_or(limit.algorithm);
                }
            }
        }
        if let (Some(prefetch), true) = (other.prefetch, self.is_of_logs()) {
            self.set_prefetch(prefetch);
        }
    }

    /// How far ahead units are asked for, if they are.
    pub fn prefetch(&self) -> Option<Prefetch> {
        self.prefetch
    }

    /// Whether it is said of any window how that is counted.
    pub fn says_by(&self) -> bool {
        self.bys.iter().any(Option::is_some)
    }

    /// Whether there is a window of which that is yet to be said.
    pub fn takes_by(&self) -> bool {
        self.bys.iter().take(self.len).any(Option::is_none)
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

    /// The limits in their order, each with what is said of how it is counted.
    pub fn said(&self) -> impl Iterator<Item = (Limit, Option<By>)> {
        self.as_slice().iter().copied().zip(self.bys)
    }

    /// The limits of which that was said; those beyond [`MAX_LIMITS_PER_ASK`] are left out.
    pub fn of(said: &[(Limit, Option<By>)]) -> Self {
        let mut quotas = Self::default();
        for ((item, by), (limit, said)) in quotas.items.iter_mut().zip(&mut quotas.bys).zip(said) {
            (*item, *by) = (*limit, *said);
            quotas.len += 1;
        }
        quotas
    }

    /// The same limits by other terms, but asked for ahead as before.
    pub fn under(&self, terms: Terms) -> Self {
        let (mut quotas, terms) = (*self, Terms { prefetch: self.prefetch, ..terms });
        quotas.items.iter_mut().take(quotas.len).for_each(|limit| limit.terms = terms);
        quotas
    }
}

fn of_window(max: u32, text: &[u8]) -> Option<Limit> {
    if let Some(window) = parse_window(text) {
        return Some(Limit::log(max, window));
    }
    let period: Period = str::from_utf8(text).ok()?.parse().ok()?;
    Some(Limit { algorithm: Algorithm::Fixed(period), ..Limit::log(max, period.longest()) })
}

fn algorithm_of(limit: &Limit, by: By) -> Result<Algorithm, QuotaError<'static>> {
    match (by, limit.algorithm) {
        (By::Gcra(_), Algorithm::Fixed(period)) => Err(QuotaError::GcraOfCalendar(period)),
        (By::Log, algorithm) | (By::Fixed, algorithm @ Algorithm::Fixed(_)) => Ok(algorithm),
        (By::Fixed, _) => Ok(Algorithm::Fixed(Period::of_window(limit.window))),
        (By::Gcra(burst), _) => {
            let burst = burst.unwrap_or(limit.max);
            let is_allowed = allows_burst(limit.max, limit.window, burst);
            is_allowed.then_some(Algorithm::Gcra { burst }).ok_or(QuotaError::BurstTooLong(burst))
        }
    }
}

/// Reads what stands behind BY.
///
/// # Errors
/// It is no algorithm, or its burst is no number, or there is nothing.
pub fn read_by<'a>(words: &mut Peekable<impl Iterator<Item = &'a [u8]>>) -> Result<By, QuotaError<'a>> {
    let name = words.next().ok_or(QuotaError::NoAlgorithm)?;
    let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
    if is(b"log") {
        return Ok(By::Log);
    } else if is(b"fixed") {
        return Ok(By::Fixed);
    } else if !is(b"gcra") {
        return Err(QuotaError::Algorithm(name));
    }
    if words.next_if(|word| word.eq_ignore_ascii_case(b"burst")).is_none() {
        return Ok(By::Gcra(None));
    }
    let text = words.next().ok_or(QuotaError::NoAlgorithm)?;
    parse_bounded(text, MAX_LIMIT).map(|burst| By::Gcra(Some(burst))).ok_or(QuotaError::Burst(text))
}

/// Reads what stands behind PREFETCH.
///
/// # Errors
/// It is neither a number of units nor a time, or out of range.
pub fn read_prefetch(text: &[u8]) -> Result<Prefetch, QuotaError<'_>> {
    let is_time = text.last().is_some_and(u8::is_ascii_alphabetic);
    let ms = || u16::try_from(parse_window(text)?.ms()).ok();
    let prefetch = match is_time {
        true => ms().filter(|ms| (MIN_PREFETCH_MS..=MAX_PREFETCH_MS).contains(ms)).map(Prefetch::Ms),
        false => parse_bounded(text, MAX_PREFETCH_UNITS).map(Prefetch::Units),
    };
    prefetch.ok_or(QuotaError::Prefetch(text))
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
        match self {
            Self::NoWindow => f.write_str("each limit must be followed by its window, as in '10 1m'"),
            Self::Limit(got) => write!(f, "limit must be an integer between 1 and {MAX_LIMIT}, not '{}'", quoted(got)),
            Self::LimitBehindWindow { window, limit } => {
                let (window, limit) = (quoted(window), quoted(limit));
                write!(f, "the limit comes before its window, as in '{limit} {window}'")
            }
            Self::Window(got) => write!(f, "window must be {ALLOWED_WINDOW}, not '{}'", quoted(got)),
            Self::WindowTwice(got) => write!(f, "window '{}' is named twice", quoted(got)),
            Self::CountedTwice(limit) => write!(f, "window '{}' is named twice, counted alike", limit.window),
            Self::TooMany => write!(f, "at most {MAX_LIMITS_PER_ASK} windows can be checked together"),
            Self::NoAlgorithm => f.write_str("BY must be followed by log, gcra [BURST n] or fixed"),
            Self::Algorithm(got) => write!(f, "BY must be log, gcra or fixed, not '{}'", quoted(got)),
            Self::Burst(got) => write!(f, "burst must be an integer between 1 and {MAX_LIMIT}, not '{}'", quoted(got)),
            Self::BurstTooLong(burst) => write!(
                f,
                "a burst must pass within {MAX_WINDOWS_TO_EMPTY} windows and 366d at the rate of its limit, and {burst} does \
                 not"
            ),
            Self::GcraOfCalendar(period) => {
                write!(f, "'{period}' is a period of the calendar, which is counted BY fixed, and not BY gcra")
            }
            Self::Prefetch(got) => write!(
                f,
                "prefetch must be an integer between 1 and {MAX_PREFETCH_UNITS}, or a time between {MIN_PREFETCH_MS}ms and \
                 {MAX_PREFETCH_MS}ms, not '{}'",
                quoted(got)
            ),
            Self::PrefetchOfNoLog => f.write_str(
                "only logs can be prefetched, and no window that is fixed, of the calendar, or counted BY gcra",
            ),
            Self::PrefetchOfOverride => f.write_str("an override is prefetched as its policy is"),
        }
    }
}

/// Limits as they are read again: each with its window, in the largest unit that is whole.
impl fmt::Display for Quotas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, limit) in self.as_slice().iter().enumerate() {
            let blank = if index == 0 { "" } else { " " };
            match limit.algorithm {
                Algorithm::Fixed(period) if period.is_of_calendar() => write!(f, "{blank}{} {period}", limit.max)?,
                _ => write!(f, "{blank}{} {}", limit.max, limit.window)?,
            }
            let by = self.bys.get(index).copied().flatten();
            let is_last = index + 1 == self.len || self.bys.get(index + 1) != Some(&by);
            match by.filter(|_| is_last) {
                None => Ok(()),
                Some(By::Log) => f.write_str(" BY log"),
                Some(By::Fixed) => f.write_str(" BY fixed"),
                Some(By::Gcra(None)) => f.write_str(" BY gcra"),
                Some(By::Gcra(Some(burst))) => write!(f, " BY gcra BURST {burst}"),
            }?;
        }
        self.prefetch.map_or(Ok(()), |prefetch| write!(f, " PREFETCH {prefetch}"))
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
            ("10 1s 5 Month+02:00", "10 1s 5 month+02:00"),
            ("10 1s 20 60 by GCRA", "10 1s 20 1m BY gcra"),
            ("10 1s BY gcra burst 15", "10 1s BY gcra BURST 15"),
            ("10 90s 7 week BY fixed", "10 90s 7 week BY fixed"),
            ("10 1s BY log", "10 1s BY log"),
            ("10 1s BY gcra 100 1m BY log 1000 month", "10 1s BY gcra 100 1m BY log 1000 month"),
            ("10 1s BY gcra BURST 5 100 1m 7 1h BY gcra BURST 5", "10 1s 100 1m 7 1h BY gcra BURST 5"),
            ("10 1s BY gcra 100 1m", "10 1s BY gcra 100 1m"),
            ("10 1s 20 1m prefetch 5", "10 1s 20 1m PREFETCH 5"),
            ("10 1s PREFETCH 20ms by log", "10 1s BY log PREFETCH 20ms"),
            ("10 1s PREFETCH 1s", "10 1s PREFETCH 1000ms"),
        ] {
            let quotas = Quotas::parse(text).unwrap();
            assert_eq!(quotas.to_string(), again);
            assert_eq!(Quotas::parse(again).unwrap().as_slice(), quotas.as_slice());
        }
    }

    #[test]
    fn what_is_wrong_with_a_text_is_told() {
        use QuotaError::*;
        let minute = super::Window::from_ms(60_000).unwrap();
        let gcra_of_a_minute =
            super::Limit { algorithm: super::Algorithm::Gcra { burst: 20 }, ..super::Limit::log(20, minute) };
        for (text, error) in [
            ("", NoWindow),
            ("10", NoWindow),
            ("10 1m 5", NoWindow),
            ("x 1m", Limit(b"x")),
            ("0 1m", Limit(b"0")),
            ("60s 10", LimitBehindWindow { window: b"60s", limit: b"10" }),
            ("10 367d", Window(b"367d")),
            ("10 60 20 1m", WindowTwice(b"1m")),
            ("10 60 20 1m BY fixed", WindowTwice(b"1m")),
            ("10 1m BY", NoAlgorithm),
            ("10 1m BY gcra BURST", NoAlgorithm),
            ("10 1m BY magic", Algorithm(b"magic")),
            ("10 1m BY gcra BURST 0", Burst(b"0")),
            ("10 1m BY gcra BURST 1001", BurstTooLong(1001)),
            ("BY gcra", Limit(b"BY")),
            ("10 1m PREFETCH", Prefetch(b"")),
            ("10 1m PREFETCH 0", Prefetch(b"0")),
            ("10 1m PREFETCH 1000001", Prefetch(b"1000001")),
            ("10 1m PREFETCH 1ms", Prefetch(b"1ms")),
            ("10 1m PREFETCH 2s", Prefetch(b"2s")),
            ("10 1m PREFETCH 20ms BY gcra", PrefetchOfNoLog),
            ("10 1m 20 day PREFETCH 20ms", PrefetchOfNoLog),
            ("10 1m BY log BY log", Limit(b"BY")),
            ("10 1m BY gcra 20 60 BY gcra", CountedTwice(gcra_of_a_minute)),
            ("1 1 2 2 3 3 4 4 5 5 6 6 7 7 8 8 9 9", TooMany),
        ] {
            assert_eq!(Quotas::parse(text).map(|_| ()), Err(error), "{text}");
        }
    }
}
