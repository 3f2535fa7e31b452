//! Requests and replies as bytes. The first byte says where the rest is cut in two: what is found must not depend on
//! how the bytes came. And it must be what redis-protocol finds, wherever the bytes are RESP2 as Redis writes it.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use redis_protocol::resp2::decode::decode_bytes;
use redis_protocol::resp2::encode::extend_encode;
use redis_protocol::resp2::types::BytesFrame;
use tollgate::resp::request::{Limits, Parser, ProtocolError};
use tollgate::resp::scan::{Malformed, Scanner, flat_values};

const MAX_BULK_BYTES: usize = 1 << 20;
/// As many arrays are shown to redis-protocol, which recurses where they nest.
const MAX_ARRAYS: usize = 200;

fuzz_target!(|input: &[u8]| {
    let Some((cut, data)) = input.split_first() else { return };
    let (head, tail) = data.split_at(usize::from(*cut).min(data.len()));
    requests(head, data);
    assert_eq!(values(&[data]), values(&[head, tail]));
    flat(data);
    if let Some((frame, length)) = frame_by_redis_protocol(data) {
        assert_eq!(values(&[data]).0.first(), Some(&length));
        request_is(&frame, length, data);
    }
});

/// The frame that the bytes begin with, and its length, if it is written as Redis writes it. Redis-protocol takes more:
/// numbers with a plus sign or leading zeros, any two bytes behind a string, a line feed alone within a line. Tollgate
/// takes such requests as Redis does, and such replies do not come.
fn frame_by_redis_protocol(data: &[u8]) -> Option<(BytesFrame, usize)> {
    if data.iter().filter(|byte| **byte == b'*').count() > MAX_ARRAYS {
        return None;
    }
    let (frame, length) = decode_bytes(&Bytes::copy_from_slice(data)).ok()??;
    let mut written = BytesMut::new();
    extend_encode(&mut written, &frame, false).ok()?;
    (written == data[..length] && !breaks_a_line(&frame)).then_some((frame, length))
}

fn breaks_a_line(frame: &BytesFrame) -> bool {
    match frame {
        BytesFrame::SimpleString(text) => text.contains(&b'\n'),
        BytesFrame::Error(text) => text.contains('\n'),
        BytesFrame::Array(frames) => frames.iter().any(breaks_a_line),
        _ => false,
    }
}

/// A frame that is an array of strings is that request.
fn request_is(frame: &BytesFrame, length: usize, data: &[u8]) {
    let BytesFrame::Array(frames) = frame else { return };
    let word = |frame: &BytesFrame| match frame {
        BytesFrame::BulkString(word) => Some(word.clone()),
        _ => None,
    };
    let Some(words) = frames.iter().map(word).collect::<Option<Vec<Bytes>>>() else { return };
    let mut parser = Parser::default();
    assert_eq!(read(&mut parser, data), Ok(Some(length)));
    assert!(parser.args(data).from(0).eq(words.iter().map(|word| &**word)));
}

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
