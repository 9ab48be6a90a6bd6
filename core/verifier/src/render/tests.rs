//! Real logs of Linux 6.12, in tests/logs; how they were made is in cli/scx-fixture/README.md.

use super::*;
use crate::scheduler_output;
use proptest::prelude::*;

const FAIL_VERIFY: &str = include_str!("../../tests/logs/fail-verify.log");
const VERIFY_LOOP: &str = include_str!("../../tests/logs/verify-loop.log");
const INVALID_CO_RE: &str = include_str!("../../tests/logs/invalid-co-re.log");
const ACCEPTED: &str = include_str!("../../tests/logs/accepted-statistics.log");
const STATES: &str = include_str!("../../tests/logs/accepted-states.log");

fn readable(text: &str) -> String {
    render(scheduler_output(text).unwrap(), Mode::Readable)
}

#[test]
fn a_refusal_reads_with_its_registers() {
    insta::assert_snapshot!(readable(FAIL_VERIFY));
}

#[test]
fn a_loop_is_shown_once_from_each_end() {
    let text = readable(VERIFY_LOOP);
    assert!(text.lines().count() < 60, "{}", text.lines().count());
    insta::assert_snapshot!(text);
}

#[test]
fn a_missing_type_is_named() {
    insta::assert_snapshot!(readable(INVALID_CO_RE));
}

#[test]
fn accepted_programs_take_a_line_each() {
    insta::assert_snapshot!(readable(ACCEPTED));
}

#[test]
fn a_log_with_all_states_is_read_as_well() {
    let log = VerifierLog::parse(scheduler_output(STATES).unwrap());
    assert!(
        log.programs.len() > 5 && log.programs.iter().all(|it| it.verdict == Verdict::Accepted),
        "{log:?}"
    );
    let longest = log.programs.iter().max_by_key(|it| it.lines.len()).unwrap();
    let shown = render_program(longest, Mode::Readable);
    assert!(shown.len() < render_program(longest, Mode::Raw).len(), "{shown}");
    assert!(!shown.contains("mark_precise"));
}

#[test]
fn raw_is_what_came() {
    assert_eq!(render(VERIFY_LOOP, Mode::Raw), VERIFY_LOOP);
    let log = VerifierLog::parse(scheduler_output(VERIFY_LOOP).unwrap());
    let raw = render_program(&log.programs[0], Mode::Raw);
    assert!(VERIFY_LOOP.contains(raw.trim_end()));
}

proptest! {
    #[test]
    fn any_text_is_rendered(text in "\\PC{0,200}", from in 0..4000usize, to in 0..4000usize) {
        render(&text, Mode::Readable);
        // The logs are ASCII.
        let part = &VERIFY_LOOP[from.min(to)..from.max(to)];
        render(&format!("{part}{text}"), Mode::Readable);
    }
}
