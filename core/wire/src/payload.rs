//! Payloads: byte messages are the bytes themselves, the others their fields in postcard, in the
//! order of declaration. `Hello` begins with its version in every version of the protocol.

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Kind, Message, PROTOCOL_VERSION};

/// Why a payload isn't a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PayloadError {
    /// The greeting is of this other version.
    Version(u16),
    /// The bytes aren't what the kind calls for.
    Malformed(String),
}

/// A message's payload.
pub(crate) fn encode(message: &Message) -> Result<Cow<'_, [u8]>, postcard::Error> {
    match message {
        Message::Result(bytes)
        | Message::Kmsg(bytes)
        | Message::Stdout(bytes)
        | Message::Stderr(bytes)
        | Message::SchedulerLog(bytes)
        | Message::SchedulerReports(bytes) => Ok(Cow::Borrowed(bytes)),
        Message::Goodbye => Ok(Cow::Borrowed(&[])),
        Message::Hello { version, build_id } => fields(&(version, build_id)),
        Message::Stage(stage) => fields(stage),
        Message::Stimulus(stimulus) => fields(stimulus),
        Message::Request(request) => fields(request),
        Message::ExitCode(code) => fields(code),
        Message::Panic { message, location, backtrace } => fields(&(message, location, backtrace)),
        Message::FatalSignal { signo, address, ip, thread } => fields(&(signo, address, ip, thread)),
        Message::Log { level, text } => fields(&(level, text)),
        Message::TimedOut { after_ms, detail } => fields(&(after_ms, detail)),
    }
}

/// The message of a payload.
pub(crate) fn decode(kind: Kind, payload: &[u8]) -> Result<Message, PayloadError> {
    match kind {
        Kind::Hello => hello(payload),
        Kind::Stage => Ok(Message::Stage(whole(payload)?)),
        Kind::Stimulus => Ok(Message::Stimulus(whole(payload)?)),
        Kind::Result => Ok(Message::Result(payload.to_vec())),
        Kind::Request => Ok(Message::Request(whole(payload)?)),
        Kind::ExitCode => Ok(Message::ExitCode(whole(payload)?)),
        Kind::Panic => {
            let (message, location, backtrace) = whole(payload)?;
            Ok(Message::Panic { message, location, backtrace })
        }
        Kind::FatalSignal => {
            let (signo, address, ip, thread) = whole(payload)?;
            Ok(Message::FatalSignal { signo, address, ip, thread })
        }
        Kind::Kmsg => Ok(Message::Kmsg(payload.to_vec())),
        Kind::Stdout => Ok(Message::Stdout(payload.to_vec())),
        Kind::SchedulerLog => Ok(Message::SchedulerLog(payload.to_vec())),
        Kind::SchedulerReports => Ok(Message::SchedulerReports(payload.to_vec())),
        Kind::Stderr => Ok(Message::Stderr(payload.to_vec())),
        Kind::Log => {
            let (level, text) = whole(payload)?;
            Ok(Message::Log { level, text })
        }
        Kind::TimedOut => {
            let (after_ms, detail) = whole(payload)?;
            Ok(Message::TimedOut { after_ms, detail })
        }
        Kind::Goodbye => whole::<()>(payload).map(|()| Message::Goodbye),
    }
}

fn fields<'a, T: Serialize>(fields: &T) -> Result<Cow<'a, [u8]>, postcard::Error> {
    postcard::to_allocvec(fields).map(Cow::Owned)
}

/// The version comes first and is judged first: what follows it may differ between versions.
fn hello(payload: &[u8]) -> Result<Message, PayloadError> {
    let (version, rest) = postcard::take_from_bytes(payload).map_err(malformed)?;
    if version != PROTOCOL_VERSION {
        return Err(PayloadError::Version(version));
    }
    let build_id = whole(rest)?;
    Ok(Message::Hello { version, build_id })
}

/// Fields that take up all of the payload.
fn whole<T: DeserializeOwned>(payload: &[u8]) -> Result<T, PayloadError> {
    let (fields, rest) = postcard::take_from_bytes(payload).map_err(malformed)?;
    match rest.len() {
        0 => Ok(fields),
        extra => Err(PayloadError::Malformed(format!("{extra} bytes are left after the last field"))),
    }
}

fn malformed(error: postcard::Error) -> PayloadError {
    PayloadError::Malformed(error.to_string())
}

#[cfg(test)]
mod tests;
