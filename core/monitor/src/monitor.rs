//! Takes samples while a test runs.

use crate::checks::violations;
use crate::{
    COUNTERS_DIFFER, CgroupState, Limits, Observer, Sample, SampleError, Sampler, VcpuReadings, implausible,
};
use ktstr_assert::Assert;
use std::time::Duration;

/// How far samples are apart unless said otherwise.
pub const DEFAULT_PERIOD: Duration = Duration::from_millis(100);
/// Readings of CPUs that are kept: a test of seven hours on 4 CPUs.
const MAX_READINGS: usize = 1 << 20;
const MAX_MARKS: usize = 10_000;

/// A turn in what the test did: where a phase begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mark {
    /// When, since the test began, by the clock of the samples.
    pub at: Duration,
    /// What begins.
    pub label: String,
    /// The step that the time from here on belongs to; 0 is before the first.
    pub step: u16,
    /// The same turn by the guest's clock, ms since the scenario began.
    pub guest_ms: u64,
    /// Iterations of all workers until then, where the guest counted them.
    pub iterations: Option<u64>,
}

/// All that a monitor saw of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MonitorLog {
    /// Why there was no sampling at all; `None` when there was to be.
    pub unsampled: Option<String>,
    /// The samples, by time.
    pub samples: Vec<Sample>,
    /// The turns of the test, by time.
    pub marks: Vec<Mark>,
    /// Tries that came before the reader was ready.
    pub not_ready: usize,
    /// Tries that failed otherwise.
    pub failed: usize,
    /// The last of those errors.
    pub last_error: Option<String>,
    /// Host time that each sample took.
    pub costs: Vec<Duration>,
    /// True when sampling ended early for the last of those errors.
    pub broken_off: bool,
    /// True when more samples could not be kept.
    pub full: bool,
    /// cgroups that were frozen, with tasks in them, when the workload ended.
    pub left_frozen: Vec<CgroupState>,
}

impl MonitorLog {
    /// The log of a run that was not to be sampled.
    pub fn unsampled(reason: impl Into<String>) -> Self {
        Self { unsampled: Some(reason.into()), ..Self::default() }
    }
}

/// Decides when to sample and keeps what was seen.
#[derive(Debug)]
pub struct Monitor {
    log: MonitorLog,
    /// How far samples are apart by the host's clock; `None` where the guest asks for each.
    period: Option<Duration>,
    begun: Option<Duration>,
    due: Option<Duration>,
    readings: usize,
    /// What is looked for while the test runs; `None` once it was found.
    alarm: Option<(Assert, Limits)>,
}

impl Monitor {
    /// A monitor that samples every `period` once the test has begun.
    pub fn every(period: Duration) -> Self {
        Self::new(MonitorLog::default(), Some(period))
    }

    /// A monitor that samples when the guest asks for it, so that nothing of a sample depends
    /// on the host.
    pub fn when_asked() -> Self {
        Self::new(MonitorLog::default(), None)
    }

    /// A monitor that takes no samples, for that reason.
    pub fn off(reason: impl Into<String>) -> Self {
        Self::new(MonitorLog::unsampled(reason), None)
    }

    fn new(log: MonitorLog, period: Option<Duration>) -> Self {
        Self { log, period, begun: None, due: None, readings: 0, alarm: None }
    }

    /// Tells of the first violation of a check that `asked` sets while the test runs.
    #[must_use]
    pub fn with_alarm(self, asked: &Assert) -> Self {
        Self { alarm: Some((*asked, Limits::of(asked))), ..self }
    }

    /// The first violation of a check that the test set, once, as soon as it has lasted long
    /// enough.
    pub fn alarm(&mut self) -> Option<String> {
        let (asked, limits) = self.alarm.as_ref()?;
        let window = limits.sustained_samples.saturating_add(1);
        let last = &self.log.samples[self.log.samples.len().checked_sub(window)?..];
        if implausible(last).is_some() {
            return None;
        }
        let found = violations(last, limits).into_iter().find(|v| v.check.is_set(asked));
        let text = found.map(|v| format!("{}: {}", v.check.name(), v.text))?;
        self.alarm = None;
        Some(text)
    }

    /// Notes what was frozen when the workload ended.
    pub fn left_frozen(&mut self, cgroups: &[CgroupState]) {
        let frozen = cgroups.iter().filter(|c| c.frozen && !c.tasks.is_empty());
        let new: Vec<CgroupState> =
            frozen.filter(|c| self.log.left_frozen.iter().all(|k| k.path != c.path)).cloned().collect();
        self.log.left_frozen.extend(new);
    }

    /// Whether it ever samples.
    pub const fn is_on(&self) -> bool {
        self.log.unsampled.is_none()
    }

    /// The test begins.
    pub fn begin(&mut self, now: Duration) {
        self.begun = Some(now);
        self.due = self.period.filter(|_| self.is_on()).map(|_| now);
    }

    /// The test has ended: no more samples.
    pub fn end(&mut self) {
        self.due = None;
    }

    /// How long until the next sample; `None` when there is none to come.
    pub fn due_in(&self, now: Duration) -> Option<Duration> {
        self.due.map(|due| due.saturating_sub(now))
    }

    /// Notes a turn of the test; its time becomes `now`, since the test began.
    pub fn mark(&mut self, now: Duration, mark: Mark) {
        if let Some(begun) = self.begun
            && self.log.marks.len() < MAX_MARKS
        {
            self.log.marks.push(Mark { at: now.saturating_sub(begun), ..mark });
        }
    }

    /// Takes a sample if one is due; true if one was taken. `clock` tells the host's time; `vcpus` what the host knows of
    /// the vCPUs, their counters only when they are asked for.
    pub fn poll(
        &mut self,
        sampler: &mut dyn Sampler,
        clock: &dyn Fn() -> Duration,
        vcpus: &mut dyn FnMut(bool) -> VcpuReadings,
    ) -> bool {
        let (now, Some(begun), Some(period)) = (clock(), self.begun, self.period) else { return false };
        if self.due_in(now) != Some(Duration::ZERO) {
            return false;
        }
        self.due = Some(now + period);
        let outcome = sampler.sample(now.saturating_sub(begun)).map(|mut sample| {
            let VcpuReadings { times, counters, left_out } = vcpus(sample.counters.is_some());
            let times = times.unwrap_or_default();
            for cpu in &mut sample.cpus {
                cpu.vcpu_time = times.get(cpu.cpu as usize).copied();
            }
            if let Some(of_sample) = &mut sample.counters {
                of_sample.vcpus = counters;
                of_sample.left_out.extend(left_out);
            }
            sample
        });
        self.note(outcome, clock().saturating_sub(now))
    }

    /// Takes a sample of a guest that has asked for it through `observer` and stands still, `at`
    /// since the test began; true if one was taken. `clock` tells the host's time, which says
    /// what that cost and nothing else.
    pub fn take(
        &mut self,
        sampler: &mut dyn Sampler,
        at: Duration,
        observer: &Observer,
        clock: &dyn Fn() -> Duration,
    ) -> bool {
        if !self.is_on() || self.log.full || self.log.broken_off {
            return false;
        }
        let begin = clock();
        let outcome = sampler.sample(at).map(|mut sample| {
            if let Some(counters) = &mut sample.counters {
                counters.left_out.push(COUNTERS_DIFFER.to_string());
            }
            let next = |cpu| sampler.next_after(cpu, observer.pid);
            sample.without(observer, next)
        });
        self.note(outcome, clock().saturating_sub(begin))
    }

    /// Keeps what came of a try, which took so long; true if it is a sample.
    fn note(&mut self, outcome: Result<Sample, SampleError>, cost: Duration) -> bool {
        let taken = outcome.is_ok();
        match outcome {
            Ok(sample) => self.keep(sample, cost),
            Err(SampleError::NotReady) => self.log.not_ready += 1,
            Err(error) => {
                self.log.failed += 1;
                self.log.last_error = Some(error.to_string());
                if !error.is_passing() {
                    self.log.broken_off = true;
                    self.due = None;
                }
            }
        }
        taken
    }

    /// What was seen.
    pub fn into_log(self) -> MonitorLog {
        self.log
    }

    fn keep(&mut self, sample: Sample, cost: Duration) {
        self.log.costs.push(cost);
        self.readings += sample.cpus.len().max(1);
        // Growth is told from the first that has them to the last.
        if sample.counters.is_some() {
            let mut older = self.log.samples.iter_mut().rev().filter(|s| s.counters.is_some());
            if let (Some(middle), Some(_)) = (older.next(), older.next()) {
                middle.counters = None;
            }
        }
        self.log.samples.push(sample);
        if self.readings >= MAX_READINGS {
            self.log.full = true;
            self.due = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::MockSampler;
    use crate::testing::sample;
    use crate::{Current, VcpuCounters};
    use std::cell::Cell;

    const MS: Duration = Duration::from_millis(1);

    /// Of one vCPU.
    fn readings(with_counters: bool) -> VcpuReadings {
        let counters = VcpuCounters { page_faults: Some(3), ..VcpuCounters::default() };
        VcpuReadings {
            times: Some(vec![7 * MS]),
            counters: if with_counters { vec![counters] } else { Vec::new() },
            left_out: vec!["cycles: none".into()],
        }
    }

    /// Polls once a millisecond for `ms`, after the test began at 1 s.
    fn watch(monitor: &mut Monitor, sampler: &mut MockSampler, ms: u32) {
        monitor.begin(1000 * MS);
        let now = Cell::new(1000 * MS);
        for _ in 0..ms {
            monitor.poll(sampler, &|| now.get(), &mut readings);
            now.set(now.get() + MS);
        }
    }

    #[test]
    fn counters_are_kept_of_the_first_and_of_the_last_sample_that_has_them() {
        let mut sampler = MockSampler::new();
        sampler.expect_sample().times(6).returning(|at| {
            let ms = at.as_millis() as u64;
            let counters = (ms != 0 && ms != 500).then(Box::default);
            Ok(Sample { counters, ..sample(ms, &[1]) })
        });
        let mut monitor = Monitor::every(100 * MS);
        watch(&mut monitor, &mut sampler, 550);
        let samples = monitor.into_log().samples;
        let kept = samples.iter().map(|s| s.counters.is_some());
        assert_eq!(kept.collect::<Vec<_>>(), [false, true, false, false, true, false]);
        // What the host counted comes along.
        let counters = samples[1].counters.as_ref().unwrap();
        assert_eq!(
            (counters.vcpus[0].page_faults, &counters.left_out[..]),
            (Some(3), &["cycles: none".into()][..])
        );
    }

    #[test]
    fn samples_are_a_period_apart_and_carry_the_tests_time() {
        let mut sampler = MockSampler::new();
        sampler.expect_sample().times(3).returning(|at| Ok(sample(at.as_millis() as u64, &[1, 1])));
        let mut monitor = Monitor::every(100 * MS);
        watch(&mut monitor, &mut sampler, 250);
        let log = monitor.into_log();
        let times: Vec<u128> = log.samples.iter().map(|s| s.at.as_millis()).collect();
        assert_eq!(times, [0, 100, 200]);
        assert_eq!(log.samples[0].cpus[0].vcpu_time, Some(7 * MS));
        assert_eq!(log.samples[0].cpus[1].vcpu_time, None);
    }

    #[test]
    fn a_passing_error_is_tried_again_and_a_final_one_is_not() {
        let mut sampler = MockSampler::new();
        let mut answers = vec![
            Err(SampleError::Broken("no kernel here".into())),
            Ok(sample(200, &[1])),
            Err(SampleError::Torn("a list".into())),
            Err(SampleError::NotReady),
        ];
        sampler.expect_sample().times(4).returning(move |_| answers.pop().expect("four tries"));
        let mut monitor = Monitor::every(100 * MS);
        watch(&mut monitor, &mut sampler, 1000);
        let log = monitor.into_log();
        assert_eq!((log.samples.len(), log.not_ready, log.failed), (1, 1, 2));
        assert_eq!(log.last_error.as_deref(), Some("no kernel here"));
        assert!(log.broken_off);
    }

    #[test]
    fn the_alarm_is_given_once_and_only_for_checks_that_were_set() {
        let asked = Assert::NO_OVERRIDES.max_imbalance_ratio(4.0);
        for (asked, expected) in [(asked, true), (Assert::NO_OVERRIDES, false)] {
            let mut sampler = MockSampler::new();
            sampler.expect_sample().returning(|at| Ok(sample(at.as_millis() as u64, &[9, 1])));
            let mut monitor = Monitor::every(100 * MS).with_alarm(&asked);
            watch(&mut monitor, &mut sampler, 450);
            assert_eq!(monitor.alarm(), None, "it has not lasted long enough");
            watch(&mut monitor, &mut sampler, 450);
            let text = monitor.alarm();
            assert_eq!(text.is_some(), expected);
            assert!(text.is_none_or(|t| t.starts_with("max_imbalance_ratio: runqueues differ")));
            assert_eq!(monitor.alarm(), None);
        }
    }

    #[test]
    fn a_monitor_that_is_off_touches_nothing() {
        let mut monitor = Monitor::off("deterministic");
        watch(&mut monitor, &mut MockSampler::new(), 300);
        assert_eq!(monitor.into_log().unsampled.as_deref(), Some("deterministic"));
    }

    const OBSERVER: Observer = Observer { pid: 77, switches: 10 };

    /// As the kernel has it while the observer is at work on CPU 1.
    fn observed(at: Duration, nr_running: &[u32]) -> Sample {
        let mut seen = sample(at.as_millis() as u64, nr_running);
        seen.cpus[1].curr_pid = Some(OBSERVER.pid);
        seen.cpus[1].nr_switches = 521;
        seen
    }

    #[test]
    fn a_sample_that_was_asked_for_is_as_if_nobody_had_asked() {
        let mut sampler = MockSampler::new();
        sampler
            .expect_sample()
            .returning(|at| Ok(Sample { counters: Some(Box::default()), ..observed(at, &[1, 3]) }));
        let hog = Current { pid: 5, prio: Some(89), comm: *b"hog\0\0\0\0\0\0\0\0\0\0\0\0\0" };
        sampler
            .expect_next_after()
            .times(1)
            .withf(|cpu, pid| (*cpu, *pid) == (1, 77))
            .return_const(Some(hog));
        let mut monitor = Monitor::when_asked();
        monitor.begin(Duration::ZERO);
        assert_eq!(monitor.due_in(MS), None, "the host's clock has no say");
        assert!(!monitor.poll(&mut sampler, &|| 500 * MS, &mut readings));
        let clock = Cell::new(7 * MS);
        let tick = || clock.replace(clock.get() + 2 * MS);
        assert!(monitor.take(&mut sampler, 100 * MS, &OBSERVER, &tick));
        let log = monitor.into_log();
        assert_eq!((log.samples[0].at, &log.costs[..]), (100 * MS, &[2 * MS][..]));
        let counters = log.samples[0].counters.as_ref().unwrap();
        assert!(counters.vcpus.is_empty() && counters.left_out[0].contains("differs from run to run"));
        let cpu = log.samples[0].cpus[1];
        assert_eq!((cpu.nr_running, cpu.nr_switches, cpu.curr_pid), (2, 500, Some(5)));
        assert_eq!((cpu.curr_prio, cpu.current(), cpu.vcpu_time), (Some(89), "hog".to_string(), None));
        assert_eq!(log.samples[0].cpus[0], sample(100, &[1, 3]).cpus[0], "the other CPU is as it was");
    }

    /// A hog beside the observer is found though the observer interrupts it at every sample.
    #[test]
    fn a_hog_on_the_observers_own_cpu_is_found() {
        let mut sampler = MockSampler::new();
        let times = Cell::new(0);
        sampler.expect_sample().returning_st(move |at| {
            let mut seen = observed(at, &[1, 3]);
            // It leaves and comes back, and nobody else does.
            seen.cpus[1].nr_switches += 2 * times.replace(times.get() + 1);
            Ok(seen)
        });
        let hog = Current { pid: 5, prio: Some(89), comm: [0; 16] };
        sampler.expect_next_after().return_const(Some(hog));
        let asked = Assert::NO_OVERRIDES.fail_on_stall(true);
        let mut monitor = Monitor::when_asked().with_alarm(&asked);
        monitor.begin(Duration::ZERO);
        for n in 0..6 {
            assert_eq!(monitor.alarm(), None);
            let observer = Observer { switches: OBSERVER.switches + n, ..OBSERVER };
            assert!(monitor.take(&mut sampler, MS * 100 * n as u32, &observer, &|| MS));
        }
        let text = monitor.alarm().unwrap();
        assert!(text.contains("cpu1 stalled:") && text.contains("(pid 5) of a real-time class"), "{text}");
    }

    #[test]
    fn one_that_is_off_or_broken_off_takes_nothing_when_asked() {
        let mut sampler = MockSampler::new();
        assert!(!Monitor::off("a test").take(&mut sampler, MS, &OBSERVER, &|| MS));
        sampler.expect_sample().times(1).returning(|_| Err(SampleError::Broken("a bug".into())));
        let mut monitor = Monitor::when_asked();
        assert!(!monitor.take(&mut sampler, MS, &OBSERVER, &|| MS));
        assert!(!monitor.take(&mut sampler, 2 * MS, &OBSERVER, &|| MS));
        assert!(monitor.into_log().broken_off);
    }

    #[test]
    fn the_tests_end_ends_sampling() {
        let mut sampler = MockSampler::new();
        sampler.expect_sample().times(1).returning(|_| Ok(sample(0, &[1])));
        let mut monitor = Monitor::every(100 * MS);
        watch(&mut monitor, &mut sampler, 50);
        monitor.end();
        monitor.poll(&mut sampler, &|| 5000 * MS, &mut readings);
        assert_eq!(monitor.due_in(6000 * MS), None);
    }

    #[test]
    fn memory_for_samples_is_bounded() {
        let mut sampler = MockSampler::new();
        sampler.expect_sample().returning(|_| Ok(sample(0, &[0; 1 << 18])));
        let mut monitor = Monitor::every(MS);
        watch(&mut monitor, &mut sampler, 100);
        let log = monitor.into_log();
        assert!(log.full);
        assert_eq!(log.samples.len(), 4);
    }
}
