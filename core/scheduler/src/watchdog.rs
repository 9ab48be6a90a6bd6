//! How long the kernel lets a task wait before it drops the scheduler: what a test asks for, and what held.

use crate::Scheduler;
use crate::bpf::WatchdogRecord;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// `SCX_WATCHDOG_MAX_TIMEOUT` of kernel/sched/ext.c, s: it refuses a scheduler that wants more.
const MOST_S: u32 = 30;

/// The timeout to be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchdogOrder {
    /// ms.
    pub timeout_ms: u32,
}

impl WatchdogOrder {
    /// For a start of that scheduler: the test's word, else the declaration's. `None` where neither has one: then the
    /// scheduler keeps its own (`sched_ext_ops.timeout_ms`), which is a part of what is tested.
    ///
    /// # Errors
    /// What is wrong with either, in words.
    pub fn of(scheduler: &Scheduler, test: Option<u32>) -> Result<Option<Self>, String> {
        match test.or(scheduler.watchdog_timeout_s) {
            None => Ok(None),
            Some(_) if !scheduler.has_program() => Err(format!(
                "watchdog_timeout_s of scheduler {:?}: it is set while a scheduler's program attaches, and this one has none",
                scheduler.name
            )),
            Some(seconds) if (1..=MOST_S).contains(&seconds) => Ok(Some(Self { timeout_ms: seconds * 1000 })),
            Some(seconds) => Err(format!(
                "watchdog_timeout_s = {seconds} of scheduler {:?}: expected 1 to {MOST_S}, the most that the kernel takes",
                scheduler.name
            )),
        }
    }
}

/// The watchdog's timeout under one start of a scheduler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchdogReport {
    /// What was to be set.
    pub order: WatchdogOrder,
    /// The scheduler's own, ms; 0 if it has none, `None` if it was not seen.
    pub own_ms: Option<u32>,
    /// What the kernel goes by, ms.
    pub effective_ms: Option<u64>,
    /// The same as the kernel has it: in jiffies.
    #[serde(default)]
    pub effective_jiffies: Option<u32>,
    /// Why the order does not hold, or nobody knows whether it does.
    pub problem: Option<String>,
}

impl WatchdogReport {
    /// By what the program that was to set it tells, and by what the kernel goes: jiffies and the length of one.
    pub fn of(
        order: WatchdogOrder,
        record: Result<WatchdogRecord, String>,
        effective: Result<(u32, Duration), String>,
    ) -> Self {
        let effective_ms = effective.as_ref().ok().map(|(jiffies, tick)| {
            let ms = tick.as_nanos() * u128::from(*jiffies) / 1_000_000;
            u64::try_from(ms).unwrap_or(u64::MAX)
        });
        let own_ms = record.as_ref().ok().filter(|r| r.seen > 0 && r.result == 0).map(|r| r.own_ms);
        let effective_jiffies = effective.as_ref().ok().map(|(jiffies, _)| *jiffies);
        let mut report = Self { order, own_ms, effective_ms, effective_jiffies, problem: None };
        report.problem = record.and_then(|record| report.check(record, effective)).err();
        report
    }

    fn check(
        &self,
        record: WatchdogRecord,
        effective: Result<(u32, Duration), String>,
    ) -> Result<(), String> {
        let expected = self.order.timeout_ms;
        match record {
            WatchdogRecord { seen: 0, .. } => {
                return Err("no scheduler was seen to be handed to the kernel by bpf(2)".to_string());
            }
            WatchdogRecord { result: 0, .. } => {}
            WatchdogRecord { result, pid, .. } => {
                return Err(format!(
                    "`timeout_ms` in the memory of process {pid} could not be written (errno {})",
                    result.unsigned_abs()
                ));
            }
        }
        let (_, tick) = effective?;
        let seen = self.effective_ms.unwrap_or_default();
        // The kernel rounds up to whole jiffies.
        let late = u64::try_from(tick.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        if (u64::from(expected)..=u64::from(expected).saturating_add(late)).contains(&seen) {
            return Ok(());
        }
        Err(format!("the kernel goes by {seen} ms where {expected} ms were expected"))
    }
}

impl fmt::Display for WatchdogReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |ms: u64| format!("{:.1} s", ms as f64 / 1000.0);
        match (self.effective_ms, &self.problem) {
            (_, Some(problem)) => {
                let asked = seconds(self.order.timeout_ms.into());
                write!(f, "a watchdog timeout of {asked} was to be set, but {problem}")
            }
            (Some(ms), None) => write!(f, "the watchdog's timeout is {}", seconds(ms)),
            (None, None) => f.write_str("the watchdog's timeout is not known"),
        }?;
        if let (Some(jiffies), None) = (self.effective_jiffies, &self.problem) {
            write!(f, " ({jiffies} jiffies)")?;
        }
        match self.own_ms {
            Some(0) => f.write_str("; the scheduler itself declares none"),
            Some(own) => write!(f, "; the scheduler itself declares {}", seconds(own.into())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SchedulerSpec;
    use proptest::prelude::*;

    const ORDER: WatchdogOrder = WatchdogOrder { timeout_ms: 4000 };
    const TICK: Duration = Duration::from_millis(4);

    fn record(own_ms: u32, result: i32) -> Result<WatchdogRecord, String> {
        Ok(WatchdogRecord { seen: 1, own_ms, result, pid: 9 })
    }

    #[test]
    fn the_test_has_the_first_word() {
        let declared = Scheduler { watchdog_timeout_s: Some(8), ..Scheduler::named("a") };
        let of = |s: &Scheduler, test| WatchdogOrder::of(s, test).map(|o| o.map(|o| o.timeout_ms));
        assert_eq!(of(&declared, Some(3)), Ok(Some(3000)));
        assert_eq!(of(&declared, None), Ok(Some(8000)));
        assert_eq!(of(&Scheduler::named("a"), None), Ok(None));
        for bad in [0, 31, u32::MAX] {
            assert!(of(&declared, Some(bad)).unwrap_err().contains("expected 1 to 30"));
        }
        let builtin = SchedulerSpec::KernelBuiltin { enable: &["x"], disable: &["y"] };
        assert!(of(&Scheduler::new("b", builtin), Some(3)).unwrap_err().contains("this one has none"));
        assert!(of(&Scheduler::new("b", builtin), None).is_ok());
    }

    #[test]
    fn what_holds_is_told_and_what_does_not() {
        let of = |order, record, jiffies| WatchdogReport::of(order, record, Ok((jiffies, TICK)));
        let held = of(ORDER, record(1000, 0), 1000);
        assert_eq!(held.problem, None);
        let told = "the watchdog's timeout is 4.0 s (1000 jiffies); the scheduler itself declares 1.0 s";
        assert_eq!(held.to_string(), told);
        let not = of(ORDER, record(1000, 0), 250);
        let told = "a watchdog timeout of 4.0 s was to be set, but the kernel goes by 1000 ms where 4000 ms were \
                    expected; the scheduler itself declares 1.0 s";
        assert_eq!(not.to_string(), told);
        let unseen = of(ORDER, Ok(WatchdogRecord::default()), 7500);
        assert!(unseen.problem.as_ref().unwrap().contains("no scheduler was seen"), "{unseen:?}");
        assert!(of(ORDER, record(0, -14), 7500).problem.unwrap().contains("errno 14"));
        let unread = WatchdogReport::of(ORDER, record(0, 0), Err("no such symbol".to_string()));
        assert_eq!(unread.problem.as_deref(), Some("no such symbol"));
        let unset = WatchdogReport::of(ORDER, Err("refused".to_string()), Ok((7500, TICK)));
        assert_eq!(unset.problem.as_deref(), Some("refused"));
    }

    proptest! {
        /// `msecs_to_jiffies` rounds up.
        #[test]
        fn a_timeout_that_was_set_holds_at_every_tick_rate(seconds in 1u32..=30, hz in prop::sample::select(vec![100u32, 250, 300, 1000])) {
            let order = WatchdogOrder { timeout_ms: seconds * 1000 };
            let jiffies = (u64::from(seconds) * 1000 * u64::from(hz)).div_ceil(1000) as u32;
            let tick = Duration::from_nanos(1_000_000_000 / u64::from(hz) + 1);
            let report = WatchdogReport::of(order, record(0, 0), Ok((jiffies, tick)));
            prop_assert_eq!(report.problem, None);
        }

        #[test]
        fn another_timeout_never_passes_for_it(seconds in 1u32..=30, other in 1u32..=30) {
            prop_assume!(seconds != other);
            let order = WatchdogOrder { timeout_ms: seconds * 1000 };
            prop_assert!(WatchdogReport::of(order, record(0, 0), Ok((other * 250, TICK))).problem.is_some());
        }
    }
}
