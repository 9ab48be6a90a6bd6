//! The samples of a run in a few numbers.

use crate::checks::{FALLBACK, KEEP_LAST, event_rate, stalled_intervals};
use crate::phases::{Part, phases};
use crate::{Counters, MonitorLog, Sample, Schedstat, Violation};
use ktstr_assert::Phase;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How often an event was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct EventRate {
    /// Between the first and the last sample.
    pub delta: i64,
    /// The same a second; the highest between any two samples.
    pub max_per_s: f64,
}

/// How much of the CPUs' time went to interrupts (`rq.avg_irq.util_avg`), shares of 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct IrqUtil {
    /// The largest of one CPU in one sample.
    pub max: f64,
    /// Which CPU that was.
    pub cpu: u32,
    /// Average over samples and CPUs.
    pub avg: f64,
}

/// What the samples of a phase, or of all of a run, come to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PhaseSummary {
    /// What the test did; empty for all of a run.
    pub label: String,
    /// Its begin, ms since the test began.
    pub from_ms: u64,
    /// Samples that can be believed.
    pub samples: usize,
    /// Largest ratio of the longest to the shortest runqueue (the shortest taken as 1 at
    /// least).
    pub max_imbalance_ratio: f64,
    /// Average over the samples of the same.
    pub avg_imbalance_ratio: f64,
    /// Longest local dispatch queue; `None` without sched_ext.
    pub max_local_dsq_depth: Option<u32>,
    /// Average over samples and CPUs of the same.
    pub avg_local_dsq_depth: Option<f64>,
    /// Average over samples and CPUs of runnable tasks.
    pub avg_nr_running: f64,
    /// How often a busy CPU's clock stood still between two samples.
    pub stalled_intervals: usize,
    /// The step it belongs to; 0 is before the first.
    #[serde(default)]
    pub step: u16,
    /// `select_cpu` fallbacks a second; `None` where the kernel does not count them.
    #[serde(default)]
    pub fallback_rate: Option<f64>,
    /// Keep-last dispatches a second, likewise.
    #[serde(default)]
    pub keep_last_rate: Option<f64>,
    /// Iterations of all workers a second of guest time, where the phase is a whole step.
    #[serde(default)]
    pub iteration_rate: Option<f64>,
}

/// The monitor's part of a run's record.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MonitorSummary {
    /// Why nothing was sampled, or why the samples can't be believed.
    pub no_data: Option<String>,
    /// All of the run.
    pub total: PhaseSummary,
    /// Samples that were left out since their numbers can't be a runqueue's.
    pub skipped: usize,
    /// Tries that failed, and the last reason.
    pub failed: usize,
    /// As above.
    pub last_error: Option<String>,
    /// sched_ext's event counters, by name.
    pub events: BTreeMap<String, EventRate>,
    /// How the scheduler's counters grew on all CPUs; `None` on kernels without them.
    #[serde(default)]
    pub schedstat: Option<Schedstat>,
    /// How the counters of scheduling domains and BPF programs grew, and what samples of this kernel lack; `None` where
    /// fewer than two samples have them.
    #[serde(default)]
    pub counters: Option<Counters>,
    /// How long interrupts held up all tasks, microseconds; `None` on kernels that don't account for it.
    #[serde(default)]
    pub irq_pressure_us: Option<u64>,
    /// How much of the CPUs' time went to interrupts; `None` on kernels that don't account for it.
    #[serde(default)]
    pub irq_util: Option<IrqUtil>,
    /// Time in BPF programs, ns; `None` where the kernel didn't count it.
    #[serde(default)]
    pub bpf_run_time_ns: Option<u64>,
    /// What lasted beyond a limit, the test's own or a default.
    pub violations: Vec<Violation>,
    /// The same numbers by phase of the test.
    pub phases: Vec<PhaseSummary>,
    /// Host time that half of the samples took at most, microseconds; 0 in the record of a
    /// deterministic run, which has it among the host's times.
    pub cost_us: f64,
    /// Host time of the slowest, microseconds: it may have waited for a CPU of the host.
    pub max_cost_us: f64,
}

/// A number of a phase that is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetricError {
    /// Nobody looked, or no sample of that time can be believed.
    #[error("{phase} was not sampled{}", why.as_ref().map_or(String::new(), |why| format!(": {why}")))]
    NotSampled {
        /// The part of the run.
        phase: Phase,
        /// Why there are no samples at all.
        why: Option<String>,
    },
    /// No such number.
    #[error("no metric {0:?} of a phase; there are {known}", known = PHASE_METRICS.map(|(name, _)| name).join(", "))]
    Unknown(String),
    /// The kernel does not count it, or the step did not end.
    #[error("{name} was not measured in {phase}")]
    NotMeasured {
        /// Its name.
        name: String,
        /// The part of the run.
        phase: Phase,
    },
}

type OfPhase = fn(&PhaseSummary) -> Option<f64>;

/// Numbers of a phase by name; each is the field of that name.
const PHASE_METRICS: [(&str, OfPhase); 10] = [
    ("samples", |p| Some(p.samples as f64)),
    ("max_imbalance_ratio", |p| Some(p.max_imbalance_ratio)),
    ("avg_imbalance_ratio", |p| Some(p.avg_imbalance_ratio)),
    ("max_local_dsq_depth", |p| p.max_local_dsq_depth.map(f64::from)),
    ("avg_local_dsq_depth", |p| p.avg_local_dsq_depth),
    ("avg_nr_running", |p| Some(p.avg_nr_running)),
    ("stalled_intervals", |p| Some(p.stalled_intervals as f64)),
    ("fallback_rate", |p| p.fallback_rate),
    ("keep_last_rate", |p| p.keep_last_rate),
    ("iteration_rate", |p| p.iteration_rate),
];

impl MonitorSummary {
    /// Without what differs from run to run of the same guest: what samples cost the host.
    #[must_use]
    pub fn without_costs(self) -> Self {
        Self { cost_us: 0.0, max_cost_us: 0.0, ..self }
    }

    /// The numbers of a part of the run, where it was sampled; of a step all of it, not what followed its end.
    pub fn phase(&self, phase: Phase) -> Option<&PhaseSummary> {
        self.phases.iter().find(|p| p.step == phase.index())
    }

    /// One of them by its field's name, such as `avg_nr_running` or `iteration_rate`.
    ///
    /// # Errors
    /// [`MetricError`]
    pub fn phase_metric(&self, phase: Phase, name: &str) -> Result<f64, MetricError> {
        let (_, of) = PHASE_METRICS
            .iter()
            .find(|(known, _)| *known == name)
            .ok_or_else(|| MetricError::Unknown(name.to_string()))?;
        let why = self.no_data.clone();
        let found = self.phase(phase).ok_or(MetricError::NotSampled { phase, why: why.clone() })?;
        // Iterations are the guest's own word; all else is made of samples.
        if found.samples == 0 && !matches!(name, "iteration_rate" | "samples") {
            return Err(MetricError::NotSampled { phase, why });
        }
        of(found).ok_or_else(|| MetricError::NotMeasured { name: name.to_string(), phase })
    }
}

/// The numbers of each phase of a log.
pub fn phase_summaries(log: &MonitorLog) -> Vec<PhaseSummary> {
    phases(log).iter().map(of_part).collect()
}

/// The numbers of a log; violations and a lack of data are the caller's to add.
pub(crate) fn summarize(log: &MonitorLog) -> MonitorSummary {
    let samples = &log.samples;
    let mut costs: Vec<f64> = log.costs.iter().map(|d| d.as_nanos() as f64 / 1000.0).collect();
    costs.sort_by(f64::total_cmp);
    MonitorSummary {
        total: of_phase("", 0, samples),
        skipped: samples.iter().filter(|s| !s.is_plausible()).count(),
        failed: log.failed,
        last_error: log.last_error.clone(),
        events: events(samples),
        schedstat: schedstat(samples),
        counters: counters(samples),
        irq_pressure_us: growth(samples, |s| s.irq_pressure_us),
        irq_util: irq_util(samples),
        bpf_run_time_ns: growth(samples, |s| s.bpf_run_time_ns),
        phases: phase_summaries(log),
        cost_us: costs.get(costs.len() / 2).copied().unwrap_or_default(),
        max_cost_us: costs.last().copied().unwrap_or_default(),
        ..MonitorSummary::default()
    }
}

fn of_part(part: &Part<'_>) -> PhaseSummary {
    let summary = of_phase(part.label, part.from.as_millis() as u64, part.samples);
    PhaseSummary { step: part.step, iteration_rate: part.iteration_rate, ..summary }
}

/// An event's rate over all of some samples.
fn rate_over(samples: &[Sample], name: &str) -> Option<f64> {
    let mut counted = samples.iter().filter(|s| s.events.as_ref().is_some_and(|e| e.contains_key(name)));
    let first = counted.next()?;
    event_rate(first, counted.next_back()?, name)
}

fn of_phase(label: &str, from_ms: u64, samples: &[Sample]) -> PhaseSummary {
    let believed: Vec<&Sample> = samples.iter().filter(|s| s.is_plausible()).collect();
    let ratios: Vec<f64> = believed.iter().filter_map(|s| s.imbalance_ratio()).collect();
    let cpus = || believed.iter().flat_map(|s| &s.cpus);
    let depths: Vec<u32> = cpus().filter_map(|c| c.local_dsq_nr).collect();
    PhaseSummary {
        label: label.to_string(),
        from_ms,
        samples: believed.len(),
        max_imbalance_ratio: ratios.iter().copied().fold(0.0, f64::max),
        avg_imbalance_ratio: average(ratios.into_iter()).unwrap_or_default(),
        max_local_dsq_depth: depths.iter().copied().max(),
        avg_local_dsq_depth: average(depths.into_iter().map(f64::from)),
        avg_nr_running: average(cpus().map(|c| f64::from(c.nr_running))).unwrap_or_default(),
        stalled_intervals: stalled_intervals(samples),
        fallback_rate: rate_over(samples, FALLBACK),
        keep_last_rate: rate_over(samples, KEEP_LAST),
        ..PhaseSummary::default()
    }
}

fn average(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0u64), |(sum, count), v| (sum + v, count + 1));
    (count > 0).then(|| sum / count as f64)
}

/// From the first to the last sample, over the CPUs that are in both.
fn schedstat(samples: &[Sample]) -> Option<Schedstat> {
    let (first, last) = (samples.first()?, samples.last()?);
    let grown = last.cpus.iter().filter_map(|now| {
        let then = first.cpu(now.cpu)?.schedstat?;
        Some(now.schedstat?.zip(then, u64::saturating_sub))
    });
    grown.reduce(|sum, cpu| sum.zip(cpu, u64::saturating_add))
}

fn counters(samples: &[Sample]) -> Option<Counters> {
    let mut kept = samples.iter().filter_map(|s| s.counters.as_deref());
    let first = kept.next()?;
    Some(kept.next_back()?.since(first))
}

/// How a number grew from the first sample that has it to the last.
fn growth(samples: &[Sample], number: impl Fn(&Sample) -> Option<u64>) -> Option<u64> {
    let mut known = samples.iter().filter_map(number);
    let first = known.next()?;
    Some(known.next_back()?.saturating_sub(first))
}

/// `SCHED_CAPACITY_SCALE`: all of a CPU's time.
const WHOLE: f64 = 1024.0;

fn irq_util(samples: &[Sample]) -> Option<IrqUtil> {
    let known = || samples.iter().flat_map(|s| &s.cpus).filter_map(|c| Some((c.cpu, c.irq_util?)));
    let avg = average(known().map(|(_, share)| f64::from(share) / WHOLE))?;
    // The first of equals, as everywhere.
    let (cpu, most) = known().reduce(|most, next| if next.1 > most.1 { next } else { most })?;
    Some(IrqUtil { max: f64::from(most) / WHOLE, cpu, avg })
}

fn events(samples: &[Sample]) -> BTreeMap<String, EventRate> {
    let counted: Vec<&Sample> = samples.iter().filter(|s| s.events.is_some()).collect();
    let names: BTreeSet<&String> =
        counted.iter().flat_map(|s| s.events.iter().flat_map(BTreeMap::keys)).collect();
    let of_name = |name: &str| {
        let value = |s: &&Sample| s.events.as_ref().and_then(|e| e.get(name)).copied();
        let (first, last) = (counted.iter().find_map(value)?, counted.iter().rev().find_map(value)?);
        let rates = counted.windows(2).filter_map(|pair| event_rate(pair[0], pair[1], name));
        Some(EventRate { delta: last.saturating_sub(first), max_per_s: rates.fold(0.0, f64::max) })
    };
    names.into_iter().filter_map(|name| Some((name.clone(), of_name(name)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sample;
    use crate::{ProgramRuns, VcpuCounters};

    #[test]
    fn the_numbers_of_three_samples() {
        let mut samples = vec![sample(0, &[4, 2]), sample(100, &[2, 2]), sample(200, &[0, 2])];
        samples[1].cpus[1].local_dsq_nr = Some(6);
        samples[2].events = Some([("e".to_string(), 5)].into());
        samples[1].events = Some([("e".to_string(), 2)].into());
        let costs = [30, 10, 500].map(std::time::Duration::from_micros).to_vec();
        let log = MonitorLog { samples, costs, ..MonitorLog::default() };
        let summary = summarize(&log);
        let total = &summary.total;
        assert_eq!(total.samples, 3);
        assert_eq!((total.max_imbalance_ratio, total.avg_nr_running), (2.0, 2.0));
        assert!((total.avg_imbalance_ratio - 5.0 / 3.0).abs() < 1e-9);
        assert_eq!((total.max_local_dsq_depth, total.avg_local_dsq_depth), (Some(6), Some(1.0)));
        assert_eq!(summary.events["e"].delta, 3);
        assert!((summary.events["e"].max_per_s - 30.0).abs() < 1e-9);
        assert!((summary.cost_us - 30.0).abs() < 1e-9 && (summary.max_cost_us - 500.0).abs() < 1e-9);
    }

    #[test]
    fn counters_are_told_by_their_growth_over_all_cpus() {
        let mut samples = vec![sample(0, &[1, 1]), sample(100, &[1, 1])];
        assert_eq!((schedstat(&samples), irq_util(&samples)), (None, None));
        samples[1].cpus[0].irq_util = Some(512);
        samples[1].cpus[1].irq_util = Some(0);
        assert_eq!(irq_util(&samples), Some(IrqUtil { max: 0.5, cpu: 0, avg: 0.25 }));
        for (n, cpu) in (1..).zip(samples.iter_mut().flat_map(|s| &mut s.cpus)) {
            cpu.schedstat = Some(Schedstat { pcount: n * n, run_delay: 7, ..Schedstat::default() });
        }
        assert_eq!(schedstat(&samples), Some(Schedstat { pcount: 8 + 12, ..Schedstat::default() }));
    }

    #[test]
    fn domains_and_programs_are_told_by_their_growth_those_that_came_later_from_nothing() {
        let counters = |pulled: u64, programs: &[(&str, u64)]| {
            let of = |runs| ProgramRuns { runs, run_time_ns: runs * 10, misses: 1 };
            Box::new(Counters {
                vcpus: vec![VcpuCounters { page_faults: Some(pulled), ..VcpuCounters::default() }],
                domains: [("MC".to_string(), [("lb_gained.idle".to_string(), pulled)].into())].into(),
                programs: programs.iter().map(|(name, runs)| ((*name).to_string(), of(*runs))).collect(),
                left_out: vec!["irq".into()],
            })
        };
        let mut samples = vec![sample(0, &[1]), sample(100, &[1]), sample(200, &[1])];
        samples[0].counters = Some(counters(5, &[("old", 2), ("gone", 9)]));
        samples[0].bpf_run_time_ns = Some(7);
        assert_eq!((super::counters(&samples), growth(&samples, |s| s.bpf_run_time_ns)), (None, None));
        samples[2].counters = Some(counters(12, &[("old", 6), ("new", 3)]));
        samples[1].bpf_run_time_ns = Some(17);
        let summary = summarize(&MonitorLog { samples, ..MonitorLog::default() });
        let grown = summary.counters.unwrap();
        assert_eq!(grown.domains["MC"]["lb_gained.idle"], 7);
        assert_eq!(grown.vcpus[0].page_faults, Some(7));
        assert_eq!(grown.programs["old"], ProgramRuns { runs: 4, run_time_ns: 40, misses: 0 });
        assert_eq!(grown.programs["new"], ProgramRuns { runs: 3, run_time_ns: 30, misses: 1 });
        assert_eq!((grown.programs.len(), grown.left_out.len()), (2, 1));
        assert_eq!((summary.bpf_run_time_ns, summary.irq_pressure_us), (Some(10), None));
    }

    #[test]
    fn a_phases_numbers_are_had_by_name_or_with_the_reason_why_not() {
        let step = PhaseSummary { step: 1, samples: 4, avg_nr_running: 2.5, ..PhaseSummary::default() };
        let unseen = PhaseSummary { step: 2, iteration_rate: Some(7.0), ..PhaseSummary::default() };
        let stats = MonitorSummary { phases: vec![step, unseen], ..MonitorSummary::default() };
        let of = |k, name| stats.phase_metric(Phase::step(k), name);
        assert_eq!((of(1, "avg_nr_running"), of(2, "iteration_rate")), (Ok(2.5), Ok(7.0)));
        let told = |k, name| of(k, name).unwrap_err().to_string();
        assert_eq!(told(1, "fallback_rate"), "fallback_rate was not measured in step 1");
        assert_eq!(told(2, "avg_nr_running"), "step 2 was not sampled");
        assert_eq!(told(0, "samples"), "baseline was not sampled");
        assert!(told(1, "speed").starts_with("no metric \"speed\" of a phase; there are samples, max_imb"));
        let blind = MonitorSummary { no_data: Some("nobody looked".into()), ..MonitorSummary::default() };
        let why = blind.phase_metric(Phase::BASELINE, "samples").unwrap_err().to_string();
        assert_eq!(why, "baseline was not sampled: nobody looked");
    }

    /// Each name is that of the field whose number it is.
    #[test]
    fn metrics_are_the_fields_of_their_names() {
        let whole = PhaseSummary {
            samples: 1,
            max_imbalance_ratio: 2.0,
            avg_imbalance_ratio: 3.0,
            max_local_dsq_depth: Some(4),
            avg_local_dsq_depth: Some(5.0),
            avg_nr_running: 6.0,
            stalled_intervals: 7,
            fallback_rate: Some(8.0),
            keep_last_rate: Some(9.0),
            iteration_rate: Some(10.0),
            ..PhaseSummary::default()
        };
        let json = serde_json::to_value(&whole).unwrap();
        for (name, of) in PHASE_METRICS {
            assert_eq!(of(&whole), json[name].as_f64(), "{name}");
        }
    }

    #[test]
    fn an_implausible_sample_is_left_out_and_counted() {
        let mut samples = vec![sample(0, &[1, 1]), sample(100, &[9, 1])];
        samples[1].cpus[0].local_dsq_nr = Some(1 << 30);
        let summary = summarize(&MonitorLog { samples, ..MonitorLog::default() });
        assert_eq!((summary.total.samples, summary.skipped), (1, 1));
        assert_eq!(summary.total.max_local_dsq_depth, Some(0));
    }

    #[test]
    fn of_nothing_the_numbers_are_zero() {
        let summary = summarize(&MonitorLog::default());
        assert_eq!((summary.total.samples, summary.cost_us), (0, 0.0));
        assert!(summary.total.avg_nr_running.abs() < 1e-9);
    }
}
