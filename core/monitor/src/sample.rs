//! One look at the runqueues, and whether it can be believed.

use crate::VcpuCounters;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// A local dispatch queue that is longer than this was read from memory that is not (yet)
/// a runqueue.
pub const MAX_PLAUSIBLE_DSQ_DEPTH: u32 = 10_000;

/// A guest whose clock runs faster than this many host clocks has measured its TSC wrong.
const MAX_CLOCK_RATIO: f64 = 1.5;

/// What one CPU's runqueue said (`struct rq`, kernel/sched/sched.h).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuSample {
    /// The CPU.
    pub cpu: u32,
    /// `rq.nr_running`: runnable tasks of all classes, the running one included.
    pub nr_running: u32,
    /// `rq.clock`, ns.
    pub clock: u64,
    /// `rq.nr_switches`.
    pub nr_switches: u64,
    /// `rq.scx.nr_running`, where the kernel has sched_ext.
    pub scx_nr_running: Option<u32>,
    /// `rq.scx.local_dsq.nr`, likewise.
    pub local_dsq_nr: Option<u32>,
    /// `rq.scx.flags` (`SCX_RQ_*`), likewise.
    pub scx_flags: Option<u32>,
    /// `rq.curr->pid`; `None` where it could not be read.
    pub curr_pid: Option<i32>,
    /// `rq.curr->comm`; empty where it could not be read.
    #[serde(with = "comm")]
    pub curr_comm: [u8; 16],
    /// `rq.curr->prio`: below 100 is real-time or deadline.
    pub curr_prio: Option<i32>,
    /// `rq.nohz_tick_stopped`: no tick advances the clock. `None` on kernels without it.
    pub tick_stopped: Option<bool>,
    /// CPU time that the host has given to this vCPU so far; `None` where it is unknown.
    pub vcpu_time: Option<Duration>,
    /// Counters of the scheduler; `None` on kernels without `CONFIG_SCHEDSTATS`.
    #[serde(default)]
    pub schedstat: Option<Schedstat>,
    /// `rq.avg_irq.util_avg`, the share of the time that went to interrupts, 0 to 1024; `None` on kernels that don't
    /// account for it.
    #[serde(default)]
    pub irq_util: Option<u32>,
}

/// Counters of one runqueue, or how they grew on all (`struct rq`; Documentation/scheduler/sched-stats.rst).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedstat {
    /// Time that tasks waited for the CPU, ns (`rq_sched_info.run_delay`).
    pub run_delay: u64,
    /// Time slices run (`rq_sched_info.pcount`).
    pub pcount: u64,
    /// `sched_yield` calls.
    pub yld_count: u64,
    /// `schedule` calls.
    pub sched_count: u64,
    /// Of those, into idle.
    pub sched_goidle: u64,
    /// Wake-ups.
    pub ttwu_count: u64,
    /// Of those, on the local CPU.
    pub ttwu_local: u64,
}

impl Schedstat {
    /// The counters combined one by one.
    pub(crate) fn zip(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            run_delay: f(self.run_delay, other.run_delay),
            pcount: f(self.pcount, other.pcount),
            yld_count: f(self.yld_count, other.yld_count),
            sched_count: f(self.sched_count, other.sched_count),
            sched_goidle: f(self.sched_goidle, other.sched_goidle),
            ttwu_count: f(self.ttwu_count, other.ttwu_count),
            ttwu_local: f(self.ttwu_local, other.ttwu_local),
        }
    }
}

impl CpuSample {
    /// The running task's name.
    pub fn current(&self) -> String {
        comm::text(&self.curr_comm)
    }
}

/// A task's name as the kernel keeps it, in records as text.
mod comm {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn text(comm: &[u8; 16]) -> String {
        let end = comm.iter().position(|b| *b == 0).unwrap_or(comm.len());
        String::from_utf8_lossy(&comm[..end]).into_owned()
    }

    pub(super) fn serialize<S: Serializer>(comm: &[u8; 16], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&text(comm))
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<[u8; 16], D::Error> {
        let text = String::deserialize(from)?;
        let mut comm = [0; 16];
        comm.iter_mut().zip(text.bytes()).for_each(|(to, byte)| *to = byte);
        Ok(comm)
    }
}

/// A task of the guest's that runs for nothing else than to have a sample taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observer {
    /// Its thread id.
    pub pid: i32,
    /// How often it has left a CPU so far.
    pub switches: u64,
}

/// A task that a CPU runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Current {
    /// Its thread id; 0 is the idle task.
    pub pid: i32,
    /// Its effective priority, where it could be read.
    pub prio: Option<i32>,
    /// Its name, as the kernel keeps it.
    pub comm: [u8; 16],
}

/// One look at all online CPUs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When, since the test began: host time, or the guest's where it chooses the instants.
    pub at: Duration,
    /// The online CPUs, ascending.
    pub cpus: Vec<CpuSample>,
    /// sched_ext's event counters (`SCX_EV_*` of kernel/sched/ext.c) summed over all CPUs,
    /// by name; `None` on kernels that don't count (before 6.16) or without a scheduler.
    pub events: Option<BTreeMap<String, i64>>,
    /// The dispatch queues that the scheduler made, by id; `None` without a scheduler, and where they changed
    /// while they were read.
    #[serde(default)]
    pub queues: Option<Vec<QueueSample>>,
    /// How long interrupts have held up all tasks so far, microseconds (`full` of /proc/pressure/irq); `None` on kernels
    /// that don't account for it.
    #[serde(default)]
    pub irq_pressure_us: Option<u64>,
    /// Time in all BPF programs so far, ns; `None` while `kernel.bpf_stats_enabled` is off.
    #[serde(default)]
    pub bpf_run_time_ns: Option<u64>,
    /// What is told of a run by its growth alone: of the first sample and of a late one, no more than a second before the
    /// last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<Box<Counters>>,
}

/// Counters of scheduling domains, of BPF programs and of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Of scheduling domains by their name, summed over the CPUs (as `DomainState` has them); none without
    /// `CONFIG_SCHEDSTATS`.
    pub domains: BTreeMap<String, BTreeMap<String, u64>>,
    /// Of BPF programs, by name and ID.
    pub programs: BTreeMap<String, ProgramRuns>,
    /// What the host counted for each vCPU; empty where it counts nothing, and in deterministic mode.
    #[serde(default)]
    pub vcpus: Vec<VcpuCounters>,
    /// What samples of this kernel on this host lack, and why.
    pub left_out: Vec<String>,
}

/// How often a BPF program ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramRuns {
    /// Runs; counted only with `kernel.bpf_stats_enabled`.
    pub runs: u64,
    /// Time in it, ns; as above.
    pub run_time_ns: u64,
    /// Runs that recursion prevented; counted always.
    pub misses: u64,
}

impl Counters {
    /// How all grew since `before`. What wasn't there then began at 0; what is gone by now isn't told.
    pub fn since(&self, before: &Self) -> Self {
        let domain = |(name, now): (&String, &BTreeMap<String, u64>)| {
            let then = before.domains.get(name);
            let grown = |(counter, now): (&String, &u64)| {
                let then = then.and_then(|then| then.get(counter)).copied().unwrap_or_default();
                (counter.clone(), now.saturating_sub(then))
            };
            (name.clone(), now.iter().map(grown).collect())
        };
        let program = |(name, now): (&String, &ProgramRuns)| {
            let then = before.programs.get(name).copied().unwrap_or_default();
            let grown = ProgramRuns {
                runs: now.runs.saturating_sub(then.runs),
                run_time_ns: now.run_time_ns.saturating_sub(then.run_time_ns),
                misses: now.misses.saturating_sub(then.misses),
            };
            (name.clone(), grown)
        };
        Self {
            domains: self.domains.iter().map(domain).collect(),
            programs: self.programs.iter().map(program).collect(),
            vcpus: self.vcpus.iter().zip(&before.vcpus).map(|(now, then)| now.since(*then)).collect(),
            left_out: self.left_out.clone(),
        }
    }
}

/// How many tasks a dispatch queue held (`struct scx_dispatch_q`, include/linux/sched/ext.h).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueSample {
    /// `id`.
    pub id: u64,
    /// `nr`.
    pub nr: u32,
}

impl Sample {
    /// The CPUs with the most and with the fewest runnable tasks.
    pub fn extremes(&self) -> Option<(&CpuSample, &CpuSample)> {
        // The first of equals, so that a report does not depend on the order of a search.
        let most = self.cpus.iter().rev().max_by_key(|c| c.nr_running)?;
        let fewest = self.cpus.iter().min_by_key(|c| c.nr_running)?;
        Some((most, fewest))
    }

    /// The longest over the shortest runqueue, the shortest taken as at least 1.
    pub fn imbalance_ratio(&self) -> Option<f64> {
        let (most, fewest) = self.extremes()?;
        Some(f64::from(most.nr_running) / f64::from(fewest.nr_running.max(1)))
    }

    /// The same as if `observer`, which is at work on one of the CPUs, were not there: one task
    /// less on that runqueue, without the switches to it and from it, and in its place the task
    /// that `next` says the CPU goes on with; that one is unknown where `next` can't tell.
    ///
    /// Where the CPU goes on with another task than it was taken from, a switch is counted too
    /// few: what did not change hands between two samples is told by both numbers together, the
    /// switches and the task.
    #[must_use]
    pub fn without(mut self, observer: &Observer, next: impl FnOnce(u32) -> Option<Current>) -> Self {
        let Some(cpu) = self.cpus.iter_mut().find(|c| c.curr_pid == Some(observer.pid)) else { return self };
        cpu.nr_running = cpu.nr_running.saturating_sub(1);
        // It came as often as it left, and once more.
        let own = observer.switches.saturating_mul(2).saturating_add(1);
        cpu.nr_switches = cpu.nr_switches.saturating_sub(own);
        let next = next(cpu.cpu);
        cpu.curr_pid = next.map(|n| n.pid);
        cpu.curr_prio = next.and_then(|n| n.prio);
        cpu.curr_comm = next.map(|n| n.comm).unwrap_or_default();
        self
    }

    /// The reading of one CPU.
    pub fn cpu(&self, cpu: u32) -> Option<&CpuSample> {
        self.cpus.iter().find(|c| c.cpu == cpu)
    }

    /// Whether its numbers can be a runqueue's.
    pub fn is_plausible(&self) -> bool {
        !self.cpus.is_empty()
            && self.cpus.iter().all(|c| c.local_dsq_nr.is_none_or(|nr| nr <= MAX_PLAUSIBLE_DSQ_DEPTH))
    }
}

/// How much faster than the host's clock the guest's ran, by the newest runqueue clock of
/// the first and the last sample; `None` when they are less than half a second apart.
///
/// Idle CPUs update their clocks late, so that only a number well above 1 says something.
pub fn clock_ratio(samples: &[Sample]) -> Option<f64> {
    let newest = |s: &Sample| s.cpus.iter().map(|c| c.clock).max();
    let (first, last) = (samples.first()?, samples.last()?);
    let host = last.at.checked_sub(first.at).filter(|t| t.as_millis() >= 500)?;
    let guest = Duration::from_nanos(newest(last)?.saturating_sub(newest(first)?));
    Some(guest.as_secs_f64() / host.as_secs_f64())
}

/// Why these samples, all together, can't be those of a kernel that runs; `None` when they
/// can.
pub fn implausible(samples: &[Sample]) -> Option<String> {
    if let Some((sample, cpu)) = samples.iter().find_map(|s| {
        let deep = |c: &&CpuSample| c.local_dsq_nr.is_some_and(|nr| nr > MAX_PLAUSIBLE_DSQ_DEPTH);
        s.cpus.iter().find(deep).map(|c| (s, c))
    }) {
        return Some(format!(
            "cpu{} had {} tasks in its local dispatch queue at +{} ms, more than the {MAX_PLAUSIBLE_DSQ_DEPTH} that \
             can be believed",
            cpu.cpu,
            cpu.local_dsq_nr.unwrap_or_default(),
            sample.at.as_millis()
        ));
    }
    let clocks: Vec<u64> = samples.iter().flat_map(|s| s.cpus.iter().map(|c| c.clock)).collect();
    let several = samples.iter().any(|s| s.cpus.len() > 1);
    let first = *clocks.first()?;
    let same = clocks.iter().all(|c| *c == first);
    if let Some(ratio) = clock_ratio(samples).filter(|r| *r > MAX_CLOCK_RATIO) {
        return Some(format!(
            "the guest's clock ran {ratio:.1} times as fast as the host's, as it does when its kernel measures the TSC \
             while booting on a loaded host; samples at the host's pace are too few for it"
        ));
    }
    // One CPU's clock that stands still is a stall; several that show one number are no clocks.
    (same && (several || first == 0)).then(|| {
        format!(
            "all {} readings of the runqueue clocks are {first}: the runqueues are not set up",
            clocks.len()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sample;

    #[test]
    fn the_ratio_takes_an_empty_queue_for_one() {
        assert_eq!(sample(0, &[10, 0, 1, 0]).imbalance_ratio(), Some(10.0));
        assert_eq!(sample(0, &[9, 3]).imbalance_ratio(), Some(3.0));
        assert_eq!(sample(0, &[0, 0]).imbalance_ratio(), Some(0.0));
        assert_eq!(sample(0, &[]).imbalance_ratio(), None);
    }

    #[test]
    fn the_first_of_equals_is_named() {
        let sample = sample(0, &[1, 7, 7, 1]);
        let (most, fewest) = sample.extremes().unwrap();
        assert_eq!((most.cpu, fewest.cpu), (1, 0));
    }

    #[test]
    fn clocks_that_all_agree_are_no_clocks() {
        let mut samples = vec![sample(0, &[1, 1]), sample(100, &[1, 1])];
        assert_eq!(implausible(&samples), None);
        for cpu in samples.iter_mut().flat_map(|s| &mut s.cpus) {
            cpu.clock = 7;
        }
        assert!(implausible(&samples).unwrap().contains("all 4 readings"));
    }

    #[test]
    fn one_cpu_whose_clock_stands_still_may_be_stalled() {
        let mut samples = vec![sample(0, &[1]), sample(100, &[1])];
        for cpu in samples.iter_mut().flat_map(|s| &mut s.cpus) {
            cpu.clock = 7;
        }
        assert_eq!(implausible(&samples), None);
        for cpu in samples.iter_mut().flat_map(|s| &mut s.cpus) {
            cpu.clock = 0;
        }
        assert!(implausible(&samples).is_some());
    }

    #[test]
    fn a_guest_whose_clock_races_is_not_judged_by_the_hosts() {
        let mut samples: Vec<Sample> = (0..8).map(|i| sample(i * 100, &[1, 1])).collect();
        assert_eq!(implausible(&samples), None);
        assert!(clock_ratio(&samples).is_some_and(|r| (0.99..1.01).contains(&r)));
        samples[7].cpus[1].clock += 4_000_000_000;
        assert!(implausible(&samples).unwrap().contains("ran 6.7 times as fast"));
    }

    #[test]
    fn a_depth_that_no_queue_reaches_is_named() {
        let mut samples = vec![sample(0, &[1, 1]), sample(100, &[1, 1])];
        samples[1].cpus[1].local_dsq_nr = Some(10_001);
        assert!(implausible(&samples).unwrap().contains("cpu1 had 10001"));
        assert!(samples[0].is_plausible() && !samples[1].is_plausible());
    }
}
