//! Work types: what a worker does in its loop, with the parameters of each.

use std::time::Duration;

/// What a [`WorkType::Custom`] function is given: counters to move and a flag to obey.
///
/// All methods are cheap, allocate nothing and may be called from a hot loop.
pub trait WorkerCtx {
    /// True once the worker should return. Check it at least every few milliseconds.
    fn stop_requested(&self) -> bool;
    /// Counts `units` of work done.
    fn add_work(&self, units: u64);
    /// Marks the end of one iteration; also takes note of CPU moves and gaps.
    fn iteration(&self);
    /// Records a wake-up latency in ns.
    fn record_wake_latency_ns(&self, ns: u64);
    /// Which worker of its group this is (0-based).
    fn index(&self) -> usize;
    /// Keeps the CPU busy for about `iterations` rounds of arithmetic.
    fn spin(&self, iterations: u64);
}

/// A user's work function. It runs in the worker process and returns when told to.
pub type CustomWork = fn(&dyn WorkerCtx);

/// One part of a [`WorkType::Sequence`], done for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkPhase {
    /// Keep the CPU busy.
    Spin(Duration),
    /// Sleep.
    Sleep(Duration),
    /// `sched_yield(2)` in a loop.
    Yield(Duration),
    /// Write and sync a small temporary file in a loop.
    Io(Duration),
}

/// What a worker does until it is told to stop.
///
/// Durations and counts are per loop; a "spin iteration" is one round of
/// arithmetic (a few ns on hardware).
#[derive(Debug, Clone, Default)]
pub enum WorkType {
    /// Arithmetic without a pause.
    #[default]
    SpinWait,
    /// `sched_yield(2)` after little work.
    YieldHeavy,
    /// Spin, then yield.
    Mixed,
    /// Busy for `burst`, then asleep for `sleep`.
    Bursty {
        /// Time on the CPU.
        burst: Duration,
        /// Time asleep.
        sleep: Duration,
    },
    /// As `Bursty`, with many short idle spells: the CPU goes idle and wakes.
    IdleChurn {
        /// Time on the CPU.
        burst: Duration,
        /// Time asleep.
        sleep: Duration,
    },
    /// Pairs that wake each other with a futex.
    FutexPingPong {
        /// Work between wake-ups.
        spin_iters: u64,
    },
    /// Pairs that hand a byte back and forth through pipes.
    PipeIo {
        /// Work between exchanges.
        burst_iters: u64,
    },
    /// One messenger wakes `fan_out` receivers with a futex.
    FutexFanOut {
        /// Receivers a messenger, at least 1.
        fan_out: usize,
        /// Work between wake-ups.
        spin_iters: u64,
    },
    /// `fork(2)`, exit, wait.
    ForkExit,
    /// Strided writes over a working set.
    CachePressure {
        /// Size of the working set in KiB, at least 1.
        size_kib: usize,
        /// Bytes between touches, at least 1.
        stride: usize,
    },
    /// As `CachePressure`, yielding after each pass.
    CacheYield {
        /// Size of the working set in KiB, at least 1.
        size_kib: usize,
        /// Bytes between touches, at least 1.
        stride: usize,
    },
    /// As `CachePressure`, with a pipe exchange in between; pairs.
    CachePipe {
        /// Size of the working set in KiB, at least 1.
        size_kib: usize,
        /// Work between exchanges.
        burst_iters: u64,
    },
    /// Changes its own nice value from -20 to 19 and back.
    NiceSweep,
    /// Moves its own affinity to another CPU after some work.
    AffinityChurn {
        /// Work between moves.
        spin_iters: u64,
    },
    /// Maps, touches and unmaps memory.
    PageFaultChurn {
        /// Size of the mapping in KiB.
        region_kib: usize,
        /// Pages touched a round.
        touches: usize,
        /// Work between rounds.
        spin_iters: u64,
    },
    /// Phases in order, over and over.
    Sequence {
        /// The first phase.
        first: WorkPhase,
        /// Those after it.
        rest: Vec<WorkPhase>,
    },
    /// A user's function.
    Custom {
        /// Name in reports.
        name: &'static str,
        /// What to run.
        run: CustomWork,
    },
}

/// A work type or worker count that makes no sense.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WorkTypeError {
    /// The name of no work type.
    #[error("looking up work type {0:?}: no such type; expected one of {list}", list = WorkType::ALL_NAMES.join(", "))]
    UnknownName(String),
    /// Workers don't divide into groups.
    #[error(
        "checking workers of {name}: expected a multiple of {group} (workers come in groups), got {workers}"
    )]
    GroupSize {
        /// The work type.
        name: &'static str,
        /// Workers a group.
        group: usize,
        /// As given.
        workers: usize,
    },
    /// Zero workers.
    #[error("checking workers of {0}: expected at least one, got 0")]
    NoWorkers(&'static str),
    /// A parameter out of range.
    #[error("checking work type {name}: {parameter} must be at least 1, got 0")]
    Zero {
        /// The work type.
        name: &'static str,
        /// The parameter.
        parameter: &'static str,
    },
    /// A fraction of the CPUs that is no fraction.
    #[error("checking workers: expected a finite fraction above 0 of the cgroup's CPUs, got {0}")]
    Fraction(f64),
}

impl WorkType {
    /// Names of all types but `Sequence` and `Custom`, which need arguments.
    pub const ALL_NAMES: &'static [&'static str] = &[
        "SpinWait",
        "YieldHeavy",
        "Mixed",
        "Bursty",
        "IdleChurn",
        "FutexPingPong",
        "PipeIo",
        "FutexFanOut",
        "ForkExit",
        "CachePressure",
        "CacheYield",
        "CachePipe",
        "NiceSweep",
        "AffinityChurn",
        "PageFaultChurn",
    ];

    /// Busy for `burst`, asleep for `sleep`, over and over.
    pub fn bursty(burst: Duration, sleep: Duration) -> Self {
        Self::Bursty { burst, sleep }
    }

    /// Short bursts and short sleeps.
    pub fn idle_churn(burst: Duration, sleep: Duration) -> Self {
        Self::IdleChurn { burst, sleep }
    }

    /// Futex pairs with `spin_iters` of work between wake-ups.
    pub fn futex_ping_pong(spin_iters: u64) -> Self {
        Self::FutexPingPong { spin_iters }
    }

    /// Pipe pairs with `burst_iters` of work between exchanges.
    pub fn pipe_io(burst_iters: u64) -> Self {
        Self::PipeIo { burst_iters }
    }

    /// One messenger to `fan_out` receivers.
    pub fn futex_fan_out(fan_out: usize, spin_iters: u64) -> Self {
        Self::FutexFanOut { fan_out, spin_iters }
    }

    /// Strided writes over `size_kib` KiB.
    pub fn cache_pressure(size_kib: usize, stride: usize) -> Self {
        Self::CachePressure { size_kib, stride }
    }

    /// A user's function; it can't capture.
    pub fn custom(name: &'static str, run: CustomWork) -> Self {
        Self::Custom { name, run }
    }

    /// Phases one after the other, over and over.
    pub fn sequence(first: WorkPhase, rest: impl IntoIterator<Item = WorkPhase>) -> Self {
        Self::Sequence { first, rest: rest.into_iter().collect() }
    }

    /// The type of that name, with default parameters.
    pub fn from_name(name: &str) -> Result<Self, WorkTypeError> {
        Ok(match name {
            "SpinWait" => Self::SpinWait,
            "YieldHeavy" => Self::YieldHeavy,
            "Mixed" => Self::Mixed,
            "Bursty" => Self::bursty(Duration::from_millis(50), Duration::from_millis(100)),
            "IdleChurn" => Self::idle_churn(Duration::from_millis(1), Duration::from_millis(5)),
            "FutexPingPong" => Self::futex_ping_pong(1024),
            "PipeIo" => Self::pipe_io(1024),
            "FutexFanOut" => Self::futex_fan_out(4, 1024),
            "ForkExit" => Self::ForkExit,
            "CachePressure" => Self::cache_pressure(32, 64),
            "CacheYield" => Self::CacheYield { size_kib: 32, stride: 64 },
            "CachePipe" => Self::CachePipe { size_kib: 32, burst_iters: 1024 },
            "NiceSweep" => Self::NiceSweep,
            "AffinityChurn" => Self::AffinityChurn { spin_iters: 1024 },
            "PageFaultChurn" => Self::PageFaultChurn { region_kib: 4096, touches: 256, spin_iters: 64 },
            _ => return Err(WorkTypeError::UnknownName(name.to_string())),
        })
    }

    /// The type's name, as [`from_name`](Self::from_name) takes it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::SpinWait => "SpinWait",
            Self::YieldHeavy => "YieldHeavy",
            Self::Mixed => "Mixed",
            Self::Bursty { .. } => "Bursty",
            Self::IdleChurn { .. } => "IdleChurn",
            Self::FutexPingPong { .. } => "FutexPingPong",
            Self::PipeIo { .. } => "PipeIo",
            Self::FutexFanOut { .. } => "FutexFanOut",
            Self::ForkExit => "ForkExit",
            Self::CachePressure { .. } => "CachePressure",
            Self::CacheYield { .. } => "CacheYield",
            Self::CachePipe { .. } => "CachePipe",
            Self::NiceSweep => "NiceSweep",
            Self::AffinityChurn { .. } => "AffinityChurn",
            Self::PageFaultChurn { .. } => "PageFaultChurn",
            Self::Sequence { .. } => "Sequence",
            Self::Custom { name, .. } => name,
        }
    }

    /// How many workers belong together; a worker count must be a multiple.
    pub fn worker_group_size(&self) -> usize {
        match self {
            Self::FutexPingPong { .. } | Self::PipeIo { .. } | Self::CachePipe { .. } => 2,
            Self::FutexFanOut { fan_out, .. } => fan_out + 1,
            _ => 1,
        }
    }

    /// Checks a worker count and the type's own parameters.
    pub fn check_workers(&self, workers: usize) -> Result<(), WorkTypeError> {
        let name = self.name();
        let zero = |parameter| Err(WorkTypeError::Zero { name, parameter });
        match self {
            Self::FutexFanOut { fan_out: 0, .. } => return zero("fan_out"),
            Self::CachePressure { size_kib, stride } | Self::CacheYield { size_kib, stride } => {
                if *size_kib == 0 {
                    return zero("size_kib");
                }
                if *stride == 0 {
                    return zero("stride");
                }
            }
            Self::CachePipe { size_kib: 0, .. } => return zero("size_kib"),
            Self::PageFaultChurn { region_kib: 0, .. } => return zero("region_kib"),
            _ => {}
        }
        let group = self.worker_group_size();
        if workers == 0 {
            return Err(WorkTypeError::NoWorkers(name));
        }
        if !workers.is_multiple_of(group) {
            return Err(WorkTypeError::GroupSize { name, group, workers });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_name_is_its_types_name() {
        for name in WorkType::ALL_NAMES {
            assert_eq!(&WorkType::from_name(name).unwrap().name(), name);
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let text = WorkType::from_name("SpinWiat").unwrap_err().to_string();
        assert!(text.contains("\"SpinWiat\"") && text.contains("FutexPingPong"), "{text}");
    }

    #[test]
    fn defaults_accept_one_group_of_workers() {
        for name in WorkType::ALL_NAMES {
            let t = WorkType::from_name(name).unwrap();
            t.check_workers(t.worker_group_size()).unwrap();
        }
    }

    #[test]
    fn zero_parameters_are_named() {
        let err = WorkType::cache_pressure(32, 0).check_workers(1).unwrap_err();
        assert_eq!(err.to_string(), "checking work type CachePressure: stride must be at least 1, got 0");
    }
}
