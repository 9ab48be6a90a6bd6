//! The sender's side.

use crate::frame::Header;
use crate::{CHUNK_LEN, MAX_PAYLOAD, Message, WireError, payload};

/// Turns messages into frames, numbered from 0.
#[derive(Debug, Clone, Default)]
pub struct Encoder {
    next_seq: u32,
}

impl Encoder {
    /// An encoder at the start of a stream. Its first message should be [`Message::Hello`].
    #[must_use]
    pub const fn new() -> Self {
        Self { next_seq: 0 }
    }

    /// Appends `message`'s frame to `out`.
    ///
    /// # Errors
    /// [`WireError::PayloadTooLong`] or [`WireError::Unencodable`]; then `out` and the numbering are
    /// as they were.
    pub fn encode(&mut self, message: &Message, out: &mut Vec<u8>) -> Result<(), WireError> {
        let kind = message.kind();
        let payload = payload::encode(message).map_err(|error| WireError::Unencodable {
            kind,
            reason: error.to_string(),
        })?;
        let len = match u32::try_from(payload.len()) {
            Ok(len) if payload.len() <= MAX_PAYLOAD => len,
            _ => {
                return Err(WireError::PayloadTooLong {
                    kind,
                    len: payload.len(),
                });
            }
        };
        let header = Header {
            kind: kind.number(),
            flags: 0,
            seq: self.next_seq,
            len,
        };
        header.write(&payload, out);
        self.next_seq = self.next_seq.wrapping_add(1);
        Ok(())
    }
}

/// Splits a long [`Message::Kmsg`], [`Message::Stdout`] or [`Message::Stderr`] into pieces of at most
/// [`CHUNK_LEN`] bytes, one message each, so that other messages get their turn in between. Nothing
/// makes no piece.
pub fn chunks(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.chunks(CHUNK_LEN)
}
