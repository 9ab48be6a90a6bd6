//! The bytes of each payload, written out by hand from postcard's wire format.

use super::*;
use crate::{LogLevel, Stage, Stimulus};

fn check(message: &Message, bytes: &[u8]) {
    assert_eq!(encode(message).as_deref(), Ok(bytes), "{message:?}");
    assert_eq!(decode(message.kind(), bytes).as_ref(), Ok(message), "{bytes:?}");
}

#[test]
fn payloads_have_the_documented_bytes() {
    check(&Message::hello("ab"), &[2, 2, b'a', b'b']);
    check(
        &Message::Stimulus(Stimulus {
            elapsed_ms: 300,
            step: 2,
            kind: "K".to_owned(),
            label: "l".to_owned(),
            detail: String::new(),
            iterations: Some(7),
            is_step_end: true,
            is_terminal: false,
            since_test_ms: 301,
        }),
        &[0xac, 0x02, 2, 1, b'K', 1, b'l', 0, 1, 7, 1, 0, 0xad, 0x02],
    );
    check(&Message::ExitCode(1), &[2]);
    check(&Message::ExitCode(-1), &[1]);
    check(
        &Message::Panic {
            message: "m".to_owned(),
            location: Some("a:1".to_owned()),
            backtrace: String::new(),
        },
        &[1, b'm', 1, 3, b'a', b':', b'1', 0],
    );
    check(
        &Message::FatalSignal { signo: 11, address: 0x10, ip: 0x80, thread: "t".to_owned() },
        &[22, 0x10, 0x80, 1, 1, b't'],
    );
    check(&Message::TimedOut { after_ms: 3, detail: "d".to_owned() }, &[3, 1, b'd']);
    check(&Message::Goodbye, &[]);
}

#[test]
fn byte_messages_are_their_bytes() {
    let bytes = vec![0, 255, b'\n'];
    check(&Message::Result(bytes.clone()), &bytes);
    check(&Message::Kmsg(bytes.clone()), &bytes);
    check(&Message::Stdout(bytes.clone()), &bytes);
    check(&Message::Stderr(bytes.clone()), &bytes);
    check(&Message::SchedulerLog(bytes.clone()), &bytes);
    check(&Message::SchedulerReports(bytes.clone()), &bytes);
    check(&Message::Stdout(Vec::new()), &[]);
}

#[test]
fn stages_and_levels_keep_their_numbers() {
    use Stage::{Init, Mounts, PowerOff, Scheduler, TestEnd, TestStart, Topology, Transport};
    let stages = [Init, Mounts, Transport, Topology, Scheduler, TestStart, TestEnd, PowerOff];
    for (number, stage) in (0..).zip(stages) {
        check(&Message::Stage(stage), &[number]);
    }
    assert!(matches!(decode(Kind::Stage, &[8]), Err(PayloadError::Malformed(_))));
    let levels = [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug];
    for (number, level) in (0..).zip(levels) {
        check(&Message::Log { level, text: "x".to_owned() }, &[number, 1, b'x']);
    }
}

#[test]
fn another_version_is_named_whatever_follows_it() {
    assert_eq!(decode(Kind::Hello, &[9, 0xff, 0xff]), Err(PayloadError::Version(9)));
    assert_eq!(decode(Kind::Hello, &[0]), Err(PayloadError::Version(0)));
}

#[test]
fn too_few_and_too_many_bytes_are_malformed() {
    let messages: [(Kind, &[u8]); 6] = [
        (Kind::Hello, &[2, 2, b'a', b'b']),
        (Kind::Stage, &[0]),
        (Kind::Panic, &[1, b'm', 0, 0]),
        (Kind::FatalSignal, &[22, 1, 1, 1, b't']),
        (Kind::Log, &[0, 1, b'x']),
        (Kind::ExitCode, &[0]),
    ];
    for (kind, bytes) in messages {
        assert!(decode(kind, bytes).is_ok(), "{kind:?}");
        for cut in 0..bytes.len() {
            let decoded = decode(kind, &bytes[..cut]);
            assert!(matches!(decoded, Err(PayloadError::Malformed(_))), "{kind:?} cut at {cut}");
        }
        let longer = [bytes, &[0]].concat();
        let reason = "1 bytes are left after the last field".to_owned();
        assert_eq!(decode(kind, &longer), Err(PayloadError::Malformed(reason)), "{kind:?}");
    }
    assert!(matches!(decode(Kind::Goodbye, &[0]), Err(PayloadError::Malformed(_))));
}

#[test]
fn text_that_is_not_utf8_is_malformed() {
    let decoded = decode(Kind::Log, &[0, 1, 0xff]);
    assert!(matches!(decoded, Err(PayloadError::Malformed(_))), "{decoded:?}");
}
