//! The receiver's side. What arrives is hostile until proven otherwise.

use crate::frame::{self, Header, Parsed};
use crate::payload::PayloadError;
use crate::{Kind, MAX_BUFFERED, Message, WireError, payload};

/// Turns the bytes of a stream, in whatever chunks they arrive, into messages.
///
/// Push a chunk, then take messages until there is none; at the end of the stream
/// [`finish`](Self::finish) tells whether it ended between two frames. The first error ends the
/// stream: every later call returns it again, and further bytes are dropped. At most
/// [`MAX_BUFFERED`] bytes are held.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Where in `buffer` the next frame starts.
    start: usize,
    /// Where in the stream the next frame starts.
    offset: u64,
    next_seq: u32,
    greeted: bool,
    failed: Option<WireError>,
}

impl Decoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub const fn new() -> Self {
        Self { buffer: Vec::new(), start: 0, offset: 0, next_seq: 0, greeted: false, failed: None }
    }

    /// Adds the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_some() {
            return;
        }
        let buffered = self.pending().len().saturating_add(bytes.len());
        if buffered > MAX_BUFFERED {
            self.fail(WireError::Backlog { offset: self.offset, buffered });
            return;
        }
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, or `None` when more bytes are needed first.
    ///
    /// # Errors
    /// [`WireError`] when the stream is damaged, out of order or of another version.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator's None is the end, this one's only means not yet"
    )]
    pub fn next(&mut self) -> Result<Option<Message>, WireError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.decode().inspect_err(|error| self.fail(error.clone()))
    }

    /// Checks that the stream ended between two frames.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when it ended inside one, [`WireError::Undecoded`] when messages are
    /// still to be taken, or the error that ended it before.
    pub fn finish(&self) -> Result<(), WireError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let (offset, seen) = (self.offset, self.pending().len());
        if seen == 0 {
            return Ok(());
        }
        match frame::parse(self.pending(), offset)? {
            Parsed::Missing(missing) => Err(WireError::Truncated { offset, seen, missing }),
            Parsed::Frame(..) => Err(WireError::Undecoded { offset }),
        }
    }

    /// Bytes of the stream that are decoded: the offset of the next frame.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    fn pending(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    fn fail(&mut self, error: WireError) {
        self.failed = Some(error);
        self.buffer = Vec::new();
        self.start = 0;
    }

    fn decode(&mut self) -> Result<Option<Message>, WireError> {
        let pending = self.pending();
        let Parsed::Frame(header, payload) = frame::parse(pending, self.offset)? else {
            return Ok(None);
        };
        let kind = self.accept(header)?;
        let offset = self.offset;
        let message = payload::decode(kind, payload).map_err(|error| match error {
            PayloadError::Version(theirs) => WireError::Version { offset, theirs },
            PayloadError::Malformed(reason) => WireError::Malformed { offset, kind, reason },
        })?;
        let len = frame::HEADER_LEN + payload.len();
        self.start += len;
        self.offset += len as u64;
        self.next_seq = self.next_seq.wrapping_add(1);
        self.greeted = true;
        Ok(Some(message))
    }

    /// Checks that a frame may come next.
    fn accept(&self, header: Header) -> Result<Kind, WireError> {
        let offset = self.offset;
        let Header { kind, flags, seq, .. } = header;
        if flags != 0 {
            return Err(WireError::BadFlags { offset, flags });
        }
        if seq != self.next_seq {
            return Err(WireError::OutOfOrder { offset, expected: self.next_seq, seen: seq });
        }
        match Kind::from_number(kind) {
            Some(Kind::Hello) if self.greeted => Err(WireError::SecondHello { offset }),
            Some(Kind::Hello) => Ok(Kind::Hello),
            _ if !self.greeted => Err(WireError::NoHello { offset, kind }),
            Some(kind) => Ok(kind),
            None => Err(WireError::UnknownKind { offset, kind }),
        }
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
