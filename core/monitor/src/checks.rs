//! Limits on what runqueues look like, each of which must be violated for several samples
//! in a row.

use crate::{CgroupState, CpuSample, Sample};
use ktstr_assert::Assert;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// A vCPU that the host ran for less than this between two samples may not have come to
/// update its clock: four ticks at 250 Hz, where emulation slows a tick down.
const RAN_ENOUGH: Duration = Duration::from_millis(16);

/// The event counter of `select_cpu` fallbacks (`SCX_EV_SELECT_CPU_FALLBACK`).
pub(crate) const FALLBACK: &str = "SCX_EV_SELECT_CPU_FALLBACK";
/// The event counter of keep-last dispatches (`SCX_EV_DISPATCH_KEEP_LAST`).
pub(crate) const KEEP_LAST: &str = "SCX_EV_DISPATCH_KEEP_LAST";

/// The event counter of dispatches in bypass mode (`SCX_EV_BYPASS_DISPATCH`).
pub(crate) const BYPASS: &str = "SCX_EV_BYPASS_DISPATCH";

/// A check of the monitor. Its name is the field of [`Assert`] that sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The ratio of the longest to the shortest runqueue.
    MaxImbalanceRatio,
    /// Length of a local dispatch queue.
    MaxLocalDsqDepth,
    /// Tasks that can't go on: a runqueue whose clock stands still though it has something to
    /// run, one that runs the same task on and on while others wait, a cgroup that was left
    /// frozen.
    FailOnStall,
    /// `select_cpu` fallbacks a second.
    MaxFallbackRate,
    /// Keep-last dispatches a second.
    MaxKeepLastRate,
    /// Dispatches a second in bypass mode.
    MaxBypassRate,
    /// Length of a dispatch queue that the scheduler made.
    MaxDsqDepth,
}

impl Check {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::MaxImbalanceRatio,
        Self::MaxLocalDsqDepth,
        Self::FailOnStall,
        Self::MaxFallbackRate,
        Self::MaxKeepLastRate,
        Self::MaxBypassRate,
        Self::MaxDsqDepth,
    ];

    /// The attribute that sets it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MaxImbalanceRatio => "max_imbalance_ratio",
            Self::MaxLocalDsqDepth => "max_local_dsq_depth",
            Self::FailOnStall => "fail_on_stall",
            Self::MaxFallbackRate => "max_fallback_rate",
            Self::MaxKeepLastRate => "max_keep_last_rate",
            Self::MaxBypassRate => "max_bypass_rate",
            Self::MaxDsqDepth => "max_dsq_depth",
        }
    }

    /// Whether `asked` sets it.
    pub const fn is_set(self, asked: &Assert) -> bool {
        match self {
            Self::MaxImbalanceRatio => asked.max_imbalance_ratio.is_some(),
            Self::MaxLocalDsqDepth => asked.max_local_dsq_depth.is_some(),
            Self::FailOnStall => matches!(asked.fail_on_stall, Some(true)),
            Self::MaxFallbackRate => asked.max_fallback_rate.is_some(),
            Self::MaxKeepLastRate => asked.max_keep_last_rate.is_some(),
            Self::MaxBypassRate => asked.max_bypass_rate.is_some(),
            Self::MaxDsqDepth => asked.max_dsq_depth.is_some(),
        }
    }

    /// Whether `asked` sets any of them.
    pub fn any_set(asked: &Assert) -> bool {
        Self::ALL.iter().any(|check| check.is_set(asked))
    }

    /// Why these samples hold nothing that this check could look at; `None` when they do.
    pub fn lacks(self, samples: &[Sample]) -> Option<&'static str> {
        let events = |name| samples.iter().filter(|s| event(s, name).is_some()).count() >= 2;
        let has = match self {
            Self::MaxImbalanceRatio | Self::FailOnStall => true,
            Self::MaxLocalDsqDepth => samples.iter().any(|s| s.cpus.iter().any(|c| c.local_dsq_nr.is_some())),
            Self::MaxFallbackRate => events(FALLBACK),
            Self::MaxKeepLastRate => events(KEEP_LAST),
            Self::MaxBypassRate => events(BYPASS),
            Self::MaxDsqDepth => samples.iter().any(|s| s.queues.is_some()),
        };
        match self {
            _ if has => None,
            Self::MaxLocalDsqDepth => {
                Some("this kernel has no sched_ext, so there are no local dispatch queues")
            }
            Self::MaxDsqDepth => Some("no dispatch queue was read: that needs a loaded sched_ext scheduler"),
            _ => Some(
                "no sched_ext event counters were seen: they need a loaded sched_ext scheduler and a kernel \
                 that counts (6.15 or later)",
            ),
        }
    }
}

/// The limits in force.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Samples in a row that must violate a limit.
    pub sustained_samples: usize,
    /// Largest ratio of the longest to the shortest runqueue.
    pub max_imbalance_ratio: Option<f64>,
    /// Longest local dispatch queue.
    pub max_local_dsq_depth: Option<u32>,
    /// Whether a stalled runqueue is a violation.
    pub fail_on_stall: bool,
    /// Most `select_cpu` fallbacks a second.
    pub max_fallback_rate: Option<f64>,
    /// Most keep-last dispatches a second.
    pub max_keep_last_rate: Option<f64>,
    /// Most dispatches a second in bypass mode.
    pub max_bypass_rate: Option<f64>,
    /// Most tasks on a dispatch queue that the scheduler made.
    pub max_dsq_depth: Option<u32>,
}

impl Limits {
    /// What `asked` sets, and the monitor's defaults for the rest: 4.0, 50, stalls, 200/s,
    /// 100/s, each for 5 samples in a row.
    pub fn of(asked: &Assert) -> Self {
        let all = asked.with_monitor_defaults();
        Self {
            sustained_samples: all.sustained_samples.unwrap_or(1).max(1),
            max_imbalance_ratio: all.max_imbalance_ratio,
            max_local_dsq_depth: all.max_local_dsq_depth,
            fail_on_stall: all.fail_on_stall == Some(true),
            max_fallback_rate: all.max_fallback_rate,
            max_keep_last_rate: all.max_keep_last_rate,
            // These have no default: how long a queue may be is for its scheduler to say.
            max_bypass_rate: all.max_bypass_rate,
            max_dsq_depth: all.max_dsq_depth,
        }
    }
}

/// A limit that was violated long enough.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Violation {
    /// The check.
    pub check: Check,
    /// The CPU concerned; of an imbalance the one with the longest queue.
    pub cpu: Option<u32>,
    /// Its first sample, ms since the test began.
    pub from_ms: u64,
    /// Its last sample, ms since the test began.
    pub to_ms: u64,
    /// How many samples in a row.
    pub samples: usize,
    /// The worst number seen, in the check's unit.
    pub worst: f64,
    /// What was seen and what was expected, in one line.
    pub text: String,
}

/// All violations in `samples`, by check, CPU and time.
pub fn violations(samples: &[Sample], limits: &Limits) -> Vec<Violation> {
    let mut found = Vec::new();
    if let Some(limit) = limits.max_imbalance_ratio {
        found.extend(imbalance(samples, limit, limits.sustained_samples));
    }
    let cpus: BTreeSet<u32> = samples.iter().flat_map(|s| s.cpus.iter().map(|c| c.cpu)).collect();
    for cpu in &cpus {
        if let Some(limit) = limits.max_local_dsq_depth {
            found.extend(depth(samples, *cpu, limit, limits.sustained_samples));
        }
    }
    for cpu in &cpus {
        if limits.fail_on_stall {
            found.extend(stall(samples, *cpu, limits.sustained_samples));
            found.extend(hogged(samples, *cpu, limits.sustained_samples));
        }
    }
    for (check, name, limit) in [
        (Check::MaxFallbackRate, FALLBACK, limits.max_fallback_rate),
        (Check::MaxKeepLastRate, KEEP_LAST, limits.max_keep_last_rate),
        (Check::MaxBypassRate, BYPASS, limits.max_bypass_rate),
    ] {
        if let Some(limit) = limit {
            found.extend(rate(samples, check, name, limit, limits.sustained_samples));
        }
    }
    if let Some(limit) = limits.max_dsq_depth {
        found.extend(queues(samples, limit, limits.sustained_samples));
    }
    found
}

/// Queues of the scheduler's own that stay too long, each by itself.
fn queues(samples: &[Sample], limit: u32, window: usize) -> Vec<Violation> {
    let ids: BTreeSet<u64> = samples.iter().flat_map(|s| s.queues.iter().flatten()).map(|q| q.id).collect();
    let of_queue = |id: u64| {
        let over = |i: usize| {
            let queue = samples[i].queues.iter().flatten().find(|q| q.id == id)?;
            (queue.nr > limit).then(|| f64::from(queue.nr))
        };
        let told = |run: Run| {
            let text = format!("dispatch queue {id:#x} held {:.0} tasks (limit {limit})", run.worst);
            violation(samples, Check::MaxDsqDepth, None, &run, &text)
        };
        runs(samples.len(), window, over).into_iter().map(told).collect::<Vec<_>>()
    };
    ids.into_iter().flat_map(of_queue).collect()
}

/// How often a clock stood still between two samples of a CPU that should have run.
pub(crate) fn stalled_intervals(samples: &[Sample]) -> usize {
    samples.windows(2).map(|pair| pair[1].cpus.iter().filter(|c| stands_still(&pair[0], c)).count()).sum()
}

/// The rate of an event between two samples; `None` when it is not counted or was reset.
pub(crate) fn event_rate(before: &Sample, after: &Sample, name: &str) -> Option<f64> {
    let delta = event(after, name)?.checked_sub(event(before, name)?).filter(|d| *d >= 0)?;
    let time = after.at.checked_sub(before.at).filter(|t| !t.is_zero())?;
    Some(delta as f64 / time.as_secs_f64())
}

fn event(sample: &Sample, name: &str) -> Option<i64> {
    sample.events.as_ref()?.get(name).copied()
}

fn imbalance(samples: &[Sample], limit: f64, window: usize) -> Vec<Violation> {
    let over = |i: usize| samples[i].imbalance_ratio().filter(|r| *r > limit);
    runs(samples.len(), window, over)
        .into_iter()
        .filter_map(|run| {
            let (most, fewest) = samples[run.worst_at].extremes()?;
            let what = format!(
                "cpu{} had {}, cpu{} {}",
                most.cpu,
                tasks(most.nr_running),
                fewest.cpu,
                fewest.nr_running
            );
            let text = format!("runqueues differ by a ratio of {:.1} (limit {limit:.1})", run.worst);
            Some(violation(
                samples,
                Check::MaxImbalanceRatio,
                Some(most.cpu),
                &run,
                &format!("{text}: {what}"),
            ))
        })
        .collect()
}

fn depth(samples: &[Sample], cpu: u32, limit: u32, window: usize) -> Vec<Violation> {
    let over = |i: usize| {
        let nr = samples[i].cpu(cpu)?.local_dsq_nr?;
        (nr > limit).then_some(f64::from(nr))
    };
    let runs = runs(samples.len(), window, over);
    let of_run = |run: Run| {
        let text = format!("cpu{cpu} had {} tasks in its local dispatch queue (limit {limit})", run.worst);
        violation(samples, Check::MaxLocalDsqDepth, Some(cpu), &run, &text)
    };
    runs.into_iter().map(of_run).collect()
}

fn stall(samples: &[Sample], cpu: u32, window: usize) -> Vec<Violation> {
    let stood = |i: usize| {
        let now = samples[i].cpu(cpu)?;
        let before = &samples[i.checked_sub(1)?];
        stands_still(before, now).then_some(f64::from(now.nr_running))
    };
    let of_run = |run: Run| {
        let last = samples[run.last].cpu(cpu);
        let clock = last.map(|c| c.clock).unwrap_or_default();
        let running = last.and_then(|c| c.curr_pid).map(|p| format!(", pid {p} running")).unwrap_or_default();
        let text = format!(
            "cpu{cpu} stalled: its runqueue clock stood still at {clock} ns with {}{running}",
            tasks(run.worst as u32)
        );
        violation(samples, Check::FailOnStall, Some(cpu), &run, &text)
    };
    runs(samples.len(), window, stood).into_iter().map(of_run).collect()
}

/// A task that keeps a CPU to itself while others wait for it.
fn hogged(samples: &[Sample], cpu: u32, window: usize) -> Vec<Violation> {
    let hogs = |i: usize| {
        let now = samples[i].cpu(cpu)?;
        let before = samples[i.checked_sub(1)?].cpu(cpu)?;
        let same = before.nr_switches == now.nr_switches && before.curr_pid == now.curr_pid;
        let waiting = before.nr_running > 1 && now.nr_running > 1;
        // A clock that stands still is a stall of its own.
        let runs = before.clock < now.clock && now.curr_pid.is_some_and(|pid| pid != 0);
        (same && waiting && runs && had_time(before, now)).then(|| f64::from(now.nr_running - 1))
    };
    let of_run = |run: Run| {
        let last = samples[run.last].cpu(cpu).copied().unwrap_or_default();
        let real_time = if last.curr_prio.is_some_and(|p| p < 100) { " of a real-time class" } else { "" };
        let wait = match run.worst as u32 {
            1 => "another task waits".to_string(),
            others => format!("{others} others wait"),
        };
        let text = format!(
            "cpu{cpu} stalled: {} (pid {}){real_time} runs without a break while {wait}",
            last.current(),
            last.curr_pid.unwrap_or_default()
        );
        violation(samples, Check::FailOnStall, Some(cpu), &run, &text)
    };
    runs(samples.len(), window, hogs).into_iter().map(of_run).collect()
}

/// Whether the host gave a vCPU time enough for it to have done something.
fn had_time(before: &CpuSample, now: &CpuSample) -> bool {
    match (before.vcpu_time, now.vcpu_time) {
        (Some(then), Some(now)) => now.saturating_sub(then) >= RAN_ENOUGH,
        _ => true,
    }
}

/// Tasks that a cgroup keeps frozen past the end of the workload.
pub(crate) fn frozen(cgroup: &CgroupState, at_ms: u64) -> Violation {
    let shown: Vec<String> =
        cgroup.tasks.iter().take(4).map(|(pid, comm)| format!("{comm} (pid {pid})")).collect();
    let count = cgroup.tasks.len() + cgroup.more;
    let more = if count > shown.len() { format!(" and {} more", count - shown.len()) } else { String::new() };
    let text = format!(
        "cgroup {} was left frozen: {}{more} could not run when the workload ended",
        cgroup.path,
        shown.join(", ")
    );
    let (from_ms, to_ms, worst) = (at_ms, at_ms, count as f64);
    Violation { check: Check::FailOnStall, cpu: None, from_ms, to_ms, samples: 1, worst, text }
}

/// Whether a CPU's clock did not move since `before` though it had something to run, its
/// tick was on, and the host gave it time.
fn stands_still(before: &Sample, now: &CpuSample) -> bool {
    let Some(before) = before.cpu(now.cpu) else { return false };
    let busy = before.nr_running > 0 && now.nr_running > 0;
    let ticking = before.tick_stopped != Some(true) || now.tick_stopped != Some(true);
    before.clock == now.clock && busy && ticking && had_time(before, now)
}

fn rate(samples: &[Sample], check: Check, name: &str, limit: f64, window: usize) -> Vec<Violation> {
    let over = |i: usize| event_rate(&samples[i.checked_sub(1)?], &samples[i], name).filter(|r| *r > limit);
    let of_run = |run: Run| {
        let text =
            format!("{name} was counted {:.0} times a second over all CPUs (limit {limit:.0})", run.worst);
        violation(samples, check, None, &run, &text)
    };
    runs(samples.len(), window, over).into_iter().map(of_run).collect()
}

fn tasks(count: u32) -> String {
    if count == 1 { "1 runnable task".to_string() } else { format!("{count} runnable tasks") }
}

/// Samples in a row for which something held, at least as many as the window.
struct Run {
    first: usize,
    last: usize,
    worst: f64,
    worst_at: usize,
}

fn runs(samples: usize, window: usize, over: impl Fn(usize) -> Option<f64>) -> Vec<Run> {
    let mut found: Vec<Run> = Vec::new();
    let mut current: Option<Run> = None;
    for i in 0..samples {
        match (over(i), &mut current) {
            (Some(value), None) => current = Some(Run { first: i, last: i, worst: value, worst_at: i }),
            (Some(value), Some(run)) => {
                run.last = i;
                if value > run.worst {
                    (run.worst, run.worst_at) = (value, i);
                }
            }
            (None, _) => found.extend(current.take()),
        }
    }
    found.extend(current);
    found.retain(|run| run.last - run.first + 1 >= window);
    found
}

fn violation(samples: &[Sample], check: Check, cpu: Option<u32>, run: &Run, text: &str) -> Violation {
    let ms = |i: usize| samples[i].at.as_millis() as u64;
    let (from_ms, to_ms, count) = (ms(run.first), ms(run.last), run.last - run.first + 1);
    let text = format!("{text} for {count} samples in a row, +{from_ms} to +{to_ms} ms");
    Violation { check, cpu, from_ms, to_ms, samples: count, worst: run.worst, text }
}

#[cfg(test)]
mod tests;
