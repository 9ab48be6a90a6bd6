//! How many workers, doing what, under which policy.

use crate::{
    AffinityIntent, CloneMode, MemPolicy, MpolFlags, PolicyError, SchedPolicy, WorkType, WorkTypeError,
};

/// One group of like workers inside a cgroup.
#[derive(Debug, Clone, Default)]
pub struct WorkSpec {
    /// How many; `None` takes the context's `workers_per_cgroup`.
    pub num_workers: Option<usize>,
    /// Workers as a fraction of the cgroup's CPUs (rounded up); wins over
    /// `num_workers` when set.
    pub workers_pct: Option<f64>,
    /// What they do.
    pub work_type: WorkType,
    /// Scheduling policy.
    pub sched_policy: SchedPolicy,
    /// CPU affinity.
    pub affinity: AffinityIntent,
    /// Memory policy.
    pub mem_policy: MemPolicy,
    /// Flags of the memory policy.
    pub mpol_flags: MpolFlags,
    /// Nice value, -20 to 19; `None` leaves it alone.
    pub nice: Option<i32>,
    /// Thread name, cut to 15 bytes by the kernel.
    pub comm: Option<String>,
    /// User id to run as.
    pub uid: Option<u32>,
    /// Group id to run as.
    pub gid: Option<u32>,
    /// Process or thread.
    pub clone_mode: CloneMode,
}

impl WorkSpec {
    /// Workers of one type, everything else at its default.
    pub fn of(work_type: WorkType) -> Self {
        Self { work_type, ..Self::default() }
    }

    /// Sets the number of workers.
    pub fn workers(mut self, n: usize) -> Self {
        self.num_workers = Some(n);
        self
    }

    /// Sets the number of workers to a fraction of the cgroup's CPUs, rounded up.
    pub fn workers_pct(mut self, fraction: f64) -> Self {
        self.workers_pct = Some(fraction);
        self
    }

    /// Sets the work type.
    pub fn work_type(mut self, work_type: WorkType) -> Self {
        self.work_type = work_type;
        self
    }

    /// Sets the scheduling policy.
    pub fn sched_policy(mut self, policy: SchedPolicy) -> Self {
        self.sched_policy = policy;
        self
    }

    /// Sets the CPU affinity.
    pub fn affinity(mut self, affinity: AffinityIntent) -> Self {
        self.affinity = affinity;
        self
    }

    /// Sets the memory policy.
    pub fn mem_policy(mut self, policy: MemPolicy) -> Self {
        self.mem_policy = policy;
        self
    }

    /// Sets the memory policy's flags.
    pub fn mpol_flags(mut self, flags: MpolFlags) -> Self {
        self.mpol_flags = flags;
        self
    }

    /// Sets the nice value.
    pub fn nice(mut self, nice: i32) -> Self {
        self.nice = Some(nice);
        self
    }

    /// Sets the thread name.
    pub fn comm(mut self, comm: impl Into<String>) -> Self {
        self.comm = Some(comm.into());
        self
    }

    /// Sets the user id.
    pub fn uid(mut self, uid: u32) -> Self {
        self.uid = Some(uid);
        self
    }

    /// Sets the group id.
    pub fn gid(mut self, gid: u32) -> Self {
        self.gid = Some(gid);
        self
    }

    /// The number of workers on `cpus` CPUs, `default` where none was set.
    ///
    /// Errors when the fraction is not finite and positive, when the result is
    /// zero, or when it is not a multiple of the work type's group size.
    pub fn count(&self, cpus: usize, default: usize) -> Result<usize, WorkTypeError> {
        let count = match self.workers_pct {
            Some(f) if !(f.is_finite() && f > 0.0) => return Err(WorkTypeError::Fraction(f)),
            Some(f) => (cpus as f64 * f).ceil() as usize,
            None => self.num_workers.unwrap_or(default),
        };
        self.work_type.check_workers(count)?;
        Ok(count)
    }

    /// Checks policies and nice value against what the kernel takes.
    pub fn validate(&self) -> Result<(), PolicyError> {
        self.sched_policy.validate()?;
        self.mem_policy.validate()?;
        match self.nice {
            Some(n) if !(-20..=19).contains(&n) => Err(PolicyError::Nice(n)),
            _ => Ok(()),
        }
    }
}

/// What the low-level `WorkloadHandle::spawn` takes.
#[derive(Debug, Clone)]
pub struct WorkloadConfig {
    /// How many workers, at least 1.
    pub num_workers: usize,
    /// What they do.
    pub work_type: WorkType,
    /// CPU affinity.
    pub affinity: AffinityIntent,
    /// Scheduling policy.
    pub sched_policy: SchedPolicy,
    /// Memory policy.
    pub mem_policy: MemPolicy,
    /// Flags of the memory policy.
    pub mpol_flags: MpolFlags,
    /// Nice value, -20 to 19; `None` leaves it alone.
    pub nice: Option<i32>,
    /// Thread name.
    pub comm: Option<String>,
    /// User id to run as.
    pub uid: Option<u32>,
    /// Group id to run as.
    pub gid: Option<u32>,
    /// Process or thread.
    pub clone_mode: CloneMode,
}

impl Default for WorkloadConfig {
    fn default() -> Self {
        Self::from_spec(&WorkSpec::default(), 1)
    }
}

impl WorkloadConfig {
    /// The configuration of `num_workers` workers of a spec.
    pub fn from_spec(spec: &WorkSpec, num_workers: usize) -> Self {
        Self {
            num_workers,
            work_type: spec.work_type.clone(),
            affinity: spec.affinity.clone(),
            sched_policy: spec.sched_policy,
            mem_policy: spec.mem_policy.clone(),
            mpol_flags: spec.mpol_flags,
            nice: spec.nice,
            comm: spec.comm.clone(),
            uid: spec.uid,
            gid: spec.gid,
            clone_mode: spec.clone_mode,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_of_the_cpus_rounds_up() {
        let spec = WorkSpec::default().workers_pct(0.5);
        assert_eq!(spec.count(3, 9), Ok(2));
        assert_eq!(WorkSpec::default().count(3, 9), Ok(9));
        assert!(matches!(spec.workers_pct(f64::NAN).count(3, 9), Err(WorkTypeError::Fraction(_))));
    }

    #[test]
    fn a_pair_type_needs_an_even_count() {
        let spec = WorkSpec::of(WorkType::pipe_io(16)).workers(3);
        assert_eq!(spec.count(4, 2), Err(WorkTypeError::GroupSize { name: "PipeIo", group: 2, workers: 3 }));
    }

    #[test]
    fn nice_values_are_checked() {
        assert_eq!(WorkSpec::default().nice(20).validate(), Err(PolicyError::Nice(20)));
    }
}
