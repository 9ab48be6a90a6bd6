//! Each error, at its exact offset.

use super::*;
use crate::{Encoder, HEADER_LEN, LogLevel, MAX_FRAME, MAX_PAYLOAD, PROTOCOL_VERSION, Stage};

/// `Message::hello("ab")` is this long.
const HELLO_LEN: usize = HEADER_LEN + 4;

fn stream(messages: &[Message]) -> Vec<u8> {
    let mut encoder = Encoder::new();
    let mut out = Vec::new();
    for message in messages {
        encoder.encode(message, &mut out).expect("test messages are short");
    }
    out
}

fn greeting() -> Vec<u8> {
    stream(&[Message::hello("ab")])
}

/// A greeting, then one frame with a right checksum and whatever else.
fn greeting_and(kind: u16, flags: u16, seq: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = greeting();
    let len = u32::try_from(payload.len()).expect("test payloads are short");
    Header { kind, flags, seq, len }.write(payload, &mut out);
    out
}

/// Decodes all of `bytes`: the messages, and the error that ended them.
fn decode(bytes: &[u8]) -> (Vec<Message>, Option<WireError>) {
    let mut decoder = Decoder::new();
    decoder.push(bytes);
    let mut messages = Vec::new();
    loop {
        match decoder.next() {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => return (messages, decoder.finish().err()),
            Err(error) => {
                assert_eq!(decoder.next(), Err(error.clone()), "an error stays");
                decoder.push(&greeting());
                assert_eq!(decoder.next(), Err(error.clone()), "an error stays after more bytes");
                assert_eq!(decoder.finish(), Err(error.clone()), "an error stays at the end");
                return (messages, Some(error));
            }
        }
    }
}

fn error_after_greeting(bytes: &[u8]) -> WireError {
    let (messages, error) = decode(bytes);
    assert_eq!(messages, [Message::hello("ab")]);
    error.expect("the stream is damaged")
}

const SECOND: u64 = HELLO_LEN as u64;

#[test]
fn nothing_is_no_error() {
    assert_eq!(decode(&[]), (vec![], None));
}

#[test]
fn messages_come_back_in_order() {
    let messages = [
        Message::hello("ab"),
        Message::Stage(Stage::Init),
        Message::Log { level: LogLevel::Info, text: "up".to_owned() },
        Message::Goodbye,
    ];
    assert_eq!(decode(&stream(&messages)), (messages.to_vec(), None));
}

#[test]
fn bad_magic() {
    let mut bytes = greeting();
    bytes.extend_from_slice(b"Oops");
    let error = error_after_greeting(&bytes);
    assert_eq!(error, WireError::BadMagic { offset: SECOND, seen: u32::from_le_bytes(*b"Oops") });
}

#[test]
fn bad_crc() {
    let mut bytes = stream(&[Message::hello("ab"), Message::Stdout(b"text".to_vec())]);
    let intact = bytes.clone();
    *bytes.last_mut().expect("not empty") ^= 1;
    let error = error_after_greeting(&bytes);
    let WireError::BadCrc { offset, stored, computed } = error else { panic!("{error:?}") };
    assert_eq!(offset, SECOND);
    assert_eq!(stored.to_le_bytes(), intact[HELLO_LEN + 16..HELLO_LEN + 20]);
    assert_ne!(stored, computed);
}

#[test]
fn oversized_is_refused_on_the_header_alone() {
    let len = u32::try_from(MAX_PAYLOAD + 1).expect("fits");
    let mut bytes = greeting_and(Kind::Stdout.number(), 0, 1, &[]);
    bytes[HELLO_LEN + 12..HELLO_LEN + 16].copy_from_slice(&len.to_le_bytes());
    assert_eq!(error_after_greeting(&bytes), WireError::Oversized { offset: SECOND, len });
}

#[test]
fn out_of_order() {
    for seen in [0, 2, u32::MAX] {
        let bytes = greeting_and(Kind::Goodbye.number(), 0, seen, &[]);
        let expected = WireError::OutOfOrder { offset: SECOND, expected: 1, seen };
        assert_eq!(error_after_greeting(&bytes), expected);
    }
}

#[test]
fn flags() {
    let bytes = greeting_and(Kind::Goodbye.number(), 0x8001, 1, &[]);
    assert_eq!(error_after_greeting(&bytes), WireError::BadFlags { offset: SECOND, flags: 0x8001 });
}

#[test]
fn unknown_kind() {
    for kind in [0, 9999, u16::MAX] {
        let bytes = greeting_and(kind, 0, 1, &[]);
        assert_eq!(error_after_greeting(&bytes), WireError::UnknownKind { offset: SECOND, kind });
    }
}

#[test]
fn malformed() {
    let bytes = greeting_and(Kind::Stage.number(), 0, 1, &[99]);
    let error = error_after_greeting(&bytes);
    let WireError::Malformed { offset, kind, .. } = error else { panic!("{error:?}") };
    assert_eq!((offset, kind), (SECOND, Kind::Stage));
}

#[test]
fn another_version_names_both() {
    let theirs = PROTOCOL_VERSION + 1;
    let hello = Message::Hello { version: theirs, build_id: "ab".to_owned() };
    let (messages, error) = decode(&stream(&[hello]));
    assert_eq!(messages, []);
    let error = error.expect("the version is refused");
    assert_eq!(error, WireError::Version { offset: 0, theirs });
    let text = error.to_string();
    for version in [theirs, PROTOCOL_VERSION] {
        assert!(text.contains(&format!("version {version}")), "{text}");
    }
}

#[test]
fn a_message_before_hello() {
    let (messages, error) = decode(&stream(&[Message::Goodbye]));
    assert_eq!(messages, []);
    let kind = Kind::Goodbye.number();
    assert_eq!(error, Some(WireError::NoHello { offset: 0, kind }));
}

#[test]
fn a_second_hello() {
    let bytes = stream(&[Message::hello("ab"), Message::hello("ab")]);
    assert_eq!(error_after_greeting(&bytes), WireError::SecondHello { offset: SECOND });
}

#[test]
fn truncated_anywhere() {
    let bytes = stream(&[Message::hello("ab"), Message::Stdout(b"text".to_vec())]);
    for cut in HELLO_LEN + 1..bytes.len() {
        let seen = cut - HELLO_LEN;
        let whole = if seen < HEADER_LEN { HEADER_LEN } else { HEADER_LEN + 4 };
        let expected = WireError::Truncated { offset: SECOND, seen, missing: whole - seen };
        assert_eq!(error_after_greeting(&bytes[..cut]), expected);
    }
}

#[test]
fn finishing_early_is_told() {
    let mut decoder = Decoder::new();
    decoder.push(&greeting());
    assert_eq!(decoder.finish(), Err(WireError::Undecoded { offset: 0 }));
    assert_eq!(decoder.next(), Ok(Some(Message::hello("ab"))));
    assert_eq!(decoder.finish(), Ok(()));
    assert_eq!(decoder.offset(), SECOND);
}

#[test]
fn a_backlog_is_bounded() {
    let mut decoder = Decoder::new();
    decoder.push(&vec![0; MAX_BUFFERED]);
    assert_eq!(decoder.failed, None);
    decoder.push(&[0]);
    let buffered = MAX_BUFFERED + 1;
    assert_eq!(decoder.next(), Err(WireError::Backlog { offset: 0, buffered }));
    assert_eq!(decoder.buffer.capacity(), 0, "a failed decoder holds nothing");
}

#[test]
fn the_longest_message_arrives_in_pieces() {
    let messages = [Message::hello("ab"), Message::Result(vec![7; MAX_PAYLOAD])];
    let bytes = stream(&messages);
    assert_eq!(bytes.len(), HELLO_LEN + MAX_FRAME);
    let mut decoder = Decoder::new();
    let mut decoded = Vec::new();
    for piece in bytes.chunks(1 << 20) {
        decoder.push(piece);
        while let Some(message) = decoder.next().expect("the stream is good") {
            decoded.push(message);
        }
    }
    assert!(decoded == messages, "the messages differ");
    assert_eq!(decoder.finish(), Ok(()));
}
