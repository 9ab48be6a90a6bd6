//! What `#[ktstr_test]` declares.

use crate::vm_result::PostVm;
use ktstr_assert::Assert;
use ktstr_scheduler::{BpfMapWrite, Scheduler};
use ktstr_topology::{ShapeBounds, Topology};
use std::time::Duration;

/// A declared test, all but its function.
#[derive(Debug, Clone)]
pub struct TestSpec {
    /// The function's name.
    pub name: &'static str,
    /// Its module path, crate first.
    pub module: &'static str,
    /// The scheduler it is about.
    pub scheduler: &'static Scheduler,
    /// Arguments of the scheduler after its own.
    pub extra_sched_args: &'static [&'static str],
    /// What the scheduler's configuration file holds; else what its declaration says.
    pub config: Option<&'static str>,
    /// How long the kernel lets a task wait before it drops a scheduler of the test's, s; else its declaration says.
    pub watchdog_timeout_s: Option<u32>,
    /// Schedulers that lie ready for ops that change it.
    pub staged_schedulers: &'static [&'static Scheduler],
    /// What the host writes into the scheduler's variables once it has attached, before the scenario.
    pub bpf_map_write: &'static [BpfMapWrite],
    /// Runs under the kernel's own scheduler first, for numbers to compare with.
    pub baseline: bool,
    /// What the scheduler's own error must contain, for a test that is meant to fail.
    pub scx_error_contains: Option<&'static str>,
    /// A regular expression that it must match.
    pub scx_error_matches: Option<&'static str>,
    /// Its machine.
    pub topology: Topology,
    /// RAM in MiB; the machine gets at least 64 MiB a CPU and 256 MiB.
    pub memory_mib: u32,
    /// How long its workload holds.
    pub duration: Duration,
    /// How much longer than `duration` the function may take, in guest time.
    pub timeout: Duration,
    /// Workers of a cgroup that does not say how many.
    pub workers_per_cgroup: usize,
    /// Checks that differ from the defaults.
    pub checks: Assert,
    /// Runs on the host, without a machine.
    pub host_only: bool,
    /// The test is meant to fail: a pass is a failure.
    pub expect_err: bool,
    /// Wants the host's CPUs to itself: [`Performance`](ktstr_machine::Performance).
    pub performance_mode: bool,
    /// Needs no speed: runs on a part of the host's CPUs, [`Share`](ktstr_machine::Share).
    pub no_perf_mode: bool,
    /// How many CPUs of the host that part is; else 30 % of them.
    pub cpu_budget: Option<u32>,
    /// Its kernel lies somewhere else with every boot (`CONFIG_RANDOMIZE_BASE`).
    pub kaslr: bool,
    /// A crash is repeated with probes.
    pub auto_repro: bool,
    /// The test is meant to fail by a crash that comes again under probes: that is a pass.
    pub expect_auto_repro: bool,
    /// Only runs when asked for.
    pub ignored: bool,
    /// Gauntlet machines.
    pub gauntlet: ShapeBounds,
    /// Further kernel arguments.
    pub kargs: &'static [&'static str],
    /// Snapshots that the clock causes, evenly spread over the workload.
    pub num_snapshots: u32,
    /// Kernel values that every snapshot holds, such as `runqueues[*].nr_running`.
    pub snapshot_paths: &'static [&'static str],
    /// A check on the host once the machine has ended, unless the test failed before.
    pub post_vm: Option<PostVm>,
    /// The same in any case.
    pub post_vm_unconditional: Option<PostVm>,
}

/// The least between two snapshots that the clock causes.
const SNAPSHOTS_APART: Duration = Duration::from_millis(100);

impl TestSpec {
    /// What holds where a test says nothing: 1n1l2c1t, 256 MiB, 2 s, 30 s to
    /// spare, 2 workers a cgroup, the default checks.
    pub const DEFAULT: Self = Self::new("", "", Topology::DEFAULT);

    /// A test with the defaults on a machine of this shape.
    pub const fn new(name: &'static str, module: &'static str, topology: Topology) -> Self {
        Self {
            name,
            module,
            scheduler: &Scheduler::EEVDF,
            extra_sched_args: &[],
            config: None,
            watchdog_timeout_s: None,
            staged_schedulers: &[],
            bpf_map_write: &[],
            baseline: false,
            scx_error_contains: None,
            scx_error_matches: None,
            topology,
            memory_mib: 256,
            duration: Duration::from_secs(2),
            timeout: Duration::from_secs(30),
            workers_per_cgroup: 2,
            checks: Assert::NO_OVERRIDES,
            host_only: false,
            expect_err: false,
            performance_mode: false,
            no_perf_mode: false,
            cpu_budget: None,
            kaslr: false,
            auto_repro: true,
            expect_auto_repro: false,
            ignored: false,
            gauntlet: ShapeBounds::DEFAULT,
            kargs: &[],
            num_snapshots: 0,
            snapshot_paths: &[],
            post_vm: None,
            post_vm_unconditional: None,
        }
    }

    /// Why the snapshots that the clock causes can't be had from a workload that holds so long; `None` when they can.
    /// The attribute is checked where it stands, but the environment may set another duration.
    pub fn snapshots_problem(&self, duration: Duration) -> Option<String> {
        let count = self.num_snapshots;
        // Over the inner 80 % of the workload.
        let apart = duration * 4 / 5 / count.saturating_add(1);
        (count > 0 && apart < SNAPSHOTS_APART).then(|| {
            format!(
                "`num_snapshots = {count}` would lie {} ms apart in a workload of {} s: expected at least {} ms; let it \
                 hold longer or take fewer",
                apart.as_millis(),
                duration.as_secs_f64(),
                SNAPSHOTS_APART.as_millis()
            )
        })
    }

    /// The scheduler's checks with the test's own on top.
    pub const fn own_checks(&self) -> Assert {
        self.scheduler.assert.merge(&self.checks)
    }

    /// Ignored by declaration, or by its name: `demo_…` tests only run when asked.
    pub fn is_ignored(&self) -> bool {
        self.ignored || self.name.starts_with("demo_")
    }

    /// The path under which libtest knows the test's wrapper: the module without
    /// the crate, then the name.
    pub fn libtest_path(&self) -> String {
        match self.module.split_once("::") {
            Some((_, inner)) => format!("{inner}::{}", self.name),
            None => self.name.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_need_a_workload_that_is_long_enough() {
        let spec = TestSpec { num_snapshots: 3, ..TestSpec::DEFAULT };
        let problem = |ms| spec.snapshots_problem(Duration::from_millis(ms));
        assert_eq!(problem(500), None);
        assert!(
            problem(499)
                .unwrap()
                .starts_with("`num_snapshots = 3` would lie 99 ms apart in a workload of 0.499 s")
        );
        assert_eq!(TestSpec::DEFAULT.snapshots_problem(Duration::from_millis(1)), None);
    }

    #[test]
    fn the_wrappers_path_has_no_crate() {
        let spec = TestSpec { name: "t", module: "my_tests::inner", ..TestSpec::DEFAULT };
        assert_eq!(spec.libtest_path(), "inner::t");
        assert_eq!(TestSpec { name: "t", module: "my_tests", ..TestSpec::DEFAULT }.libtest_path(), "t");
    }

    /// Default, scheduler, test: the later one that says something wins, check by check.
    #[test]
    fn checks_come_from_the_scheduler_and_the_test_has_the_last_word() {
        static STRICT: Scheduler = Scheduler {
            assert: Assert { max_gap_ms: Some(50), not_starved: Some(false), ..Assert::NO_OVERRIDES },
            ..Scheduler::named("strict")
        };
        let own = Assert { max_gap_ms: Some(900), isolation: Some(true), ..Assert::NO_OVERRIDES };
        let checks = TestSpec { scheduler: &STRICT, checks: own, ..TestSpec::DEFAULT }.own_checks();
        assert_eq!(
            (checks.max_gap_ms, checks.not_starved, checks.isolation, checks.max_spread_pct),
            (Some(900), Some(false), Some(true), None)
        );
        let inherited = TestSpec { scheduler: &STRICT, ..TestSpec::DEFAULT }.own_checks();
        assert_eq!((inherited.max_gap_ms, inherited.isolation), (Some(50), None));
        let plain = TestSpec { checks: own, ..TestSpec::DEFAULT }.own_checks();
        assert_eq!((plain.max_gap_ms, plain.not_starved), (Some(900), None));
    }

    #[test]
    fn demo_tests_wait_to_be_asked() {
        assert!(TestSpec { name: "demo_x", ..TestSpec::DEFAULT }.is_ignored());
        assert!(!TestSpec { name: "x_demo_", ..TestSpec::DEFAULT }.is_ignored());
    }
}
