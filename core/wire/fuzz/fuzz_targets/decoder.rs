//! Any bytes, in two chunkings, decode to the same messages and the same end; whatever decodes
//! encodes to the bytes it came from.
//!
//! Random bytes never have a right checksum, so the input is also read as a list of frames whose
//! headers and checksums are made right: two bytes of kind and length, then the payload.

#![no_main]

use ktstr_wire::{Decoder, Encoder, Message, WireError};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    check(input);
    check(&framed(input));
});

fn check(stream: &[u8]) {
    let (messages, end) = decode(stream, stream.len().max(1));
    let piecewise = decode(stream, 7);
    assert_eq!(piecewise, (messages.clone(), end));

    let mut again = Vec::new();
    let mut encoder = Encoder::new();
    for message in &messages {
        encoder
            .encode(message, &mut again)
            .expect("it came out of a frame");
    }
    let (same, end) = decode(&again, again.len().max(1));
    assert_eq!((same, end), (messages, Ok(())));
}

fn decode(stream: &[u8], piece: usize) -> (Vec<Message>, Result<(), WireError>) {
    let mut decoder = Decoder::new();
    let mut messages = Vec::new();
    for bytes in stream.chunks(piece) {
        decoder.push(bytes);
        loop {
            match decoder.next() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Err(error)),
            }
        }
    }
    (messages, decoder.finish())
}

/// A greeting, then a frame with a right header for each `kind, length, payload` of the input.
fn framed(input: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    Encoder::new()
        .encode(&Message::hello("fuzz"), &mut stream)
        .expect("it is short");
    let mut rest = input;
    let mut seq = 1u32;
    while let [kind, len, after @ ..] = rest {
        let (payload, after) = after.split_at(usize::from(*len).min(after.len()));
        let mut head = ktstr_wire::MAGIC.to_le_bytes().to_vec();
        head.extend(u16::from(*kind).to_le_bytes());
        head.extend(0u16.to_le_bytes());
        head.extend(seq.to_le_bytes());
        head.extend((payload.len() as u32).to_le_bytes());
        let crc = crc32(head.iter().chain(payload));
        stream.extend(head);
        stream.extend(crc.to_le_bytes());
        stream.extend(payload);
        seq += 1;
        rest = after;
    }
    stream
}

/// The checksum bit by bit, as a second opinion on the one in use.
fn crc32<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    !bytes.fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 {
                crc >> 1 ^ 0xedb8_8320
            } else {
                crc >> 1
            }
        })
    })
}
