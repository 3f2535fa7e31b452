//! Periods of time that follow each other without a gap: windows counted from 1970 on, or those of the calendar. Times are
//! microseconds since 1970, UTC; the calendar is the Gregorian one, as it always had been in use. lua/counters.lua does
//! the same arithmetic.

use super::Window;
use std::fmt::{self, Display, Write};
use std::str::FromStr;

const MINUTE_US: i64 = 60_000_000;
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
const DAY_US: i64 = 24 * 60 * MINUTE_US;
/// 1970 began on the fourth day of a week, which begins on Monday.
const DAYS_OF_WEEK_BEFORE_1970: i64 = 3;
/// A place's clock is less than a day from UTC.
const MAX_OFFSET_MIN: i16 = 24 * 60 - 1;

/// How long a period is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Unit {
    /// A window.
    Window(Window),
    Hour,
    Day,
    /// From Monday on.
    Week,
    Month,
    Year,
}

/// The names of those of the calendar.
const NAMES: [(&str, Unit); 5] =
    [("hour", Unit::Hour), ("day", Unit::Day), ("week", Unit::Week), ("month", Unit::Month), ("year", Unit::Year)];

/// Which periods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Period {
    unit: Unit,
    /// By how much the clock of the place is ahead of UTC, in minutes.
    offset_min: i16,
}

/// One period: from `start_us` to before `end_us`. May begin before 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub start_us: i64,
    pub end_us: i64,
}

impl Period {
    /// Those of a window's length.
    pub const fn of_window(window: Window) -> Self {
        Self { unit: Unit::Window(window), offset_min: 0 }
    }

    /// The longest that one of them lasts.
    pub const fn longest(self) -> Window {
        let ms = match self.unit {
            Unit::Window(window) => return window,
            Unit::Hour => HOUR_MS,
            Unit::Day => DAY_MS,
            Unit::Week => 7 * DAY_MS,
            Unit::Month => 31 * DAY_MS,
            Unit::Year => 366 * DAY_MS,
        };
        // All of them are in range.
        match Window::from_ms(ms) {
            Some(window) => window,
            None => Window::MIN,
        }
    }

    /// Whether they are the calendar's.
    pub const fn is_of_calendar(self) -> bool {
        !matches!(self.unit, Unit::Window(_))
    }

    /// The months of one, if it is made of those; else its length in microseconds. And by how much its clock is ahead.
    fn length(self) -> (Result<i64, i64>, i64) {
        let offset_us = i64::from(self.offset_min) * MINUTE_US;
        match self.unit {
            Unit::Month => (Ok(1), offset_us),
            Unit::Year => (Ok(12), offset_us),
            Unit::Week => (Err(7 * DAY_US), offset_us + DAYS_OF_WEEK_BEFORE_1970 * DAY_US),
            // No window is as long as 2^63 us.
            _ => (Err(self.longest().us() as i64), offset_us),
        }
    }

    /// The one that a time is in.
    pub(super) fn around(self, unix_us: u64) -> Span {
        let (length, ahead_us) = self.length();
        // A time that overflows is not one of this calendar; the longest is as good.
        let shifted_us = i64::try_from(unix_us).unwrap_or(i64::MAX / 2) + ahead_us;
        let (start_us, end_us) = match length {
            Err(length_us) => {
                let start_us = shifted_us - shifted_us.rem_euclid(length_us);
                (start_us, start_us + length_us)
            }
            Ok(months) => {
                let month = month_of(shifted_us.div_euclid(DAY_US));
                let first = month - month.rem_euclid(months);
                (days_before(first) * DAY_US, days_before(first + months) * DAY_US)
            }
        };
        Span { start_us: start_us - ahead_us, end_us: end_us - ahead_us }
    }

    /// Appends it as lua/counters.lua reads it.
    pub(super) fn pack(self, out: &mut Vec<u8>) {
        const OF_US: u8 = 2;
        const OF_MONTHS: u8 = 3;
        let (length, ahead_us) = self.length();
        let (kind, number) = match length {
            Err(length_us) => (OF_US, length_us),
            Ok(months) => (OF_MONTHS, months),
        };
        out.push(kind);
        // Far below 2^53, so that doubles hold them exactly.
        out.extend_from_slice(&(number as f64).to_le_bytes());
        out.extend_from_slice(&(ahead_us as f64).to_le_bytes());
    }

    /// Appends its name: the length in milliseconds, or the calendar's word and, unless that is UTC, the minutes by which
    /// the place's clock is ahead.
    pub(super) fn write_name(self, out: &mut Vec<u8>) {
        let mut name = String::new();
        // A string takes whatever is written to it.
        let _ = match (self.unit, self.word()) {
            (Unit::Window(window), _) => write!(name, "{}", window.ms()),
            (_, word) if self.offset_min == 0 => write!(name, "{word}"),
            (_, word) => write!(name, "{word}{:+}", self.offset_min),
        };
        out.extend_from_slice(name.as_bytes());
    }

    /// The one of this name.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        if let Some(window) = super::log::of_name(name) {
            return Some(Self::of_window(window));
        }
        let (unit, rest) = unit_of(name)?;
        let offset_min = if rest.is_empty() { 0 } else { rest.parse().ok()? };
        let period = Self { unit, offset_min };
        // One counter has one name.
        let mut same = Vec::new();
        period.write_name(&mut same);
        ((-MAX_OFFSET_MIN..=MAX_OFFSET_MIN).contains(&offset_min) && same == name.as_bytes()).then_some(period)
    }

    fn word(self) -> &'static str {
        NAMES.iter().find(|(_, unit)| *unit == self.unit).map_or("", |(word, _)| word)
    }
}

/// What a calendar's word at the beginning stands for, and what follows.
fn unit_of(text: &str) -> Option<(Unit, &str)> {
    NAMES.iter().find_map(|(word, unit)| Some((*unit, text.strip_prefix(word)?)))
}

/// Of the calendar, as it is written in a command: `month`, or `month+02:00` where the clock is two hours ahead of UTC.
impl FromStr for Period {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let text = text.to_ascii_lowercase();
        let (unit, rest) = unit_of(&text).ok_or(())?;
        let sign = match rest.as_bytes() {
            [] => return Ok(Self { unit, offset_min: 0 }),
            [b'+', _, _, b':', _, _] => 1,
            [b'-', _, _, b':', _, _] => -1,
            _ => return Err(()),
        };
        let number = |range| rest.get(range).filter(|text: &&str| text.bytes().all(|byte| byte.is_ascii_digit()));
        let part = |range| number(range).and_then(|text| text.parse::<i16>().ok()).ok_or(());
        let (hours, minutes) = (part(1..3)?, part(4..6)?);
        if hours > 23 || minutes > 59 {
            return Err(());
        }
        Ok(Self { unit, offset_min: sign * (hours * 60 + minutes) })
    }
}

/// As it is written in a command.
impl Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, minutes) = (if self.offset_min < 0 { '-' } else { '+' }, self.offset_min.unsigned_abs());
        match (self.unit, minutes) {
            (Unit::Window(window), _) => write!(f, "{}ms", window.ms()),
            (_, 0) => f.write_str(self.word()),
            _ => write!(f, "{}{sign}{:02}:{:02}", self.word(), minutes / 60, minutes % 60),
        }
    }
}

/// Days from 1970 to the beginning of a month, counted from the year 0.
fn days_before(month: i64) -> i64 {
    // Years begin in March, so that the day that comes and goes is their last.
    let (year, month) = ((month - 2).div_euclid(12), (month - 2).rem_euclid(12));
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (153 * month + 2) / 5 - 719_468
}

/// The month, counted from the year 0, that a day since 1970 is in.
fn month_of(days: i64) -> i64 {
    const DAYS_OF_400_YEARS: i64 = 146_097;
    const DAYS_FROM_YEAR_0: i64 = 719_528;
    // By the average length, which the months' beginnings are less than one away from: not too early.
    let mut month = ((days + DAYS_FROM_YEAR_0) * 4800).div_euclid(DAYS_OF_400_YEARS) + 1;
    while days_before(month) > days {
        month -= 1;
    }
    month
}

#[cfg(test)]
mod tests {
    use super::*;

    fn period(text: &str) -> Period {
        text.parse().unwrap()
    }

    /// Days since 1970, counted one by one, with the year, month (from 1) and day of each.
    fn days() -> impl Iterator<Item = (i64, i64, i64, i64)> {
        let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let mut number = -1;
        (1970..2420)
            .flat_map(move |year| {
                (1..=12).flat_map(move |month| {
                    let length = match month {
                        2 => 28 + i64::from(is_leap(year)),
                        4 | 6 | 9 | 11 => 30,
                        _ => 31,
                    };
                    (1..=length).map(move |day| (year, month, day))
                })
            })
            .map(move |(year, month, day)| {
                number += 1;
                (number, year, month, day)
            })
    }

    #[test]
    fn every_day_of_450_years_is_in_the_month_and_year_that_counting_finds() {
        let (mut month_start, mut year_start) = (0, 0);
        for (number, year, month, day) in days() {
            month_start = if day == 1 { number } else { month_start };
            year_start = if (month, day) == (1, 1) { number } else { year_start };
            assert_eq!(month_of(number), year * 12 + month - 1);
            let at_us = (number * DAY_US + 12_345) as u64;
            assert_eq!(period("month").around(at_us).start_us, month_start * DAY_US);
            assert_eq!(period("year").around(at_us).start_us, year_start * DAY_US);
        }
    }

    /// Where one period ends the next begins, and each holds the times that it is said to be around.
    #[test]
    fn periods_follow_each_other_without_a_gap() {
        for text in ["hour", "day", "week", "month", "year", "month+02:00", "week-09:30", "day+14:00", "hour+00:30"] {
            let period = period(text);
            let mut span = period.around(1_790_000_000_000_000);
            for _ in 0..500 {
                let next = period.around(span.end_us as u64);
                assert_eq!(next.start_us, span.end_us, "{text}");
                assert_eq!(period.around(span.end_us as u64 - 1), span, "{text}");
                assert!((next.end_us - next.start_us) as u64 <= period.longest().us(), "{text}");
                span = next;
            }
        }
    }

    /// Against `date -u -d ... +%s`.
    #[test]
    fn edges_are_where_a_calendar_has_them() {
        for (text, at_s, start_s, end_s) in [
            ("hour", 1_772_368_496, 1_772_366_400, 1_772_370_000),
            ("day", 1_772_368_496, 1_772_323_200, 1_772_409_600),
            // Monday, 23 February to Monday, 2 March 2026.
            ("week", 1_772_368_496, 1_771_804_800, 1_772_409_600),
            ("month", 1_772_323_200, 1_772_323_200, 1_775_001_600),
            ("month", 1_772_323_199, 1_769_904_000, 1_772_323_200),
            ("month+02:00", 1_772_323_199, 1_772_316_000, 1_774_994_400),
            ("month-02:00", 1_772_323_200, 1_769_911_200, 1_772_330_400),
            ("year", 1_772_368_496, 1_767_225_600, 1_798_761_600),
            // 2000 was a leap year, and its February had 29 days.
            ("month", 951_782_400, 949_363_200, 951_868_800),
        ] {
            let Span { start_us, end_us } = period(text).around(at_s * 1_000_000);
            assert_eq!((start_us / 1_000_000, end_us / 1_000_000), (start_s, end_s), "{text} at {at_s}");
        }
    }

    #[test]
    fn a_period_is_read_as_it_is_written() {
        for text in ["hour", "day+05:45", "week-09:30", "month+02:00", "year-00:01"] {
            let period = period(text);
            assert_eq!(period.to_string(), text);
            let mut name = Vec::new();
            period.write_name(&mut name);
            assert_eq!(Period::of_name(std::str::from_utf8(&name).unwrap()), Some(period));
        }
        assert_eq!(period("Month+00:00"), period("month"));
        for text in
            ["", "mon", "months", "month+", "month+2:00", "month+24:00", "month+02:60", "month+0200", "month 02:00"]
        {
            assert_eq!(text.parse::<Period>(), Err(()), "{text}");
        }
        for name in ["month+0", "month+02", "month+1440", "month+x", "hour+02:00", "+120", ""] {
            assert_eq!(Period::of_name(name), None, "{name}");
        }
    }
}
