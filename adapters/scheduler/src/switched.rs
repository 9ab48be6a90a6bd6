//! Schedulers that are part of a kernel: shell commands switch them on and off.

use crate::guest::{GuestSchedulers, LOOK, Live, ms, refused, run_all, unprepared};
use crate::kernel::Scx;
use ktstr_scheduler::{NotAttached, SchedulerPlan, SchedulerReport, StartOutcome};
use std::time::{Duration, Instant};

impl GuestSchedulers {
    /// Switches one on. With a declared name the kernel is asked until it has a scheduler of that name; without one
    /// nobody knows what to ask for, and the report says so.
    pub(crate) fn switch_on(
        &self,
        plan: &SchedulerPlan,
        enable: &[String],
        disable: &[String],
        mut report: SchedulerReport,
    ) -> Result<Live, Box<SchedulerReport>> {
        if plan.ops.is_some() {
            self.has_room().map_err(|why| refused(&report, &why))?;
            self.prepare(&plan.name);
        }
        let started = Instant::now();
        run_all(enable).map_err(|why| unprepared(&report, why))?;
        match &plan.ops {
            None => report.ops = self.kernel.scx().map(|scx| scx.ops).filter(|ops| !ops.is_empty()),
            Some(expected) => match self.enabled(expected, started, plan.attach_within_ms) {
                Ok(ops) => {
                    report.ops = Some(ops);
                    report.attach_ms = ms(started.elapsed());
                    report.switch_all = self.kernel.switch_all();
                    report.outcome = StartOutcome::Attached;
                }
                Err(why) => {
                    let mut report = refused(&report, &why);
                    // Whoever comes next must find the kernel as it was.
                    if let (Err(e), Some(text)) = (run_all(disable), &mut report.not_attached) {
                        text.push_str(&format!("; switching it off again: {e}"));
                    }
                    return Err(report);
                }
            },
        }
        Ok(Live {
            process: None,
            disable: disable.to_vec(),
            report,
            stats: None,
            started,
            since: Instant::now(),
        })
    }

    /// Waits until the kernel has that scheduler; its name.
    fn enabled(&self, expected: &str, started: Instant, within_ms: u64) -> Result<String, NotAttached> {
        loop {
            match self.kernel.scx() {
                Some(scx) if scx.is_enabled() && scx.ops.starts_with(expected) => return Ok(scx.ops),
                Some(scx) if scx.is_enabled() => {
                    return Err(NotAttached::OtherName { expected: expected.to_string(), seen: scx.ops });
                }
                other if started.elapsed() >= Duration::from_millis(within_ms) => {
                    let state = other.as_ref().map_or_else(String::new, Scx::describe);
                    return Err(NotAttached::NotEnabled { after_ms: within_ms, state });
                }
                _ => std::thread::sleep(LOOK),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::LogSink;
    use crate::kernel::Kernel;
    use ktstr_scheduler::{Program, Refusal};
    use std::path::Path;
    use std::sync::Arc;

    fn schedulers(root: &Path) -> GuestSchedulers {
        let sink: LogSink = Arc::new(|_: &[u8]| {});
        let mut schedulers =
            GuestSchedulers::new(Vec::new(), Err("none".to_string()), || Ok(String::new()), sink);
        schedulers.kernel = Kernel::at(root);
        schedulers
    }

    /// A kernel whose builtin scheduler is switched on by writing its name.
    fn switched_on(ops: Option<&str>, name: &str) -> (Result<Live, Box<SchedulerReport>>, String) {
        let dir = tempfile::tempdir().unwrap();
        let scx = dir.path().join("sys/kernel/sched_ext");
        std::fs::create_dir_all(scx.join("root")).unwrap();
        std::fs::write(scx.join("state"), "disabled\n").unwrap();
        let at = scx.display();
        let enable = [format!("echo enabled > {at}/state; printf '%s' '{name}' > {at}/root/ops")];
        let disable = [format!("echo disabled > {at}/state; rm {at}/root/ops")];
        let plan = SchedulerPlan {
            name: "s".to_string(),
            program: Program::Commands { enable: Vec::new(), disable: Vec::new() },
            ops: ops.map(String::from),
            sysctls: Vec::new(),
            attach_within_ms: 50,
            watchdog: None,
        };
        let report = SchedulerReport { name: "s".to_string(), ..SchedulerReport::default() };
        let live = schedulers(dir.path()).switch_on(&plan, &enable, &disable, report);
        (live, std::fs::read_to_string(scx.join("state")).unwrap().trim().to_string())
    }

    #[test]
    fn the_kernel_is_asked_for_a_declared_name() {
        let (live, state) = switched_on(Some("demo"), "demo_1");
        let report = live.unwrap_or_else(|report| panic!("{report:?}")).report;
        assert_eq!((report.outcome, report.ops.as_deref()), (StartOutcome::Attached, Some("demo_1")));
        assert_eq!(state, "enabled");
        let refused = |ops, name| {
            let (live, state) = switched_on(Some(ops), name);
            assert_eq!(state, "disabled", "it is switched off again");
            live.err().expect("a refusal")
        };
        let other = refused("demo", "impostor");
        assert_eq!(other.outcome, StartOutcome::NotAttached(Refusal::OtherName));
        let never = refused("demo", "");
        assert_eq!(never.outcome, StartOutcome::NotAttached(Refusal::TimedOut));
        assert!(never.not_attached.unwrap().starts_with("not enabled 0.1 s of guest time after"));
    }

    #[test]
    fn without_a_name_nobody_confirms_anything() {
        let (live, _) = switched_on(None, "whatever");
        let report = live.unwrap_or_else(|report| panic!("{report:?}")).report;
        assert_eq!((report.outcome, report.ops.as_deref()), (StartOutcome::Unconfirmed, Some("whatever")));
    }
}
