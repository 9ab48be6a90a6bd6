//! Framed, checksummed messages from a guest to its host.
//!
//! The guest's [`Encoder`] turns [`Message`]s into bytes for a virtio-console port (virtio 1.2, 5.3);
//! the host's [`Decoder`] turns whatever chunks arrive back into messages, and trusts none of them.
//! `frame.rs` is the layout that both share. A stream opens with [`Message::Hello`], so that a guest
//! of another version is refused by name and not misread.

mod decoder;
mod encoder;
mod error;
mod frame;
mod message;
mod payload;
mod request;

pub use decoder::Decoder;
pub use encoder::{Encoder, chunks};
pub use error::WireError;
pub use frame::{CHUNK_LEN, HEADER_LEN, Kind, MAGIC, MAX_BUFFERED, MAX_FRAME, MAX_PAYLOAD, PROTOCOL_VERSION};
pub use message::{LogLevel, Message, Stage, Stimulus};
pub use request::{ANSWER_BODY_AT, ANSWER_LEN, Answer, Call, MAX_ANSWER_TEXT, Request};
