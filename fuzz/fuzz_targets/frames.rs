//! Requests and replies as bytes. The first byte says where the rest is cut in two: what is found must not depend on
//! how the bytes came.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate::resp::request::{Limits, Parser, ProtocolError};
use tollgate::resp::scan::{Malformed, Scanner, flat_values};

const MAX_BULK_BYTES: usize = 1 << 20;

fuzz_target!(|input: &[u8]| {
    let Some((cut, data)) = input.split_first() else { return };
    let (head, tail) = data.split_at(usize::from(*cut).min(data.len()));
    requests(head, data);
    assert_eq!(values(&[data]), values(&[head, tail]));
    flat(data);
});

/// What is counted off at once ends where it ends when it is scanned.
fn flat(data: &[u8]) {
    let (count, taken) = flat_values(data, u64::MAX);
    let (ends, _) = values(&[data]);
    assert_eq!(taken, count.checked_sub(1).map_or(0, |last| ends[last as usize]));
}

/// A request that is whole, or wrong, in the beginning of the bytes is just that in all of them.
fn requests(head: &[u8], data: &[u8]) {
    let mut parser = Parser::default();
    let (early, late) = (read(&mut parser, head), read(&mut parser, data));
    if early != Ok(None) {
        assert_eq!(early, late);
    }
    let mut rest = data;
    while let Ok(Some(length)) = read(&mut parser, rest) {
        assert!(length > 0 && length <= rest.len());
        rest = &rest[length..];
    }
}

fn read(parser: &mut Parser, data: &[u8]) -> Result<Option<usize>, ProtocolError> {
    let outcome = parser.parse(data, Limits::of_bulk(MAX_BULK_BYTES));
    let args = parser.args(data);
    assert!(args.len() <= data.len());
    assert!(args.from(0).map(<[u8]>::len).sum::<usize>() <= data.len());
    outcome
}

/// Where the values in a stream end, for as long as it is RESP.
fn values(pieces: &[&[u8]]) -> (Vec<usize>, Result<(), Malformed>) {
    let (mut scanner, mut ends, mut at) = (Scanner::default(), Vec::new(), 0);
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            match scanner.scan(rest) {
                Ok((length, complete)) => {
                    assert!(length <= rest.len() && (length > 0 || complete));
                    at += length;
                    rest = &rest[length..];
                    if complete {
                        ends.push(at);
                    } else if length == 0 {
                        break;
                    }
                }
                Err(error) => return (ends, Err(error)),
            }
        }
    }
    (ends, Ok(()))
}
