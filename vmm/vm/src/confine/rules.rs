//! Which system calls each thread needs, and why.

use crate::arch::confine::{GET_CLOCKS, GET_REGISTERS, WAIT};
use seccompiler::SeccompCmpArgLen::Dword;
use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use std::collections::BTreeMap;
use vmm_sys_util::ioctl::{_IOC_NONE, ioctl_expr};

/// What a thread is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs a vCPU and serves what traps.
    Vcpu,
    /// Serves queues, and ends the machine.
    Events {
        /// Whether there are disks among what it serves.
        disks: bool,
    },
}

/// Letter of KVM's ioctls (include/uapi/linux/kvm.h).
pub(crate) const KVMIO: u32 = 0xae;
const KVM_RUN: u64 = ioctl_expr(_IOC_NONE, KVMIO, 0x80, 0);

/// Every thread: bytes to sinks and eventfds; locks; memory for the allocator; signals that kick; the clock;
/// its end, and that of a process that must abort.
const ALL: &[i64] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_futex,
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getrandom,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// A disk, beside `fallocate`: sectors from and to guest memory; zeroes where the file system has none; flushes.
const DISK: &[i64] = &[libc::SYS_preadv, libc::SYS_pwritev, libc::SYS_pwrite64, libc::SYS_fdatasync];

/// The filter for threads of that role in this process.
pub(crate) fn filter(role: Role) -> Result<BpfProgram, Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALL.iter().map(|call| (*call, Vec::new())).collect();
    // The allocator's memory is never executable.
    let not_executable = |argument| {
        let executable = libc::PROT_EXEC as u64;
        rule(argument, SeccompCmpOp::MaskedEq(executable), 0)
    };
    rules.insert(libc::SYS_mmap, vec![not_executable(2)?]);
    rules.insert(libc::SYS_mprotect, vec![not_executable(2)?]);
    // The standard library looks whether a descriptor is open before it closes it, in builds with debug assertions.
    rules.insert(libc::SYS_fcntl, vec![rule(1, SeccompCmpOp::Eq, libc::F_GETFD as u64)?]);
    // Kicks of this process's threads, and abort().
    let ourselves = u64::from(std::process::id());
    rules.insert(libc::SYS_tgkill, vec![rule(0, SeccompCmpOp::Eq, ourselves)?]);
    let (calls, ioctls) = match role {
        Role::Vcpu => (&[][..], [&[KVM_RUN], GET_REGISTERS].concat()),
        Role::Events { .. } => (WAIT, GET_CLOCKS.to_vec()),
    };
    rules.extend(calls.iter().map(|call| (*call, Vec::new())));
    let ioctls = ioctls.iter().map(|number| rule(1, SeccompCmpOp::Eq, *number)).collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_ioctl, ioctls);
    if role == (Role::Events { disks: true }) {
        rules.extend(DISK.iter().map(|call| (*call, Vec::new())));
        // Files keep their length.
        let keeps = |how: libc::c_int| rule(1, SeccompCmpOp::Eq, (how | libc::FALLOC_FL_KEEP_SIZE) as u64);
        let ways = [keeps(libc::FALLOC_FL_PUNCH_HOLE)?, keeps(libc::FALLOC_FL_ZERO_RANGE)?];
        rules.insert(libc::SYS_fallocate, ways.into());
    }
    let arch = std::env::consts::ARCH.try_into().map_err(Error::Backend)?;
    let filter = SeccompFilter::new(rules, SeccompAction::Trap, SeccompAction::Allow, arch);
    filter.and_then(TryInto::try_into).map_err(Error::Backend)
}

/// A rule over the low half of one argument, which is all of it for those that are looked at.
fn rule(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, Error> {
    let condition = SeccompCondition::new(argument, Dword, operator, value);
    SeccompRule::new(vec![condition.map_err(Error::Backend)?]).map_err(Error::Backend)
}
