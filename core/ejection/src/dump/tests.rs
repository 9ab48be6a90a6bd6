//! Dumps of Linux 6.12 in tests/logs; cli/scx-fixture/README.md says how they came.

use super::*;
use proptest::prelude::*;

const STALL: &str = include_str!("../../tests/logs/stall-cpu.log");
const DROP: &str = include_str!("../../tests/logs/drop-task.log");
const AFFINITY: &str = include_str!("../../tests/logs/ignore-affinity.log");

/// `DSQ_STALLED` of the fixture.
const DSQ_STALLED: u64 = 0x57a11;

#[test]
fn a_stall_shows_who_waits_where() {
    let dump = Dump::parse(STALL).unwrap();
    assert_eq!(dump.kind, Some(1026));
    assert!(dump.cause.as_ref().unwrap().starts_with("runnable task stall (w_cg_"), "{dump:?}");
    let waiting = dump.waiting();
    let (cpu, longest) = waiting[0];
    assert_eq!((cpu, longest.dsq, longest.cpus.as_str()), (1, Some(DSQ_STALLED), "f"));
    assert!(longest.waited_ms >= 2000 && dump.cause.as_ref().unwrap().contains(&longest.name.to_string()));
}

#[test]
fn a_task_in_no_queue_is_told() {
    let dump = Dump::parse(DROP).unwrap();
    let (_, longest) = dump.waiting()[0];
    assert_eq!((longest.dsq, longest.running), (None, false), "{longest:?}");
}

#[test]
fn the_trace_has_the_same_dump() {
    let split = STALL.find("# tracer").unwrap();
    let (printed, traced) = (Dump::parse(&STALL[..split]), Dump::parse(&STALL[split..]));
    assert!(printed.is_some());
    assert_eq!(printed, traced);
}

#[test]
fn a_whole_dump_reads_as_data() {
    insta::assert_debug_snapshot!(Dump::parse(AFFINITY).unwrap());
}

#[test]
fn a_dump_that_was_too_long_says_so() {
    let text = "x[1] triggered exit kind 1024:\n  runtime error (y)\n\nBacktrace:\n\n~~~~ TRUNCATED ~~~~\n";
    let dump = Dump::parse(text).unwrap();
    assert!(dump.cut && dump.cpus.is_empty());
}

#[test]
fn other_texts_have_none() {
    assert_eq!(Dump::parse(""), None);
    assert_eq!(Dump::parse("CPU 1   : nr_run=6 flags=0x1\n"), None);
}

proptest! {
    #[test]
    fn any_text_and_any_cut_will_do(text in "(\\PC{0,40}\n){0,10}", at in 0..9000usize) {
        Dump::parse(&text);
        let at = (0..=at.min(STALL.len())).rev().find(|&at| STALL.is_char_boundary(at)).unwrap_or(0);
        Dump::parse(&format!("{}{text}{}", &STALL[..at], &STALL[at..]));
    }
}
