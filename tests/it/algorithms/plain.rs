//! What every algorithm is to answer, told as plainly as it can be, without a line of the code that it is compared with.

use std::collections::HashMap;
use tollgate::limit::{Algorithm, Counter, Limit, Period, PolicyName, Terms, Window};

pub const DAY_US: i128 = 86_400_000_000;

/// How a limit of a question is counted, by place in a list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Way {
    Log(u64),
    Gcra(u64),
    Fixed(u64),
    Calendar(&'static str),
}

#[derive(Debug, Clone)]
pub struct Question {
    pub key: usize,
    /// Way, limit and burst.
    pub limits: Vec<(Way, u32, u32)>,
    pub cost: u32,
    /// A policy's: it has states of its own.
    pub is_of_policy: bool,
    pub is_full: bool,
}

impl Question {
    pub fn limits(&self) -> Vec<Limit> {
        let terms = if self.is_of_policy { policy() } else { Terms::PLAIN };
        self.limits.iter().map(|limit| Limit { terms, ..limit_of(*limit) }).collect()
    }
}

pub fn policy() -> Terms {
    Terms { policy: PolicyName::new("mixed"), ..Terms::PLAIN }
}

pub fn limit_of((way, max, burst): (Way, u32, u32)) -> Limit {
    let window = |ms| Window::from_ms(ms).unwrap();
    match way {
        Way::Log(ms) => Limit::log(max, window(ms)),
        Way::Gcra(ms) => Limit { algorithm: Algorithm::Gcra { burst }, ..Limit::log(max, window(ms)) },
        Way::Fixed(ms) => {
            Limit { algorithm: Algorithm::Fixed(Period::of_window(window(ms))), ..Limit::log(max, window(ms)) }
        }
        Way::Calendar(word) => {
            let period: Period = word.parse().unwrap();
            Limit { algorithm: Algorithm::Fixed(period), ..Limit::log(max, period.longest()) }
        }
    }
}

/// What is counted. Times are whole numbers of microseconds, or fractions of them.
#[derive(Clone)]
enum Plain {
    Log(Vec<(i128, u32)>),
    /// A time as a fraction.
    Gcra(i128, i128),
    /// The beginning of the period, and what was counted in it.
    Fixed(i128, u64),
}

/// How a limit stands: whether the request fits, what remains without and with it, until it fits, until all is free
/// without and with it.
struct Stand {
    fits: bool,
    remaining: (i128, i128),
    fits_in_us: i128,
    empty_in_us: (i128, i128),
}

fn ceil_div(number: i128, by: i128) -> i128 {
    -(-number).div_euclid(by)
}

/// By counting days from 1970 on.
fn period_of(way: Way, now: i128) -> (i128, i128) {
    let every = |length: i128, since: i128| {
        let start = now - (now - since).rem_euclid(length);
        (start, start + length)
    };
    match way {
        Way::Calendar("day") => every(DAY_US, 0),
        Way::Calendar("week+02:00") => every(7 * DAY_US, 4 * DAY_US - 7_200_000_000),
        Way::Calendar(word) => {
            let shift = if word.ends_with("-05:30") { -19_800_000_000 } else { 0 };
            let is_leap = |year: i128| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let (mut start, mut year, mut month) = (-shift, 1970, 0);
            loop {
                let days = [31, 28 + i128::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
                let length = match word.starts_with("year") {
                    true => days.iter().sum(),
                    false => days[month],
                };
                if start + length * DAY_US > now {
                    return (start, start + length * DAY_US);
                }
                start += length * DAY_US;
                month = if word.starts_with("year") { 0 } else { (month + 1) % 12 };
                year += i128::from(month == 0);
            }
        }
        Way::Fixed(ms) => every(i128::from(ms) * 1000, 0),
        _ => unreachable!(),
    }
}

impl Plain {
    fn new(way: Way) -> Self {
        match way {
            Way::Log(_) => Self::Log(Vec::new()),
            Way::Gcra(_) => Self::Gcra(0, 1),
            _ => Self::Fixed(i128::MIN, 0),
        }
    }

    /// By how much GCRA's time is ahead, in parts of a microsecond of which there are `max`: rounded up where the limit
    /// has changed, as is written.
    fn ahead(time: i128, parts: i128, max: i128, now: i128) -> i128 {
        let (us, part) = (time.div_euclid(parts), time.rem_euclid(parts));
        let part = if parts == max || part == 0 { part } else { part * max / parts + 2 };
        if us < now {
            0
        } else {
            ((us - now) * max + part).min(if part >= max { (us - now + 1) * max } else { i128::MAX })
        }
    }

    fn stand(&self, (way, max, burst): (Way, u32, u32), cost: u32, now: i128) -> Stand {
        let (cost_i, max_i) = (i128::from(cost), i128::from(max));
        match self {
            Self::Log(entries) => {
                let Way::Log(ms) = way else { unreachable!() };
                let window = i128::from(ms) * 1000;
                let live: Vec<_> = entries.iter().filter(|(at, _)| at + window > now).collect();
                let used: i128 = live.iter().map(|(_, cost)| i128::from(*cost)).sum();
                let mut left = used;
                let freed = live.iter().find(|(_, cost)| {
                    left -= i128::from(*cost);
                    left + cost_i <= max_i
                });
                let empty = live.last().map_or(0, |(at, _)| at + window - now);
                Stand {
                    fits: used + cost_i <= max_i,
                    remaining: (max_i - used, max_i - used - cost_i),
                    fits_in_us: freed.map_or(0, |(at, _)| at + window - now),
                    empty_in_us: (empty, window),
                }
            }
            Self::Gcra(time, parts) => {
                let Way::Gcra(ms) = way else { unreachable!() };
                let interval = i128::from(ms) * 1000;
                let ahead = Self::ahead(*time, *parts, max_i, now);
                let (step, full) = (cost_i * interval, i128::from(burst) * interval);
                Stand {
                    fits: ahead + step <= full,
                    remaining: ((full - ahead).div_euclid(interval), (full - ahead - step).div_euclid(interval)),
                    fits_in_us: ceil_div(ahead + step - full, max_i),
                    empty_in_us: (ceil_div(ahead, max_i), ceil_div(ahead + step, max_i)),
                }
            }
            Self::Fixed(start, used) => {
                let (now_start, now_end) = period_of(way, now);
                let used = if *start < now_start { 0 } else { i128::from(*used) };
                let end = if *start > now_start { period_of(way, *start).1 } else { now_end };
                Stand {
                    fits: used + cost_i <= max_i,
                    remaining: (max_i - used, max_i - used - cost_i),
                    fits_in_us: end - now,
                    empty_in_us: (if used > 0 { end - now } else { 0 }, end - now),
                }
            }
        }
    }

    /// What remains, until more does, and until all does.
    fn figures(&self, limit: (Way, u32, u32), now: i128) -> (i128, i128, i128) {
        let stand = self.stand(limit, 1, now);
        let (remaining, empty_us) = (stand.remaining.0.max(0), stand.empty_in_us.0);
        let (way, max, burst) = limit;
        let next_us = match (self, way) {
            _ if empty_us == 0 => 0,
            (Self::Log(entries), Way::Log(ms)) => {
                let window = i128::from(ms) * 1000;
                let used_at = |time: i128| -> i128 {
                    entries.iter().filter(|(at, _)| at + window > time).map(|(_, cost)| i128::from(*cost)).sum()
                };
                let mut ends = entries.iter().map(|(at, _)| at + window).filter(|end| *end > now);
                ends.find(|end| i128::from(max) - used_at(*end) > remaining).unwrap() - now
            }
            (Self::Gcra(time, parts), Way::Gcra(ms)) => {
                let (interval, max) = (i128::from(ms) * 1000, i128::from(max));
                let lacking = Self::ahead(*time, *parts, max, now) + (remaining + 1 - i128::from(burst)) * interval;
                ceil_div(lacking, max)
            }
            _ => empty_us,
        };
        (remaining, next_us, empty_us)
    }

    fn count(&mut self, (way, max, _): (Way, u32, u32), cost: u32, now: i128) {
        match (self, way) {
            (Self::Log(entries), _) => entries.push((now, cost)),
            (Self::Gcra(time, parts), Way::Gcra(ms)) => {
                let max = i128::from(max);
                let ahead = Self::ahead(*time, *parts, max, now) + i128::from(cost) * i128::from(ms) * 1000;
                (*time, *parts) = (now * max + ahead, max);
            }
            (Self::Fixed(start, used), _) => {
                let now_start = period_of(way, now).0;
                if *start < now_start {
                    (*start, *used) = (now_start, 0);
                }
                *used += u64::from(cost);
            }
            _ => unreachable!(),
        }
    }
}

/// What is answered: the six integers, and of each limit what FULL tells, in its order.
#[derive(Debug, PartialEq)]
pub struct Answer {
    pub integers: [i64; 6],
    pub figures: Vec<[i64; 6]>,
}

#[derive(Default)]
pub struct Model(HashMap<(usize, Counter), Plain>);

impl Model {
    pub fn decide(&mut self, question: &Question, now: i128, counts: bool) -> Answer {
        let Question { key, limits, cost, .. } = question;
        let mut stands = Vec::new();
        let mut states = Vec::new();
        for (limit, of_code) in limits.iter().zip(question.limits()) {
            let plain = self.0.entry((*key, of_code.counter())).or_insert_with(|| Plain::new(limit.0));
            stands.push((plain.stand(*limit, *cost, now), capacity(limit)));
            states.push(plain.clone());
        }
        let denial = stands.iter().filter(|(stand, _)| !stand.fits).rev().max_by_key(|(stand, _)| ms(stand.fits_in_us));
        let integers = if let Some((stand, capacity)) = denial {
            let remaining = stand.remaining.0.max(0) as i64;
            [0, *capacity, remaining, ms(stand.fits_in_us), ms(stand.empty_in_us.0), 0]
        } else {
            states.iter_mut().zip(limits).for_each(|(plain, limit)| plain.count(*limit, *cost, now));
            let (stand, capacity) = stands.iter().min_by_key(|(stand, _)| stand.remaining.1).unwrap();
            [1, *capacity, stand.remaining.1 as i64, 0, ms(stand.empty_in_us.1), 0]
        };
        let figures = |place: usize| {
            let (limit, (stand, capacity)) = (limits[place], &stands[place]);
            let (remaining, next_us, empty_us) = states[place].figures(limit, now);
            let retry_after_ms = if stand.fits { 0 } else { ms(stand.fits_in_us) };
            let window_ms = length_ms(limit.0);
            [*capacity, window_ms, remaining as i64, retry_after_ms, ms(next_us), ms(empty_us)]
        };
        let figures = (0..limits.len()).map(figures).collect();
        if counts && denial.is_none() {
            for (plain, of_code) in states.into_iter().zip(question.limits()) {
                self.0.insert((*key, of_code.counter()), plain);
            }
        }
        Answer { integers, figures }
    }

    pub fn reset(&mut self, key: usize) {
        self.0.retain(|(of, _), _| *of != key);
    }
}

fn ms(us: i128) -> i64 {
    ceil_div(us, 1000) as i64
}

/// Of a period of the calendar the longest there is.
fn length_ms(way: Way) -> i64 {
    const DAY_MS: i64 = 86_400_000;
    match way {
        Way::Log(ms) | Way::Gcra(ms) | Way::Fixed(ms) => ms as i64,
        Way::Calendar(word) if word.starts_with("day") => DAY_MS,
        Way::Calendar(word) if word.starts_with("week") => 7 * DAY_MS,
        Way::Calendar(word) if word.starts_with("month") => 31 * DAY_MS,
        Way::Calendar(_) => 366 * DAY_MS,
    }
}

fn capacity((way, max, burst): &(Way, u32, u32)) -> i64 {
    i64::from(if matches!(way, Way::Gcra(_)) { *burst } else { *max })
}
