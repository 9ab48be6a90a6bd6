//! How counters grew over a run, in a bounded number of stretches.

use crate::{MonitorLog, Sample, Schedstat};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Stretches of time that are kept.
const MAX_POINTS: usize = 64;
/// Stretches that have a line for people, and counters that each names.
const LINES: usize = 12;
const NAMED: usize = 5;

/// How counters grew over a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventTimeline {
    /// Stretches of time one after the other, from the first to the last sample.
    pub points: Vec<EventPoint>,
    /// How many samples the longest of them goes over; above 1 the timeline is coarser than the samples were.
    pub samples_a_point: usize,
    /// What it lacks, and why.
    pub left_out: Vec<String>,
}

/// A stretch of time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventPoint {
    /// From when, ms since the test began.
    pub from_ms: u64,
    /// Until when.
    pub to_ms: u64,
    /// What the test did at its begin; empty before the first step.
    pub phase: String,
    /// How counters grew meanwhile, by name, over all CPUs; those that did not aren't told. `SCX_EV_*` are sched_ext's, the
    /// others members of `struct rq`, or of a [`Sample`].
    pub grown: BTreeMap<String, i64>,
}

/// The timeline of what was sampled of a run.
pub fn event_timeline(log: &MonitorLog) -> EventTimeline {
    let samples: Vec<&Sample> = log.samples.iter().filter(|sample| sample.is_plausible()).collect();
    let steps = samples.len().saturating_sub(1);
    let a_point = steps.div_ceil(MAX_POINTS).max(1);
    let mut points = Vec::new();
    for from in (0..steps).step_by(a_point) {
        let (first, last) = (samples[from], samples[(from + a_point).min(steps)]);
        let phase = log.marks.iter().rev().find(|mark| mark.at <= first.at);
        points.push(EventPoint {
            from_ms: first.at.as_millis() as u64,
            to_ms: last.at.as_millis() as u64,
            phase: phase.map(|mark| mark.label.clone()).unwrap_or_default(),
            grown: grown(first, last),
        });
    }
    let samples_a_point = if points.is_empty() { 0 } else { a_point };
    EventTimeline { points, samples_a_point, left_out: left_out(log, &samples) }
}

fn left_out(log: &MonitorLog, samples: &[&Sample]) -> Vec<String> {
    let none = match (&log.unsampled, samples.len()) {
        (Some(why), _) => Some(why.clone()),
        (None, 0 | 1) => Some(match &log.last_error {
            Some(error) => format!("fewer than two samples were taken: {error}"),
            None => "fewer than two samples were taken".to_string(),
        }),
        _ => None,
    };
    if let Some(why) = none {
        return vec![format!("all of it: {why}")];
    }
    let mut reasons = Vec::new();
    let mut lacks = |lacking: bool, what: &str| {
        if lacking {
            reasons.push(what.to_string());
        }
    };
    lacks(
        samples.iter().all(|s| s.events.is_none()),
        "sched_ext's event counters: this kernel doesn't count them, or no scheduler was loaded",
    );
    lacks(
        samples.iter().all(|s| s.cpus.iter().all(|cpu| cpu.schedstat.is_none())),
        "schedules and wake-ups: this kernel has no CONFIG_SCHEDSTATS",
    );
    lacks(
        samples.iter().all(|s| s.irq_pressure_us.is_none()),
        "pressure by interrupts: this kernel doesn't account for it (CONFIG_PSI, CONFIG_IRQ_TIME_ACCOUNTING)",
    );
    lacks(
        samples.iter().all(|s| s.bpf_run_time_ns.is_none()),
        "time in BPF programs: kernel.bpf_stats_enabled is off",
    );
    lacks(log.full || log.broken_off, "the end: sampling ended before the test did");
    reasons
}

/// What is counted up by a sample's CPUs, and by all of the kernel.
fn grown(first: &Sample, last: &Sample) -> BTreeMap<String, i64> {
    let mut sums: BTreeMap<String, i64> = BTreeMap::new();
    let mut add = |name: &str, before: u64, now: u64| {
        let sum = sums.entry(name.to_string()).or_default();
        *sum = sum.saturating_add(i64::try_from(now.saturating_sub(before)).unwrap_or(i64::MAX));
    };
    for now in &last.cpus {
        let Some(before) = first.cpu(now.cpu) else { continue };
        add("nr_switches", before.nr_switches, now.nr_switches);
        if let (Some(before), Some(now)) = (before.schedstat, now.schedstat) {
            for (name, of) in COUNTED {
                add(name, of(&before), of(&now));
            }
        }
    }
    for (name, before, now) in [
        ("irq_pressure_us", first.irq_pressure_us, last.irq_pressure_us),
        ("bpf_run_time_ns", first.bpf_run_time_ns, last.bpf_run_time_ns),
    ] {
        if let (Some(before), Some(now)) = (before, now) {
            add(name, before, now);
        }
    }
    for (name, now) in last.events.iter().flatten() {
        // A scheduler that came meanwhile began at 0.
        let before = first.events.as_ref().and_then(|events| events.get(name)).copied().unwrap_or_default();
        sums.insert(name.clone(), now.saturating_sub(before));
    }
    sums.retain(|_, grown| *grown != 0);
    sums
}

type Of = fn(&Schedstat) -> u64;

const COUNTED: [(&str, Of); 7] = [
    ("run_delay", |s| s.run_delay),
    ("pcount", |s| s.pcount),
    ("yld_count", |s| s.yld_count),
    ("sched_count", |s| s.sched_count),
    ("sched_goidle", |s| s.sched_goidle),
    ("ttwu_count", |s| s.ttwu_count),
    ("ttwu_local", |s| s.ttwu_local),
];

/// The timeline in lines, neighbours joined where there are many.
pub fn render_event_timeline(timeline: &EventTimeline) -> String {
    let mut text = String::new();
    let together = timeline.points.len().div_ceil(LINES).max(1);
    for points in timeline.points.chunks(together) {
        let (Some(first), Some(last)) = (points.first(), points.last()) else { continue };
        let mut sums: BTreeMap<&str, i64> = BTreeMap::new();
        for (name, grown) in points.iter().flat_map(|point| &point.grown) {
            *sums.entry(name).or_default() += grown;
        }
        let phase = if first.phase.is_empty() { String::new() } else { format!(" ({})", first.phase) };
        let named = names(&sums);
        let _ = writeln!(text, "+{} to +{} ms{phase}: {named}", first.from_ms, last.to_ms);
    }
    for reason in &timeline.left_out {
        let _ = writeln!(text, "left out: {reason}");
    }
    text
}

/// sched_ext's events first, which are rare; then what is counted everywhere.
fn names(sums: &BTreeMap<&str, i64>) -> String {
    let always = ["nr_switches", "ttwu_count", "sched_goidle", "run_delay"];
    let mut events: Vec<_> = sums.iter().filter(|(name, _)| name.starts_with("SCX_")).collect();
    events.sort_by_key(|(_, grown)| std::cmp::Reverse(**grown));
    let left = events.len().saturating_sub(NAMED);
    let of_kernel = always.iter().filter_map(|name| sums.get_key_value(name));
    let parts: Vec<String> =
        events.into_iter().take(NAMED).chain(of_kernel).map(|(name, n)| format!("{name} {n}")).collect();
    match (parts.is_empty(), left) {
        (true, _) => "nothing counted".to_string(),
        (false, 0) => parts.join(", "),
        (false, left) => format!("{}, and {left} more events", parts.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mark;
    use crate::testing::sample;
    use std::time::Duration;

    fn log(samples: usize) -> MonitorLog {
        let one = |i: usize| {
            let mut sample = sample(i as u64 * 100, &[1, 1]);
            for cpu in &mut sample.cpus {
                cpu.nr_switches = 10 * i as u64;
                cpu.schedstat =
                    Some(Schedstat { ttwu_count: i as u64, run_delay: 7, ..Schedstat::default() });
            }
            // The scheduler came with the third sample.
            sample.events =
                (i >= 2).then(|| [("SCX_EV_A".to_string(), i as i64), ("SCX_EV_B".to_string(), 0)].into());
            sample
        };
        let mark = Mark { at: Duration::from_millis(150), label: "step 1".into(), ..Mark::default() };
        MonitorLog { samples: (0..samples).map(one).collect(), marks: vec![mark], ..MonitorLog::default() }
    }

    #[test]
    fn each_stretch_has_its_growth_and_its_phase() {
        let timeline = event_timeline(&log(4));
        let told: Vec<_> = timeline
            .points
            .iter()
            .map(|p| {
                (
                    p.from_ms,
                    p.to_ms,
                    p.phase.as_str(),
                    p.grown["nr_switches"],
                    p.grown.get("SCX_EV_A").copied(),
                )
            })
            .collect();
        assert_eq!(
            told,
            [(0, 100, "", 20, None), (100, 200, "", 20, Some(2)), (200, 300, "step 1", 20, Some(1))]
        );
        assert_eq!(timeline.points[0].grown["ttwu_count"], 2);
        assert!(!timeline.points[2].grown.contains_key("SCX_EV_B"), "it did not grow");
        assert_eq!((timeline.samples_a_point, timeline.left_out.len()), (1, 2), "{:?}", timeline.left_out);
        assert_eq!(
            render_event_timeline(&timeline).lines().next(),
            Some("+0 to +100 ms: nr_switches 20, ttwu_count 2")
        );
    }

    #[test]
    fn a_long_run_is_coarser_and_loses_nothing() {
        for samples in [65, 66, 1000] {
            let timeline = event_timeline(&log(samples));
            assert!(timeline.points.len() <= MAX_POINTS, "{}", timeline.points.len());
            let all: i64 = timeline.points.iter().map(|p| p.grown["nr_switches"]).sum();
            assert_eq!(all, 20 * (samples as i64 - 1), "{samples} samples");
            assert_eq!(timeline.points.last().map(|p| p.to_ms), Some((samples as u64 - 1) * 100));
            assert_eq!(timeline.samples_a_point, (samples - 1).div_ceil(MAX_POINTS));
            let text = render_event_timeline(&timeline);
            let lines = text.lines().filter(|line| line.starts_with('+')).count();
            assert!(lines <= LINES, "{text}");
        }
    }

    #[test]
    fn what_is_missing_has_a_reason() {
        let reasons = |log: &MonitorLog| event_timeline(log).left_out;
        let unsampled = MonitorLog::unsampled("nobody looked");
        assert_eq!(reasons(&unsampled), ["all of it: nobody looked"]);
        let one = MonitorLog { last_error: Some("torn: a list".into()), ..log(1) };
        assert_eq!(reasons(&one), ["all of it: fewer than two samples were taken: torn: a list"]);
        let mut bare = log(3);
        for sample in &mut bare.samples {
            sample.events = None;
            sample.cpus.iter_mut().for_each(|cpu| cpu.schedstat = None);
        }
        bare.full = true;
        assert_eq!(reasons(&bare).len(), 5, "{:?}", reasons(&bare));
    }
}
