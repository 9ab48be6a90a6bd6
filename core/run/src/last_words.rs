//! What a guest said over its second serial port, as a part of the verdict: all that is known of the end of a test
//! whose data port failed.

use crate::drive::Observation;
use crate::judge::{CaseResult, INIT_FAILED};
use crate::quote::quoted;
use ktstr_assert::{Detail, DetailKind};

/// Adds it. A run that ended well says no more than that there was something.
pub(crate) fn tell(seen: &Observation, case: &mut CaseResult) {
    let all = seen.last_words.last(usize::MAX);
    // Why the guest could not be brought up is the verdict's reason already.
    let lines: Vec<&str> =
        all.iter().map(String::as_str).filter(|line| !line.contains(INIT_FAILED)).collect();
    if lines.is_empty() {
        return;
    }
    let title = "the guest's last words, over its second serial port".to_string();
    let text = quoted(title, &lines, |hidden| format!(", without {hidden} lines before"));
    if case.broken && case.result.is_fail() {
        case.result.push(Detail::fail(DetailKind::Other, text));
    } else {
        case.result.note(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive::tests_support::silent;
    use crate::guest::TestReturn;
    use crate::judge::judge;
    use crate::spec::TestSpec;
    use ktstr_assert::AssertResult;
    use ktstr_machine::VmExit;
    use ktstr_wire::Stage;

    fn judged(said: &[u8], returned: Option<AssertResult>) -> CaseResult {
        let mut seen = silent();
        seen.last_words.push(said);
        seen.stage = Some(Stage::TestStart);
        seen.returned = returned.map(TestReturn::Judged);
        seen.exit = Some(VmExit::PowerOff);
        judge(&TestSpec::DEFAULT, &seen)
    }

    fn details(case: &CaseResult) -> Vec<&str> {
        case.result.details.iter().map(|d| d.message.as_str()).collect()
    }

    #[test]
    fn they_follow_the_reason_of_a_run_without_a_result() {
        let case = judged(b"ktstr: the test process panicked at t.rs:1:1: no\r\nktstr: more\r\n", None);
        let words = "the guest's last words, over its second serial port:\n  ktstr: the test process panicked at \
                     t.rs:1:1: no\n  ktstr: more";
        assert_eq!(details(&case), ["the guest powered off without a result, while running the test", words]);
        assert!(case.broken && case.result.is_fail());
    }

    #[test]
    fn why_the_guest_was_not_brought_up_is_told_once() {
        let case = judged(b"ktstr: init failed: no port\n", None);
        assert_eq!(details(&case), ["the guest could not be brought up: no port"]);
        let case = judged(b"ktstr: init failed: no port\nktstr: powering off: no\n", None);
        assert_eq!(details(&case).len(), 2, "{case:?}");
        assert!(!details(&case)[1].contains("no port"), "{case:?}");
    }

    #[test]
    fn they_change_no_verdict() {
        let case = judged(b"hello\n", Some(AssertResult::pass()));
        assert!(case.result.is_pass() && !case.broken, "{case:?}");
        assert_eq!(case.result.notes, ["the guest's last words, over its second serial port:\n  hello"]);
        let case = judged(b"hello\n", Some(AssertResult::inconclusive("no samples")));
        assert!(case.result.is_inconclusive() && case.result.notes.len() == 1, "{case:?}");
        assert!(judged(b"", Some(AssertResult::pass())).result.notes.is_empty());
    }

    #[test]
    fn a_flood_is_told_by_its_end() {
        let flood = format!("{}the end\n", format!("{}\n", "x".repeat(5000)).repeat(1000));
        let case = judged(flood.as_bytes(), None);
        let [_, text] = details(&case)[..] else { panic!("{case:?}") };
        assert!(text.contains(", without 360 lines before:") && text.ends_with("\n  the end"), "{text}");
        assert!(text.len() < 20_000, "{} bytes", text.len());
    }
}
