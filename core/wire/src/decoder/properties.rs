//! What holds for every stream.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::{Call, Encoder, HEADER_LEN, LogLevel, Request, Stage, Stimulus};

fn stage() -> impl Strategy<Value = Stage> {
    use Stage::{Init, Mounts, PowerOff, Scheduler, TestEnd, TestStart, Topology, Transport};
    select(vec![Init, Mounts, Transport, Topology, Scheduler, TestStart, TestEnd, PowerOff])
}

fn stimulus() -> impl Strategy<Value = Stimulus> {
    let texts = ("\\PC{0,8}", "\\PC{0,8}", "\\PC{0,8}");
    let numbers = (any::<[u64; 2]>(), any::<u16>(), option::of(any::<u64>()));
    (numbers, texts, any::<bool>(), any::<bool>()).prop_map(
        |((times, step, iterations), (kind, label, detail), is_step_end, is_terminal)| Stimulus {
            elapsed_ms: times[0],
            step,
            kind,
            label,
            detail,
            iterations,
            is_step_end,
            is_terminal,
            since_test_ms: times[1],
        },
    )
}

fn request() -> impl Strategy<Value = Request> {
    let text = || "\\PC{0,8}";
    let call = prop_oneof![
        (text(), any::<bool>()).prop_map(|(name, periodic)| Call::Capture { name, periodic }),
        Just(Call::WorkloadEnds),
        text().prop_map(|when| Call::LastLook { when }),
        (text(), text(), any::<bool>()).prop_map(|(tag, path, frozen)| Call::ReadKernel {
            tag,
            path,
            frozen
        }),
        (text(), any::<u64>(), any::<bool>()).prop_map(|(path, value, frozen)| Call::WriteKernel {
            path,
            value,
            frozen
        }),
        text().prop_map(|symbol| Call::Watch { symbol }),
        (text(), vec(any::<i32>(), 0..4)).prop_map(|(tag, pids)| Call::KeepPids { tag, pids }),
        any::<(i32, u64)>().prop_map(|(tid, switches)| Call::Sample { tid, switches }),
    ];
    (any::<[u64; 3]>(), any::<u16>(), call).prop_map(|([id, answer_at, elapsed_ms], step, call)| Request {
        id,
        answer_at,
        elapsed_ms,
        step,
        call,
    })
}

fn message() -> impl Strategy<Value = Message> {
    use LogLevel::{Debug, Error, Info, Warn};
    let bytes = || vec(any::<u8>(), 0..60);
    let text = || "\\PC{0,20}";
    prop_oneof![
        stage().prop_map(Message::Stage),
        stimulus().prop_map(Message::Stimulus),
        bytes().prop_map(Message::Result),
        any::<i32>().prop_map(Message::ExitCode),
        (text(), option::of(text()), text())
            .prop_map(|(message, location, backtrace)| { Message::Panic { message, location, backtrace } }),
        (any::<i32>(), any::<u64>(), any::<u64>(), text())
            .prop_map(|(signo, address, ip, thread)| Message::FatalSignal { signo, address, ip, thread }),
        bytes().prop_map(Message::Kmsg),
        bytes().prop_map(Message::Stdout),
        bytes().prop_map(Message::Stderr),
        bytes().prop_map(Message::SchedulerLog),
        bytes().prop_map(Message::SchedulerReports),
        (select(vec![Error, Warn, Info, Debug]), text())
            .prop_map(|(level, text)| Message::Log { level, text }),
        (any::<u64>(), text()).prop_map(|(after_ms, detail)| Message::TimedOut { after_ms, detail }),
        request().prop_map(Message::Request),
        Just(Message::Goodbye),
    ]
}

/// A greeting and some more messages.
fn messages() -> impl Strategy<Value = Vec<Message>> {
    ("[0-9a-f]{0,40}", vec(message(), 0..12)).prop_map(|(build_id, mut messages)| {
        messages.insert(0, Message::hello(build_id));
        messages
    })
}

/// Each message's frame.
fn frames(messages: &[Message]) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new();
    let frame = |message| {
        let mut out = Vec::new();
        encoder.encode(message, &mut out).expect("the messages are short");
        out
    };
    messages.iter().map(frame).collect()
}

/// Pushes pieces of the given lengths, over and over, taking all messages after each.
fn decode(bytes: &[u8], lengths: &[usize]) -> (Vec<Message>, Result<(), WireError>) {
    let mut decoder = Decoder::new();
    let mut messages = Vec::new();
    let mut rest = bytes;
    for &length in lengths.iter().cycle() {
        let (piece, after) = rest.split_at(length.min(rest.len()));
        rest = after;
        decoder.push(piece);
        loop {
            match decoder.next() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Err(error)),
            }
        }
        if rest.is_empty() {
            break;
        }
    }
    (messages, decoder.finish())
}

proptest! {
    #[test]
    fn any_messages_survive_any_chunking(messages in messages(), lengths in vec(1usize..50, 1..8)) {
        let bytes = frames(&messages).concat();
        prop_assert_eq!(decode(&bytes, &lengths), (messages, Ok(())));
    }

    #[test]
    fn a_changed_byte_is_an_error_after_a_prefix(
        messages in messages(), at in any::<Index>(), change in 1u8.., lengths in vec(1usize..50, 1..8),
    ) {
        let frames = frames(&messages);
        let mut bytes = frames.concat();
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        let (decoded, end) = decode(&bytes, &lengths);
        prop_assert!(messages.starts_with(&decoded), "{decoded:?}");
        let before = frames.iter().scan(0, |end, frame| { *end += frame.len(); Some(*end) });
        prop_assert_eq!(decoded.len(), before.take_while(|&end| end <= at).count());
        prop_assert!(end.is_err());
    }

    #[test]
    fn a_cut_is_an_error_unless_between_frames(messages in messages(), at in any::<Index>()) {
        let frames = frames(&messages);
        let bytes = frames.concat();
        let cut = at.index(bytes.len() + 1);
        let (decoded, end) = decode(&bytes[..cut], &[usize::MAX]);
        prop_assert_eq!(&decoded[..], &messages[..decoded.len()]);
        let whole: usize = frames[..decoded.len()].iter().map(Vec::len).sum();
        let seen = cut - whole;
        if seen == 0 {
            prop_assert_eq!(end, Ok(()));
        } else {
            let len = if seen < HEADER_LEN { HEADER_LEN } else { frames[decoded.len()].len() };
            let truncated = WireError::Truncated { offset: whole as u64, seen, missing: len - seen };
            prop_assert_eq!(end, Err(truncated));
        }
    }

    #[test]
    fn a_lost_or_repeated_frame_is_out_of_order(
        messages in messages(), at in any::<Index>(), repeat in any::<bool>(),
    ) {
        let mut frames = frames(&messages);
        let at = at.index(frames.len());
        if repeat {
            frames.insert(at, frames[at].clone());
        } else {
            frames.remove(at);
        }
        let good = at + usize::from(repeat);
        let (decoded, end) = decode(&frames.concat(), &[64]);
        prop_assert_eq!(&decoded[..], &messages[..good.min(decoded.len())]);
        let lost_the_last = !repeat && at + 1 == messages.len();
        let found = matches!(end, Err(WireError::OutOfOrder { .. }));
        prop_assert!(found || (lost_the_last && end == Ok(())), "{end:?}");
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..200), lengths in vec(1usize..50, 1..4)) {
        let (decoded, _) = decode(&bytes, &lengths);
        prop_assert!(decoded.is_empty(), "a checksum was guessed");
    }

    #[test]
    fn well_framed_nonsense_is_a_message_or_an_error_at_its_frame(
        nonsense in vec((2u16..14, vec(any::<u8>(), 0..40)), 1..6),
    ) {
        let mut bytes = frames(&[Message::hello("ab")]).concat();
        let mut starts = vec![];
        for (seq, (kind, payload)) in (1..).zip(&nonsense) {
            starts.push(bytes.len() as u64);
            let len = u32::try_from(payload.len()).expect("short");
            Header { kind: *kind, flags: 0, seq, len }.write(payload, &mut bytes);
        }
        let (decoded, end) = decode(&bytes, &[7]);
        let at = starts.get(decoded.len() - 1).copied();
        match end {
            Ok(()) => prop_assert_eq!(at, None),
            Err(WireError::UnknownKind { offset, .. } | WireError::Malformed { offset, .. }) => {
                prop_assert_eq!(at, Some(offset));
            }
            Err(error) => prop_assert!(false, "{error}"),
        }
    }
}
