//! Limits, costs and windows as they are written.
//!
//! Many languages have floating-point numbers only, or make them by the way, and write a whole one as `60.0`, `1.0E7`
//! or `1e+06`. So a number may be written so wherever it is whole: what is meant is beyond doubt. The plain form is
//! tried first and costs nothing more for it, and no arithmetic here is in floating point.

use crate::limit::{MAX_WINDOW_MS, Window};
use crate::resp::parse_int;

/// Most digits of an exponent: some libraries write `1e+006`.
const MAX_EXPONENT_DIGITS: usize = 3;

/// A whole number from 1 to `max`.
pub fn parse_bounded(text: &[u8], max: u32) -> Option<u32> {
    u32::try_from(parse_number(text)?).ok().filter(|value| (1..=max).contains(value))
}

/// Seconds, or a number with a unit.
pub fn parse_window(text: &[u8]) -> Option<Window> {
    const UNITS_MS: [(&[u8], u64); 6] =
        [(b"", 1000), (b"ms", 1), (b"s", 1000), (b"m", 60_000), (b"h", 3_600_000), (b"d", 86_400_000)];
    // From the end, because an exponent has a letter too.
    let letters = text.iter().rev().take_while(|byte| byte.is_ascii_alphabetic()).count();
    let (number, unit) = text.split_at_checked(text.len() - letters)?;
    let (_, unit_ms) = UNITS_MS.iter().find(|(name, _)| *name == unit)?;
    // Beyond the longest window the product could overflow, so the number is bounded first.
    Window::from_ms(parse_number(number)?.min(MAX_WINDOW_MS + 1).checked_mul(*unit_ms)?)
}

fn parse_number(text: &[u8]) -> Option<u64> {
    match parse_int(text) {
        Some(value) => u64::try_from(value).ok(),
        None => parse_whole(text),
    }
}

/// Digits, a fraction, an exponent, as in `15`, `15.00`, `1.5e1` and `1.5E+01`, if the value is whole. No sign, and no
/// negative exponent: no language writes a whole number with one.
fn parse_whole(text: &[u8]) -> Option<u64> {
    let (mantissa, exponent) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (text.get(..at)?, parse_exponent(text.get(at + 1..)?)?),
        None => (text, 0),
    };
    let (whole, fraction) = match mantissa.iter().position(|byte| *byte == b'.') {
        Some(at) => (mantissa.get(..at)?, mantissa.get(at + 1..).filter(|fraction| !fraction.is_empty())?),
        None => (mantissa, &[][..]),
    };
    let mut value = u64::try_from(parse_int(whole)?).ok()?;
    let mut fraction = fraction.iter();
    for _ in 0..exponent {
        let digit = fraction.next().map_or(Some(0), digit)?;
        value = value.checked_mul(10)?.checked_add(digit)?;
    }
    fraction.all(|byte| *byte == b'0').then_some(value)
}

fn parse_exponent(text: &[u8]) -> Option<usize> {
    let digits = text.strip_prefix(b"+").unwrap_or(text);
    if !(1..=MAX_EXPONENT_DIGITS).contains(&digits.len()) {
        return None;
    }
    digits.iter().try_fold(0, |value, byte| Some(value * 10 + usize::try_from(digit(byte)?).ok()?))
}

fn digit(byte: &u8) -> Option<u64> {
    byte.is_ascii_digit().then(|| u64::from(byte - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_read_however_a_language_writes_them() {
        for (text, value) in [
            ("1", 1),
            ("60", 60),
            ("60.0", 60),
            ("60.00000000000000000000000", 60),
            ("1e3", 1_000),
            ("1E3", 1_000),
            ("1.0E7", 10_000_000),
            ("1e+06", 1_000_000),
            ("1e+006", 1_000_000),
            ("1.5e1", 15),
            ("1.50E+01", 15),
            ("6.00000000000000000000e+01", 60),
            ("1.23456789e8", 123_456_789),
            ("1e0", 1),
            ("1e9", 1_000_000_000),
        ] {
            assert_eq!(parse_bounded(text.as_bytes(), 1_000_000_000), Some(value), "{text}");
        }
    }

    #[test]
    fn what_is_no_whole_number_or_out_of_range_is_none() {
        for text in [
            "",
            ".",
            "0",
            "0.0",
            "-1",
            "-1.0",
            "+1",
            "+1.0",
            "1.",
            ".0",
            "1.5",
            "60.5",
            "1.23e1",
            "1e",
            "e1",
            "1e+",
            "1e-1",
            "10e-1",
            "1e1.0",
            "1e1e1",
            "1e0001",
            "1e999",
            "0e999",
            "01",
            "01.0",
            "1_000",
            "1,000",
            "1.0.0",
            " 1",
            "1 ",
            "1.0 ",
            "0x10",
            "0x1p4",
            "inf",
            "NaN",
            "1e10",
            "10000000000",
            "99999999999999999999.0",
            "18446744073709551617.0",
        ] {
            assert_eq!(parse_bounded(text.as_bytes(), 1_000_000_000), None, "{text}");
        }
    }

    #[test]
    fn a_window_is_any_such_number_with_or_without_a_unit() {
        for (text, ms) in [
            ("60", 60_000),
            ("60.0", 60_000),
            ("6e1", 60_000),
            ("60.0s", 60_000),
            ("1.0m", 60_000),
            ("6e4ms", 60_000),
            ("1.5e3ms", 1_500),
            ("366.0d", MAX_WINDOW_MS),
            ("1.0ms", 1),
        ] {
            assert_eq!(parse_window(text.as_bytes()).map(Window::ms), Some(ms), "{text}");
        }
        for text in [
            "", "s", "0", "0.0s", "60.5", "1.5m", "1.5s", "1e", "1es", "1.m", "1S", "1M", "1min", "1ss", "1s1", "-1s",
            "1 s", "367.0d",
        ] {
            assert_eq!(parse_window(text.as_bytes()), None, "{text}");
        }
    }
}
