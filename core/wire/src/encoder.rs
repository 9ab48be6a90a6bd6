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
        let payload = payload::encode(message)
            .map_err(|error| WireError::Unencodable { kind, reason: error.to_string() })?;
        let len = match u32::try_from(payload.len()) {
            Ok(len) if payload.len() <= MAX_PAYLOAD => len,
            _ => {
                return Err(WireError::PayloadTooLong { kind, len: payload.len() });
            }
        };
        let header = Header { kind: kind.number(), flags: 0, seq: self.next_seq, len };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, MAX_FRAME};

    #[test]
    fn a_message_too_long_leaves_everything_as_it_was() {
        let mut encoder = Encoder::new();
        let mut out = b"before".to_vec();
        let len = MAX_PAYLOAD + 1;
        let error = encoder.encode(&Message::Kmsg(vec![0; len]), &mut out);
        assert_eq!(error, Err(WireError::PayloadTooLong { kind: Kind::Kmsg, len }));
        assert_eq!(out, b"before");
        assert_eq!(encoder.next_seq, 0);
    }

    #[test]
    fn the_longest_message_fits() {
        let mut out = Vec::new();
        let sent = Encoder::new().encode(&Message::Result(vec![7; MAX_PAYLOAD]), &mut out);
        assert_eq!(sent, Ok(()));
        assert_eq!(out.len(), MAX_FRAME);
    }

    #[test]
    fn numbering_wraps() {
        let mut encoder = Encoder { next_seq: u32::MAX };
        assert_eq!(encoder.encode(&Message::Goodbye, &mut Vec::new()), Ok(()));
        assert_eq!(encoder.next_seq, 0);
    }

    #[test]
    fn chunks_hold_all_bytes_in_order() {
        let bytes: Vec<u8> = (0..=255).cycle().take(2 * CHUNK_LEN + 1).collect();
        let pieces: Vec<&[u8]> = chunks(&bytes).collect();
        let lengths: Vec<usize> = pieces.iter().map(|piece| piece.len()).collect();
        assert_eq!(lengths, [CHUNK_LEN, CHUNK_LEN, 1]);
        assert_eq!(pieces.concat(), bytes);
        assert_eq!(chunks(&[]).count(), 0);
    }
}
