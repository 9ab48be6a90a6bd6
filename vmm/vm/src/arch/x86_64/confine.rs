//! System calls that only x86-64 has or numbers so, and how one is refused.

use crate::confine::KVMIO;
use kvm_bindings::{kvm_clock_data, kvm_mp_state, kvm_msrs, kvm_regs, kvm_sregs};
use std::ffi::c_void;
use vmm_sys_util::ioctl::{_IOC_READ, _IOC_WRITE, ioctl_expr};

const fn read<T>(number: u32) -> u64 {
    ioctl_expr(_IOC_READ, KVMIO, number, size_of::<T>() as u32)
}

/// `KVM_GET_REGS`, `KVM_GET_SREGS` and `KVM_GET_MP_STATE`, for the report of a vCPU that KVM gave up on.
pub(crate) const GET_REGISTERS: &[u64] =
    &[read::<kvm_regs>(0x81), read::<kvm_sregs>(0x83), read::<kvm_mp_state>(0x98)];

/// `KVM_GET_MSRS` and `KVM_GET_CLOCK`, for what the clocks stand at when a watchpoint was hit.
pub(crate) const GET_CLOCKS: &[u64] = &[
    ioctl_expr(_IOC_READ | _IOC_WRITE, KVMIO, 0x88, size_of::<kvm_msrs>() as u32),
    read::<kvm_clock_data>(0x7c),
];

/// Waiting on several descriptors.
pub(crate) const WAIT: &[i64] = &[libc::SYS_epoll_wait, libc::SYS_epoll_pwait, libc::SYS_epoll_ctl];

/// Has the interrupted system call answer `EPERM`.
///
/// # Safety
/// `context` is the `ucontext_t` that a signal handler was given.
pub(crate) unsafe fn refuse(context: *mut c_void) {
    // SAFETY: the caller's promise.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    context.uc_mcontext.gregs[libc::REG_RAX as usize] = i64::from(-libc::EPERM);
}

/// What a system call is called, of those that are likely to be asked for by mistake.
pub(crate) fn name(call: i64) -> Option<&'static str> {
    NAMES.iter().find(|(number, _)| *number == call).map(|(_, name)| *name)
}

macro_rules! names {
    ($($call:ident)*) => { &[$((libc::$call, stringify!($call).split_at(4).1)),*] };
}

const NAMES: &[(i64, &str)] = names! {
    SYS_open SYS_openat SYS_openat2 SYS_creat SYS_stat SYS_fstat SYS_lstat SYS_newfstatat SYS_statx SYS_access
    SYS_readlink SYS_readlinkat SYS_getcwd SYS_getdents64 SYS_lseek SYS_ftruncate SYS_fallocate SYS_rename
    SYS_pread64 SYS_pwrite64 SYS_preadv SYS_pwritev SYS_fsync SYS_fdatasync
    SYS_unlink SYS_unlinkat SYS_mkdir SYS_fcntl SYS_flock SYS_dup SYS_dup3 SYS_pipe2 SYS_poll SYS_ppoll SYS_select
    SYS_ioctl SYS_mmap SYS_mprotect SYS_clone SYS_clone3 SYS_fork SYS_vfork SYS_execve SYS_execveat SYS_wait4
    SYS_kill SYS_tkill SYS_tgkill SYS_prctl SYS_ptrace SYS_socket SYS_connect SYS_bind SYS_listen SYS_accept4
    SYS_sendto SYS_recvfrom SYS_sendmsg SYS_recvmsg SYS_eventfd2 SYS_epoll_create1 SYS_epoll_wait SYS_epoll_ctl
    SYS_timerfd_create SYS_timerfd_settime SYS_memfd_create SYS_nanosleep SYS_sched_setaffinity
    SYS_sched_setscheduler SYS_sched_setattr SYS_setpriority SYS_prlimit64 SYS_getrusage SYS_uname SYS_sysinfo
    SYS_getuid SYS_setuid SYS_mount SYS_umount2 SYS_reboot SYS_bpf SYS_perf_event_open SYS_membarrier SYS_rseq
    SYS_set_robust_list SYS_mlock SYS_io_uring_setup SYS_process_vm_readv SYS_process_vm_writev
};
