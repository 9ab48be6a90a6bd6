//! All that the workers of a group need, made before the fork.

use crate::shm::Mapping;
use crate::spin::SpinRate;
use crate::sys::{Pid, SchedAttr};
use crate::work::Channel;
use ktstr_scenario::ports::WorkerError;
use ktstr_topology::CpuSet;
use ktstr_workload::{MemPolicy, SchedPolicy, WorkPhase, WorkType, WorkloadConfig};
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

/// What the children read; nothing in it changes after the fork.
pub(crate) struct Plan {
    /// Shared with the parent.
    pub(crate) mapping: Arc<Mapping>,
    /// What they do.
    pub(crate) work: WorkType,
    /// Thread name.
    pub(crate) comm: Option<CString>,
    /// Nice value.
    pub(crate) nice: Option<i32>,
    /// Scheduling policy; the nice value in it is filled in by the child.
    pub(crate) sched: SchedAttr,
    /// CPUs of each worker, as given and as the kernel takes them.
    pub(crate) affinity: Vec<Option<(CpuSet, Vec<u64>)>>,
    /// Mode (with flags) and node mask of the memory policy.
    pub(crate) mem_policy: Option<(u32, Vec<u64>)>,
    /// User id.
    pub(crate) uid: Option<u32>,
    /// Group id.
    pub(crate) gid: Option<u32>,
    /// How fast this machine spins.
    pub(crate) rate: SpinRate,
    /// Pipes of each pair, for the types that have them.
    pub(crate) channels: Vec<Channel>,
    /// File of each worker, for the types that write one.
    pub(crate) files: Vec<OwnedFd>,
    /// The process that forks.
    pub(crate) parent: Pid,
}

impl Plan {
    /// Checks a configuration and makes everything it needs.
    pub(crate) fn new(config: &WorkloadConfig, affinity: &[Option<CpuSet>]) -> Result<Self, WorkerError> {
        check(config)?;
        let workers = config.num_workers;
        let groups = workers / config.work_type.worker_group_size();
        let mapping = Mapping::new(workers, groups).map_err(|e| {
            let hint = "; fewer workers or more memory are needed";
            os_error(
                format!("mapping shared memory for {workers} workers"),
                hint,
                io::Error::from_raw_os_error(e),
            )
        })?;
        let masks = (0..workers).map(|i| affinity.get(i).cloned().flatten());
        Ok(Self {
            mapping: Arc::new(mapping),
            work: config.work_type.clone(),
            comm: config.comm.as_deref().map(thread_name).transpose()?,
            nice: config.nice,
            sched: sched_attr(config.sched_policy),
            affinity: masks.map(|set| set.map(|set| (set.clone(), cpu_mask(&set)))).collect(),
            mem_policy: mem_policy(config),
            uid: config.uid,
            gid: config.gid,
            rate: SpinRate::measured(),
            channels: channels(&config.work_type, groups)?,
            files: files(&config.work_type, workers)?,
            parent: std::process::id().cast_signed(),
        })
    }

    /// True for the worker of a fan-out group that wakes the others.
    pub(crate) fn is_messenger(&self, index: usize) -> bool {
        matches!(self.work, WorkType::FutexFanOut { .. })
            && index.is_multiple_of(self.work.worker_group_size())
    }
}

fn check(config: &WorkloadConfig) -> Result<(), WorkerError> {
    config.work_type.check_workers(config.num_workers)?;
    config.sched_policy.validate()?;
    config.mem_policy.validate()?;
    match config.nice {
        Some(nice) if !(-20..=19).contains(&nice) => Err(ktstr_workload::PolicyError::Nice(nice).into()),
        _ => Ok(()),
    }
}

/// A [`WorkerError::Os`]; `hint` is empty or begins with `; `.
pub(crate) fn os_error(doing: String, hint: &str, source: io::Error) -> WorkerError {
    WorkerError::Os { doing, hint: hint.to_string(), source }
}

fn thread_name(comm: &str) -> Result<CString, WorkerError> {
    CString::new(comm).map_err(|_| {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "it has a zero byte");
        os_error(format!("checking the thread name {comm:?}"), "", source)
    })
}

/// Numbers of `uapi/linux/sched.h`.
fn sched_attr(policy: SchedPolicy) -> SchedAttr {
    let size = size_of::<SchedAttr>() as u32;
    let plain = |policy: i32| SchedAttr { size, policy: policy.cast_unsigned(), ..SchedAttr::default() };
    const SCHED_EXT: i32 = 7;
    match policy {
        SchedPolicy::Normal => plain(libc::SCHED_OTHER),
        SchedPolicy::Batch => plain(libc::SCHED_BATCH),
        SchedPolicy::Idle => plain(libc::SCHED_IDLE),
        SchedPolicy::Fifo(priority) => SchedAttr { priority, ..plain(libc::SCHED_FIFO) },
        SchedPolicy::RoundRobin(priority) => SchedAttr { priority, ..plain(libc::SCHED_RR) },
        SchedPolicy::Deadline { runtime_ns, deadline_ns, period_ns } => SchedAttr {
            runtime: runtime_ns,
            deadline: deadline_ns,
            period: period_ns,
            ..plain(libc::SCHED_DEADLINE)
        },
        SchedPolicy::Ext => plain(SCHED_EXT),
    }
}

/// Numbers of `uapi/linux/mempolicy.h`.
fn mem_policy(config: &WorkloadConfig) -> Option<(u32, Vec<u64>)> {
    let flags = config.mpol_flags.bits();
    let mode = match &config.mem_policy {
        MemPolicy::Default if flags == 0 => return None,
        MemPolicy::Default => 0,
        MemPolicy::Preferred(_) => 1,
        MemPolicy::Bind(_) => 2,
        MemPolicy::Interleave(_) => 3,
        MemPolicy::Local => 4,
        MemPolicy::PreferredMany(_) => 5,
        MemPolicy::WeightedInterleave(_) => 6,
    };
    Some((mode | flags, bit_mask(config.mem_policy.nodes())))
}

/// The CPUs as a mask of 64-bit words.
pub(crate) fn cpu_mask(cpus: &CpuSet) -> Vec<u64> {
    bit_mask(cpus.iter())
}

fn bit_mask(bits: impl IntoIterator<Item = u32>) -> Vec<u64> {
    let mut mask = Vec::new();
    for bit in bits {
        let word = bit as usize / 64;
        if mask.len() <= word {
            mask.resize(word + 1, 0);
        }
        mask[word] |= 1 << (bit % 64);
    }
    mask
}

fn channels(work: &WorkType, pairs: usize) -> Result<Vec<Channel>, WorkerError> {
    if !matches!(work, WorkType::PipeIo { .. } | WorkType::CachePipe { .. }) {
        return Ok(Vec::new());
    }
    let make = |pair| {
        Channel::new().map_err(|source| {
            let hint = "; each pair takes four descriptors: fewer workers, or a higher RLIMIT_NOFILE";
            os_error(format!("making the pipes of pair {pair} of {pairs}"), hint, source)
        })
    };
    (0..pairs).map(make).collect()
}

fn files(work: &WorkType, workers: usize) -> Result<Vec<OwnedFd>, WorkerError> {
    let WorkType::Sequence { first, rest } = work else { return Ok(Vec::new()) };
    if !std::iter::once(first).chain(rest).any(|phase| matches!(phase, WorkPhase::Io(_))) {
        return Ok(Vec::new());
    }
    let dir = std::env::temp_dir();
    let make = |index: usize| {
        unlinked_file(&dir, index).map(OwnedFd::from).map_err(|source| {
            let hint = "; the Io phase writes to the temporary directory ($TMPDIR, else /tmp): it must exist";
            os_error(format!("making a temporary file in {}", dir.display()), hint, source)
        })
    };
    (0..workers).map(make).collect()
}

/// A file without a name, gone when the last descriptor is closed.
fn unlinked_file(dir: &std::path::Path, index: usize) -> io::Result<File> {
    let nameless =
        OpenOptions::new().read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE).open(dir);
    match nameless {
        // ramfs, an initramfs without tmpfs, has no O_TMPFILE.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
            let path = dir.join(format!("ktstr-worker-{}-{index}", std::process::id()));
            let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ktstr_workload::MpolFlags;
    use std::collections::BTreeSet;

    #[test]
    fn masks_have_the_bits_of_the_set() {
        assert_eq!(bit_mask([0, 3, 64]), [0b1001, 1]);
        assert_eq!(bit_mask([]), [0u64; 0]);
    }

    #[test]
    fn policies_become_the_kernels_numbers() {
        let fifo = sched_attr(SchedPolicy::Fifo(9));
        assert_eq!((fifo.policy, fifo.priority, fifo.size), (1, 9, 48));
        assert_eq!(sched_attr(SchedPolicy::Ext).policy, 7);
        let dl = sched_attr(SchedPolicy::Deadline { runtime_ns: 1, deadline_ns: 2, period_ns: 3 });
        assert_eq!((dl.policy, dl.runtime, dl.deadline, dl.period), (6, 1, 2, 3));
    }

    #[test]
    fn memory_policies_become_mode_and_mask() {
        let config =
            |mem_policy, mpol_flags| WorkloadConfig { mem_policy, mpol_flags, ..WorkloadConfig::default() };
        assert_eq!(mem_policy(&config(MemPolicy::Default, MpolFlags::NONE)), None);
        let bind = config(MemPolicy::Bind(BTreeSet::from([1])), MpolFlags::STATIC_NODES);
        assert_eq!(mem_policy(&bind), Some((2 | 1 << 15, vec![2])));
    }

    #[test]
    fn a_thread_name_with_a_zero_byte_is_an_error() {
        let config = WorkloadConfig { comm: Some("a\0b".into()), ..WorkloadConfig::default() };
        let Err(e) = Plan::new(&config, &[]) else { panic!("accepted") };
        assert!(e.to_string().contains("zero byte"), "{e}");
    }

    #[test]
    fn nonsense_is_refused_before_anything_is_made() {
        let none = WorkloadConfig { num_workers: 0, ..WorkloadConfig::default() };
        assert!(matches!(Plan::new(&none, &[]), Err(WorkerError::WorkType(_))));
        let nice = WorkloadConfig { nice: Some(20), ..WorkloadConfig::default() };
        assert!(matches!(Plan::new(&nice, &[]), Err(WorkerError::Policy(_))));
    }
}
