//! What can go wrong between two ends of a stream.

use crate::{HEADER_LEN, Kind, MAGIC, MAX_BUFFERED, MAX_PAYLOAD, PROTOCOL_VERSION};

/// Why a message can't be encoded, or a stream can't be decoded.
///
/// `offset` is always that of the first byte of the frame at fault, counted from the start of the
/// stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// A message to be sent is too long.
    #[error(
        "can't send a {kind:?} message: its payload of {len} bytes is more than {MAX_PAYLOAD}; \
         send it in chunks"
    )]
    PayloadTooLong {
        /// The kind of message.
        kind: Kind,
        /// Bytes of payload.
        len: usize,
    },
    /// A message to be sent can't be put into bytes.
    #[error("can't send a {kind:?} message: {reason}")]
    Unencodable {
        /// The kind of message.
        kind: Kind,
        /// The encoder's reason.
        reason: String,
    },
    /// There is no frame where one should begin.
    #[error(
        "guest stream at byte {offset}: expected a frame's magic {MAGIC:#010x}, found {seen:#010x}; \
         something else writes to this port"
    )]
    BadMagic {
        /// Offset of the frame.
        offset: u64,
        /// The four bytes found, little-endian.
        seen: u32,
    },
    /// A frame claims to be longer than any may be.
    #[error(
        "guest stream at byte {offset}: the frame claims {len} bytes of payload, more than {MAX_PAYLOAD}"
    )]
    Oversized {
        /// Offset of the frame.
        offset: u64,
        /// The claimed length.
        len: u32,
    },
    /// A frame isn't what was sent.
    #[error(
        "guest stream at byte {offset}: the frame's checksum is {stored:#010x}, its bytes give \
         {computed:#010x}; the guest or its memory is damaged"
    )]
    BadCrc {
        /// Offset of the frame.
        offset: u64,
        /// The checksum in the frame.
        stored: u32,
        /// The checksum of what arrived.
        computed: u32,
    },
    /// A frame has flags, which this version has none of.
    #[error("guest stream at byte {offset}: the frame has flags {flags:#06x}, expected 0")]
    BadFlags {
        /// Offset of the frame.
        offset: u64,
        /// The flags.
        flags: u16,
    },
    /// A frame was lost, repeated or swapped.
    #[error(
        "guest stream at byte {offset}: expected frame number {expected}, found {seen}; frames were lost or the guest restarted"
    )]
    OutOfOrder {
        /// Offset of the frame.
        offset: u64,
        /// The number that comes next.
        expected: u32,
        /// The number found.
        seen: u32,
    },
    /// A frame is of a kind that this version doesn't know.
    #[error(
        "guest stream at byte {offset}: unknown kind of message {kind}; build guest and host from the same ktstr"
    )]
    UnknownKind {
        /// Offset of the frame.
        offset: u64,
        /// The number found.
        kind: u16,
    },
    /// A payload isn't what its kind calls for.
    #[error("guest stream at byte {offset}: malformed {kind:?} message: {reason}")]
    Malformed {
        /// Offset of the frame.
        offset: u64,
        /// The kind of message.
        kind: Kind,
        /// The decoder's reason.
        reason: String,
    },
    /// The guest speaks another version.
    #[error(
        "guest stream at byte {offset}: the guest speaks protocol version {theirs}, this host \
         version {PROTOCOL_VERSION}; build both from the same ktstr"
    )]
    Version {
        /// Offset of the frame.
        offset: u64,
        /// The guest's version.
        theirs: u16,
    },
    /// The stream doesn't open with a greeting.
    #[error("guest stream at byte {offset}: expected a Hello message first, found kind {kind}")]
    NoHello {
        /// Offset of the frame.
        offset: u64,
        /// The number of the kind found.
        kind: u16,
    },
    /// There is a second greeting.
    #[error("guest stream at byte {offset}: a second Hello message; the guest's side was started twice")]
    SecondHello {
        /// Offset of the frame.
        offset: u64,
    },
    /// The stream ends inside a frame.
    #[error(
        "guest stream ends inside the frame at byte {offset}: {seen} bytes of it arrived, at least \
         {missing} are missing; the guest died while sending"
    )]
    Truncated {
        /// Offset of the frame.
        offset: u64,
        /// Bytes of it that arrived.
        seen: usize,
        /// Bytes that are missing; while fewer than a header's 20 arrived, of the header alone.
        missing: usize,
    },
    /// The stream was ended with whole frames not yet decoded.
    #[error(
        "guest stream ends with the frame at byte {offset} not yet decoded; take all messages before finishing"
    )]
    Undecoded {
        /// Offset of the frame.
        offset: u64,
    },
    /// Bytes were pushed faster than messages were taken.
    #[error(
        "guest stream at byte {offset}: {buffered} bytes wait to be decoded, more than \
         {MAX_BUFFERED}; take all messages after each push"
    )]
    Backlog {
        /// Offset of the first frame that waits.
        offset: u64,
        /// Bytes that would have to wait.
        buffered: usize,
    },
}

const _: () = assert!(HEADER_LEN == 20, "WireError::Truncated's doc names the header's length");
