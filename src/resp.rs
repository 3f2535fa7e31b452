//! RESP as bytes: requests read ([`request`]), replies written ([`reply`], and [`breakdown`] for one of many parts),
//! other values passed by ([`scan`]).
//!
//! Requests are arrays of bulk strings or inline lines, nothing nested, so they are read in place, without a value
//! being built for any of them. This module knows no command.

pub(crate) mod breakdown;
pub(crate) mod reply;
pub mod request;
pub mod scan;

/// Parses a decimal integer as Redis does (`string2ll`): an optional minus, no plus, no leading zeros, no blanks.
pub(crate) fn parse_int(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [] | [b'0', ..] => return None,
        _ => {}
    }
    // Summed as a negative number, because i64::MIN has no positive counterpart.
    let mut value: i64 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_sub(i64::from(digit - b'0'))?;
    }
    if negative { Some(value) } else { value.checked_neg() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_strictly_as_redis_reads_them() {
        for (text, value) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("", None),
            ("-", None),
            ("-0", None),
            ("01", None),
            ("+1", None),
            (" 1", None),
            ("1x", None),
        ] {
            assert_eq!(parse_int(text.as_bytes()), value, "{text:?}");
        }
    }
}
