//! What a running kernel says and does, as data.
//!
//! [`parse_kmsg_window`] cuts a kernel log, as `/dev/kmsg` or dmesg(1) has it, to a window of time. A [`Timeline`] has
//! what a scheduler did in such a window: switches, migrations, wakeups, priorities lent, locks waited for. It comes out
//! of the kernel's trace buffers, as bytes ([`Decoder`]) or as text ([`Timeline::parse_text`]).
//!
//! Pure: who reads files, pipes and devices is an adapter. Everything read is taken for what it may be, broken: a parser
//! says what it could not use, and how much that was.

mod kmsg;
mod timeline;

pub use kmsg::{KmsgLevel, KmsgRecord, KmsgWindow, parse_kmsg_window};
pub use timeline::{
    Decoder, DecoderError, LockWait, Lost, TaskRef, Timeline, TimelineEvent, TimelineRecord, TracePoint,
    WakeupDelay,
};
