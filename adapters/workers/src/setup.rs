//! What a worker applies to itself before it is ready, and how a step that failed
//! is told to the parent.

use crate::plan::Plan;
use crate::sys;
use ktstr_workload::WorkType;
use std::io;

/// A step of a worker's life that can fail. Its number travels in shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum StepKind {
    /// `PR_SET_NAME`.
    Comm = 1,
    /// `setpriority(2)`.
    Nice = 2,
    /// `sched_setattr(2)`.
    Policy = 3,
    /// `sched_setaffinity(2)`.
    Affinity = 4,
    /// `set_mempolicy(2)`.
    MemPolicy = 5,
    /// `setgroups(2)`, `setresgid(2)`.
    Gid = 6,
    /// `setresuid(2)`.
    Uid = 7,
    /// The nice sweep's lowest value.
    NiceSweep = 8,
    /// `pthread_create(3)`.
    Thread = 9,
    /// `mmap(2)` of a working set.
    WorkingSet = 10,
    /// `pwrite(2)` or `fdatasync(2)` of the temporary file.
    FileWrite = 11,
    /// `read(2)` or `write(2)` of a pipe.
    Pipe = 12,
    /// Affinity changes while running.
    AffinityChurn = 13,
}

impl StepKind {
    const ALL: [Self; 13] = [
        Self::Comm,
        Self::Nice,
        Self::Policy,
        Self::Affinity,
        Self::MemPolicy,
        Self::Gid,
        Self::Uid,
        Self::NiceSweep,
        Self::Thread,
        Self::WorkingSet,
        Self::FileWrite,
        Self::Pipe,
        Self::AffinityChurn,
    ];

    fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u32 == number)
    }
}

/// A step and the kernel's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StepError {
    pub(crate) kind: StepKind,
    pub(crate) errno: i32,
}

/// Adds the step to a call's error number.
pub(crate) fn at<T>(kind: StepKind, result: Result<T, i32>) -> Result<T, StepError> {
    result.map_err(|errno| StepError { kind, errno })
}

/// Applies the plan to the calling thread: name, nice value, policy, affinity and
/// memory policy while it may still do so, the identity last.
pub(crate) fn apply(plan: &Plan, index: usize) -> Result<(), StepError> {
    if let Some(comm) = &plan.comm {
        at(StepKind::Comm, sys::prctl(libc::PR_SET_NAME, comm.as_ptr() as libc::c_ulong))?;
    }
    // Timers of ordinary tasks may be 50 µs late by default, which would be taken
    // for the scheduler's doing.
    at(StepKind::Policy, sys::prctl(libc::PR_SET_TIMERSLACK, 1))?;
    if let Some(nice) = plan.nice {
        at(StepKind::Nice, sys::set_nice(nice))?;
    }
    // Always, so that a real-time parent does not hand its policy down.
    let attr = sys::SchedAttr { nice: sys::nice(), ..plan.sched };
    at(StepKind::Policy, sys::sched_setattr(&attr))?;
    if let Some(Some((_, mask))) = plan.affinity.get(index) {
        at(StepKind::Affinity, sys::set_affinity(0, mask))?;
    }
    if let Some((mode, nodes)) = &plan.mem_policy {
        at(StepKind::MemPolicy, sys::set_mempolicy(*mode, nodes))?;
    }
    change_identity(plan)?;
    if matches!(plan.work, WorkType::NiceSweep) {
        let before = sys::nice();
        at(StepKind::NiceSweep, sys::set_nice(-20).and_then(|()| sys::set_nice(before)))?;
    }
    Ok(())
}

fn change_identity(plan: &Plan) -> Result<(), StepError> {
    if plan.uid.is_none() && plan.gid.is_none() {
        return Ok(());
    }
    at(StepKind::Gid, sys::drop_groups())?;
    if let Some(gid) = plan.gid {
        at(StepKind::Gid, sys::set_ids(libc::SYS_setresgid, gid))?;
    }
    if let Some(uid) = plan.uid {
        at(StepKind::Uid, sys::set_ids(libc::SYS_setresuid, uid))?;
    }
    Ok(())
}

/// What a failed step, by its number, says to the user.
pub(crate) fn describe(context: &StepContext, step: u32, errno: i32) -> String {
    let error = io::Error::from_raw_os_error(errno);
    match StepKind::from_number(step) {
        Some(kind) => {
            let (what, hint) = (context.words(kind), StepContext::hint(kind, errno));
            format!("{what}: {error}{hint}")
        }
        None => format!("at an unknown step {step}: {error}"),
    }
}

/// What of the plan an error message shows; kept after the plan itself is gone.
#[derive(Debug, Clone, Default)]
pub(crate) struct StepContext {
    /// Nice value.
    pub(crate) nice: Option<i32>,
    /// Scheduling policy, in words.
    pub(crate) policy: String,
    /// The worker's CPUs.
    pub(crate) cpus: Option<String>,
    /// Memory policy, in words.
    pub(crate) mem_policy: String,
    /// User id.
    pub(crate) uid: Option<u32>,
    /// Group id.
    pub(crate) gid: Option<u32>,
}

impl StepContext {
    fn words(&self, kind: StepKind) -> String {
        let id = |value: Option<u32>| value.map_or_else(|| "as it is".into(), |v| v.to_string());
        match kind {
            StepKind::Comm => "setting the thread name".into(),
            StepKind::Nice => format!("setting nice value {}", self.nice.unwrap_or(0)),
            StepKind::Policy => format!("setting scheduling policy {}", self.policy),
            StepKind::Affinity => {
                format!("setting CPU affinity to {}", self.cpus.as_deref().unwrap_or("none"))
            }
            StepKind::MemPolicy => format!("setting memory policy {}", self.mem_policy),
            StepKind::Gid => format!("setting group id {}", id(self.gid)),
            StepKind::Uid => format!("setting user id {}", id(self.uid)),
            StepKind::NiceSweep => "lowering the nice value to -20 for NiceSweep".into(),
            StepKind::Thread => "starting its thread".into(),
            StepKind::WorkingSet => "mapping its working set".into(),
            StepKind::FileWrite => "writing its temporary file".into(),
            StepKind::Pipe => "passing a byte through its pipe".into(),
            StepKind::AffinityChurn => "changing its CPU affinity".into(),
        }
    }

    fn hint(kind: StepKind, errno: i32) -> &'static str {
        match (kind, errno) {
            (StepKind::Nice | StepKind::NiceSweep, libc::EPERM | libc::EACCES) => {
                "; it takes CAP_SYS_NICE (root)"
            }
            (StepKind::Policy, libc::EPERM) => {
                "; it takes CAP_SYS_NICE (root), and a deadline task must be allowed on all CPUs"
            }
            (StepKind::Policy, libc::EBUSY) => "; the kernel has no deadline bandwidth left",
            (StepKind::Policy, libc::EINVAL) => {
                "; this kernel may lack the policy (SCHED_EXT takes CONFIG_SCHED_CLASS_EXT)"
            }
            (StepKind::Affinity, libc::EINVAL) => "; none of these CPUs is online and allowed to it",
            (StepKind::Affinity, libc::EBUSY) => {
                "; a deadline task must stay allowed on all CPUs of its cpuset"
            }
            (StepKind::MemPolicy, libc::EINVAL) => {
                "; the nodes must exist, hold memory and be allowed by cpuset.mems"
            }
            (StepKind::MemPolicy, libc::ENOSYS) => "; this kernel has no NUMA support (CONFIG_NUMA)",
            (StepKind::Gid | StepKind::Uid, libc::EPERM) => "; it takes root",
            (StepKind::Thread, _) => "; pids.max or RLIMIT_NPROC may be too low",
            (StepKind::WorkingSet, _) => "; memory is short",
            _ => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_survives_as_a_number() {
        for kind in StepKind::ALL {
            assert_eq!(StepKind::from_number(kind as u32), Some(kind));
        }
        assert!(describe(&StepContext::default(), 0, libc::EIO).contains("unknown step 0"));
    }

    #[test]
    fn a_failed_step_says_what_with_what_and_why() {
        let context =
            StepContext { cpus: Some("900".into()), policy: "Fifo(5)".into(), ..Default::default() };
        let text = describe(&context, StepKind::Affinity as u32, libc::EINVAL);
        assert!(
            text.starts_with("setting CPU affinity to 900: Invalid argument") && text.contains("online"),
            "{text}"
        );
        let text = describe(&context, StepKind::Policy as u32, libc::EPERM);
        assert!(text.contains("Fifo(5)") && text.contains("CAP_SYS_NICE"), "{text}");
    }
}
