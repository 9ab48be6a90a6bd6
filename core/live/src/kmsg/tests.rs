//! Logs in every form that is read, and what no text may do.

use super::*;
use proptest::prelude::*;

const ALL: Duration = Duration::from_secs(u64::MAX);

fn window(text: &str) -> KmsgWindow {
    parse_kmsg_window(text, Duration::ZERO, ALL)
}

fn texts(window: &KmsgWindow) -> Vec<&str> {
    window.records.iter().map(|record| record.text.as_str()).collect()
}

#[test]
fn a_record_of_the_device_has_all_that_it_tells() {
    let text = "6,339,5140900,-,caller=T12;NET: Registered\\x0asecond line, caf\\xc3\\xa9 \\x5c\n SUBSYSTEM=acpi\n \
                DEVICE=+acpi:PNP0A03:00\n30,340,5690716,-;written by a program\n";
    let window = window(text);
    let [first, second] = window.records.as_slice() else { panic!("{window:?}") };
    let expected = KmsgRecord {
        at: Duration::from_micros(5_140_900),
        level: Some(KmsgLevel::Info),
        facility: Some(0),
        sequence: Some(339),
        caller: Some("T12".to_string()),
        text: "NET: Registered\nsecond line, café \\".to_string(),
        fields: [("SUBSYSTEM", "acpi"), ("DEVICE", "+acpi:PNP0A03:00")]
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .into(),
    };
    assert_eq!(*first, expected);
    assert_eq!((second.facility, second.level), (Some(3), Some(KmsgLevel::Info)));
    assert_eq!(second.to_string(), "[    5.690716] written by a program");
}

#[test]
fn each_way_in_which_dmesg_prints_is_read() {
    let at = Duration::from_micros(1_000_002);
    for (line, level, caller) in [
        ("[    1.000002] hello", None, None),
        ("<4>[    1.000002] hello", Some(KmsgLevel::Warn), None),
        ("kern  :err   : [    1.000002] hello", Some(KmsgLevel::Err), None),
        ("[    1.000002][    T1] hello", None, Some("T1")),
        ("<12>[    1.000002][   C31] hello", Some(KmsgLevel::Warn), Some("C31")),
    ] {
        let window = window(line);
        let [record] = window.records.as_slice() else { panic!("{line}: {window:?}") };
        assert_eq!((record.at, record.level, record.caller.as_deref()), (at, level, caller), "{line}");
        assert_eq!(record.text, "hello", "{line}");
    }
    let bracket = window("[    1.000002] [drm] hello");
    assert_eq!(texts(&bracket), ["[drm] hello"]);
}

#[test]
fn a_dump_of_several_lines_stays_with_its_record() {
    let text = "[   12.000001] sched_ext: BPF scheduler \"demo\" disabled (runnable task stall)\n\
                [   12.000004] sched_ext: demo: batch[83] failed to run for 1.486s\n   \
                check_rq_for_timeouts+0xdf/0x120\n   scx_watchdog_workfn+0x64/0x90\n\
                [   12.500000] next\n";
    let window = window(text);
    assert_eq!(window.records.len(), 3);
    assert!(
        window.records[1]
            .text
            .ends_with("1.486s\n   check_rq_for_timeouts+0xdf/0x120\n   scx_watchdog_workfn+0x64/0x90")
    );
    assert_eq!(window.containing("sched_ext").count(), 2);
    assert_eq!(window.text().lines().count(), 5);
}

#[test]
fn both_ends_of_a_window_belong_to_it_and_the_rest_is_counted() {
    let text: String = (1..=5).map(|n| format!("6,{n},{n}000000,-;record {n}\n  not = a field\n")).collect();
    let of =
        |from: u64, to: u64| parse_kmsg_window(&text, Duration::from_nanos(from), Duration::from_nanos(to));
    // Nanoseconds that the log does not tell exclude nothing.
    let window = of(2_000_000_999, 4_000_000_000);
    assert_eq!(texts(&window).len(), 3);
    assert_eq!((window.before, window.after, window.undated), (1, 1, 0));
    assert_eq!(texts(&window)[0], "record 2\n  not = a field");
    assert_eq!(of(5_000_000_001, 4_000_000_000).records, [], "a window that ends before it begins is empty");
}

#[test]
fn what_has_no_time_is_told_and_not_guessed() {
    let window = window("Linux version 6.12\n\n[Mon Nov 30 10:06:29 2026] by the wall clock\n");
    assert_eq!((window.records.len(), window.undated), (0, 2));
}

#[test]
fn pieces_of_a_line_make_one_record() {
    let text = "4,1,100,c;first \n4,2,101,+;and second\n4,3,102,-;other\n4,4,103,x;no record\n";
    assert_eq!(texts(&window(text)), ["first and second", "other\n4,4,103,x;no record"]);
}

/// What `/dev/kmsg` makes of a text.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| (0x20..0x7f).contains(&byte) && byte != b'\\';
    let one = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("\\x{byte:02x}") };
    text.bytes().map(one).collect()
}

proptest! {
    #[test]
    fn a_record_comes_back_from_the_device(
        text in "\\PC{0,20}(\n\\PC{0,9})?", micros in 0u64..1 << 50, sequence: u64, priority in 0u64..192
    ) {
        let line = format!("{priority},{sequence},{micros},-;{}\n KEY={}\n", escaped(&text), escaped(&text));
        let window = window(&line);
        prop_assert_eq!(window.records.len(), 1);
        let record = &window.records[0];
        prop_assert_eq!((&record.text, record.at.as_micros()), (&text, u128::from(micros)));
        prop_assert_eq!(record.sequence, Some(sequence));
        prop_assert_eq!(&record.fields["KEY"], &text);
        let number = u64::from(record.facility.unwrap()) * 8 + record.level.unwrap() as u64;
        prop_assert_eq!(number, priority);
    }

    #[test]
    fn a_printed_record_comes_back(text in "[ -~]{0,30}", seconds in 0u64..1 << 40, micros in 0u32..1_000_000) {
        let at = Duration::new(seconds, micros * 1000);
        let record = KmsgRecord { at, text, ..KmsgRecord::default() };
        // What looks like a caller is one.
        prop_assume!(!record.text.starts_with('['));
        prop_assert_eq!(window(&record.to_string()).records, [record]);
    }

    #[test]
    fn no_record_is_lost_and_none_is_outside(
        times in proptest::collection::vec(0u64..100, 0..30), from in 0u64..100, to in 0u64..100
    ) {
        let text: String = times.iter().map(|at| format!("[    0.{at:06}] x\n")).collect();
        let (from, to) = (Duration::from_micros(from), Duration::from_micros(to));
        let window = parse_kmsg_window(&text, from, to);
        let inside = |record: &KmsgRecord| record.at >= from && record.at <= to;
        prop_assert!(window.records.iter().all(inside));
        prop_assert_eq!(window.records.len() + window.before + window.after, times.len());
    }

    #[test]
    fn no_text_does_harm(text in "(\\PC|[<>\\[\\];,.:=\n 0-9cT\\\\x-]){0,80}") {
        let window = window(&text);
        prop_assert!(window.records.len() + window.undated <= text.lines().count());
    }
}
