//! What the kernel said of a scheduler that died, as a part of the verdict.

use crate::drive::Observation;
use crate::judge::CaseResult;
use crate::quote::quoted;
use ktstr_assert::{Detail, DetailKind};

/// Adds what the kernel's log said from the start of the last scheduler that died to its end, as its report brought it.
pub(crate) fn tell(seen: &Observation, case: &mut CaseResult) {
    let Some(dead) = seen.schedulers.iter().rev().find(|report| report.failure.is_some()) else { return };
    let log = dead.kernel_log.trim_end();
    if log.is_empty() {
        return;
    }
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let title = format!("the kernel's log since scheduler {:?} was started", dead.name);
    let text = quoted(title, &lines, |hidden| format!(", without its first {hidden} lines"));
    case.result.push(Detail::fail(DetailKind::Scheduler, text));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive::tests_support::silent;
    use crate::guest::TestReturn;
    use crate::judge::judge;
    use crate::quote::MOST_BYTES;
    use crate::spec::TestSpec;
    use ktstr_assert::AssertResult;
    use ktstr_machine::VmExit;
    use ktstr_scheduler::{Scheduler, SchedulerReport};

    static DEMO: Scheduler = Scheduler::named("demo");
    const LOG: &str = "ktstr: starting scheduler declared\nsched_ext: BPF scheduler \"demo\" enabled\n\n\
        sched_ext: BPF scheduler \"demo\" disabled (runnable task stall)\n";

    fn seen(log: &str, failure: Option<&str>) -> Observation {
        let failure = failure.map(str::to_string);
        let kernel_log = failure.as_ref().map(|_| log.to_string()).unwrap_or_default();
        let name = "declared".to_string();
        Observation {
            returned: Some(TestReturn::Judged(AssertResult::pass())),
            goodbye: true,
            exit: Some(VmExit::PowerOff),
            schedulers: vec![SchedulerReport { name, failure, kernel_log, ..SchedulerReport::default() }],
            kernel_log: log.as_bytes().to_vec(),
            ..silent()
        }
    }

    fn details(seen: &Observation) -> Vec<String> {
        let spec = TestSpec { scheduler: &DEMO, ..TestSpec::DEFAULT };
        judge(&spec, seen).result.details.into_iter().map(|detail| detail.message).collect()
    }

    #[test]
    fn the_log_since_it_was_started_goes_with_its_death() {
        let told = details(&seen(LOG, Some("it stalled")));
        assert_eq!(told[0], "scheduler \"declared\" failed: it stalled");
        assert_eq!(
            told[1],
            "the kernel's log since scheduler \"declared\" was started:\n  ktstr: starting scheduler declared\n  \
             sched_ext: BPF scheduler \"demo\" enabled\n  \
             sched_ext: BPF scheduler \"demo\" disabled (runnable task stall)"
        );
        assert_eq!(told.len(), 2);
        assert_eq!(details(&seen(LOG, None)), [""; 0], "nobody died");
        assert_eq!(details(&seen("", Some("it stalled"))).len(), 1, "nothing came with the report");
    }

    #[test]
    fn it_is_bounded_and_says_what_is_left_out() {
        let lines: String = (0..100).map(|n| format!("line {n} {}\n", "é".repeat(500))).collect();
        let told = details(&seen(&lines, Some("x"))).remove(1);
        assert!(told.contains("was started, without its first 60 lines"), "{told}");
        assert!(told.contains("\n  line 60 é") && !told.contains("line 59 "), "{told}");
        assert!(told.len() < 41 * (MOST_BYTES + 10), "{}", told.len());
    }

    #[test]
    fn a_check_on_the_host_has_all_of_it() {
        fn check(vm: &crate::VmResult<'_>) -> AssertResult {
            AssertResult::fail(format!("seen: {}", vm.guest_kmsg()))
        }
        let spec = TestSpec { post_vm_unconditional: Some(check), scheduler: &DEMO, ..TestSpec::DEFAULT };
        let case = judge(&spec, &seen(LOG, Some("it stalled")));
        let last = case.result.details.last().map(|detail| detail.message.as_str());
        assert_eq!(last, Some(format!("seen: {LOG}").as_str()));
    }
}
