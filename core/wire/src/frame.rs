//! The layout of a frame: everything that both ends must agree on.
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0..4 | magic | [`MAGIC`] |
//! | 4..6 | kind | [`Kind`] |
//! | 6..8 | flags | 0 |
//! | 8..12 | seq | 0 for the first frame, one more for each next, wrapping |
//! | 12..16 | len | bytes of payload, at most [`MAX_PAYLOAD`] |
//! | 16..20 | crc32 | of bytes 0..16 and the payload (IEEE 802.3 polynomial) |
//! | 20.. | payload | by kind, see `payload.rs` |
//!
//! All numbers are little-endian.

use std::ops::Range;

use crate::WireError;

/// Version of the layout and of the messages. Any change to either makes it one more.
pub const PROTOCOL_VERSION: u16 = 2;

/// The first four bytes of a frame: a byte that no text has, then `KTS`.
pub const MAGIC: u32 = u32::from_le_bytes([0xb5, b'K', b'T', b'S']);

/// Bytes before the payload.
pub const HEADER_LEN: usize = 20;

/// The most bytes that a payload may have: 16 MiB.
pub const MAX_PAYLOAD: usize = 16 << 20;

/// The most bytes that a frame may have.
pub const MAX_FRAME: usize = HEADER_LEN + MAX_PAYLOAD;

/// The most bytes that a decoder holds at once.
pub const MAX_BUFFERED: usize = 2 * MAX_FRAME;

/// How many bytes of a long stream a sender puts in one message: 64 KiB.
pub const CHUNK_LEN: usize = 64 << 10;

const MAGIC_AT: Range<usize> = 0..4;
const KIND_AT: Range<usize> = 4..6;
const FLAGS_AT: Range<usize> = 6..8;
const SEQ_AT: Range<usize> = 8..12;
const LEN_AT: Range<usize> = 12..16;
const CRC_AT: Range<usize> = 16..20;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// What a frame's payload is. Numbers are never reused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u16)]
        #[non_exhaustive]
        pub enum Kind {
            $($(#[$doc])* $name = $number,)*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The kind of this number.
            #[must_use]
            pub const fn from_number(number: u16) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// [`Message::Hello`](crate::Message::Hello).
    Hello = 1,
    /// [`Message::Stage`](crate::Message::Stage).
    Stage = 2,
    /// [`Message::Stimulus`](crate::Message::Stimulus).
    Stimulus = 3,
    /// [`Message::Result`](crate::Message::Result).
    Result = 4,
    /// [`Message::ExitCode`](crate::Message::ExitCode).
    ExitCode = 5,
    /// [`Message::Panic`](crate::Message::Panic).
    Panic = 6,
    /// [`Message::FatalSignal`](crate::Message::FatalSignal).
    FatalSignal = 7,
    /// [`Message::Kmsg`](crate::Message::Kmsg).
    Kmsg = 8,
    /// [`Message::Stdout`](crate::Message::Stdout).
    Stdout = 9,
    /// [`Message::Stderr`](crate::Message::Stderr).
    Stderr = 10,
    /// [`Message::Log`](crate::Message::Log).
    Log = 11,
    /// [`Message::Goodbye`](crate::Message::Goodbye).
    Goodbye = 12,
    /// [`Message::TimedOut`](crate::Message::TimedOut).
    TimedOut = 13,
    /// [`Message::SchedulerLog`](crate::Message::SchedulerLog).
    SchedulerLog = 14,
    /// [`Message::SchedulerReports`](crate::Message::SchedulerReports).
    SchedulerReports = 15,
    /// [`Message::Request`](crate::Message::Request).
    Request = 16,
}

impl Kind {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }
}

/// A frame's header, without magic and checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) seq: u32,
    pub(crate) len: u32,
}

impl Header {
    /// Appends a whole frame. `len` must be the payload's length.
    pub(crate) fn write(&self, payload: &[u8], out: &mut Vec<u8>) {
        let mut bytes = [0; HEADER_LEN];
        bytes[MAGIC_AT].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[KIND_AT].copy_from_slice(&self.kind.to_le_bytes());
        bytes[FLAGS_AT].copy_from_slice(&self.flags.to_le_bytes());
        bytes[SEQ_AT].copy_from_slice(&self.seq.to_le_bytes());
        bytes[LEN_AT].copy_from_slice(&self.len.to_le_bytes());
        let crc = checksum(&bytes[..CRC_AT.start], payload);
        bytes[CRC_AT].copy_from_slice(&crc.to_le_bytes());
        out.reserve(HEADER_LEN + payload.len());
        out.extend_from_slice(&bytes);
        out.extend_from_slice(payload);
    }
}

/// The frame at the start of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed<'a> {
    /// It is whole and its checksum is right.
    Frame(Header, &'a [u8]),
    /// At least this many bytes are missing.
    Missing(usize),
}

/// Looks at the frame at the start of `bytes`, which begin `offset` bytes into the stream. Magic and
/// length are checked as soon as they are there, the checksum once the frame is whole.
pub(crate) fn parse(bytes: &[u8], offset: u64) -> Result<Parsed<'_>, WireError> {
    if let Some(seen) = u32_at(bytes, MAGIC_AT).filter(|&seen| seen != MAGIC) {
        return Err(WireError::BadMagic { offset, seen });
    }
    let Some((head, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
        return Ok(Parsed::Missing(HEADER_LEN - bytes.len()));
    };
    let (kind, flags) = (u16_in(head, KIND_AT), u16_in(head, FLAGS_AT));
    let (seq, len, crc) = (u32_in(head, SEQ_AT), u32_in(head, LEN_AT), u32_in(head, CRC_AT));
    let payload_len = usize::try_from(len).unwrap_or(usize::MAX);
    if payload_len > MAX_PAYLOAD {
        return Err(WireError::Oversized { offset, len });
    }
    let Some(payload) = rest.get(..payload_len) else {
        return Ok(Parsed::Missing(payload_len - rest.len()));
    };
    let computed = checksum(&head[..CRC_AT.start], payload);
    if computed != crc {
        return Err(WireError::BadCrc { offset, stored: crc, computed });
    }
    Ok(Parsed::Frame(Header { kind, flags, seq, len }, payload))
}

fn checksum(head: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(payload);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: Range<usize>) -> Option<u32> {
    let bytes = bytes.get(at)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn u32_in(head: &[u8; HEADER_LEN], at: Range<usize>) -> u32 {
    (head[at].iter().rev()).fold(0, |value, &byte| value << 8 | u32::from(byte))
}

fn u16_in(head: &[u8; HEADER_LEN], at: Range<usize>) -> u16 {
    (head[at].iter().rev()).fold(0, |value, &byte| value << 8 | u16::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_the_documented_bytes() {
        // Computed apart from this crate, with Python's struct and zlib.crc32.
        let expected = "b54b54530900000002000000030000001e6259d968690a";
        let header = Header { kind: Kind::Stdout.number(), flags: 0, seq: 2, len: 3 };
        let mut bytes = Vec::new();
        header.write(b"hi\n", &mut bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
        assert_eq!(parse(&bytes, 0), Ok(Parsed::Frame(header, b"hi\n")));
    }

    #[test]
    fn a_part_of_a_frame_says_how_much_is_missing() {
        let mut bytes = Vec::new();
        Header { kind: 8, flags: 0, seq: 0, len: 5 }.write(b"hello", &mut bytes);
        for cut in 0..bytes.len() {
            let whole = if cut < HEADER_LEN { HEADER_LEN } else { bytes.len() };
            assert_eq!(parse(&bytes[..cut], 0), Ok(Parsed::Missing(whole - cut)), "cut at {cut}");
        }
    }

    #[test]
    fn kinds_and_numbers_match_both_ways() {
        for &kind in Kind::ALL {
            assert_eq!(Kind::from_number(kind.number()), Some(kind));
        }
        let known = (0..=u16::MAX).filter(|&number| Kind::from_number(number).is_some());
        assert_eq!(known.count(), Kind::ALL.len());
    }
}
