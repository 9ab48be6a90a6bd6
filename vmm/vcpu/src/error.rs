//! What can go wrong with a vCPU's thread.

use std::time::Duration;

/// A vCPU that can't be started, paused or asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VcpuError {
    /// The signal that kicks vCPUs out of the guest can't be handled.
    #[error("installing the handler of signal {signal} that kicks vCPUs: {source}")]
    Signal {
        /// Its number.
        signal: i32,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The thread can't be started.
    #[error("starting the thread of vCPU {index}: {source}")]
    Thread {
        /// The vCPU.
        index: u32,
        /// The system's answer.
        source: std::io::Error,
    },
    /// It didn't pause in time; a device it waits for may be stuck.
    #[error("pausing vCPU {index}: still running after {after:?}; a device that serves it may be stuck")]
    StillRunning {
        /// The vCPU.
        index: u32,
        /// How long we waited.
        after: Duration,
    },
    /// It runs, so its registers mean nothing.
    #[error("{doing} of vCPU {index}: it runs; pause it first")]
    Runs {
        /// The vCPU.
        index: u32,
        /// What was to be done.
        doing: &'static str,
    },
    /// A saved state that this host can't go on from.
    #[error("restoring the state of vCPU {index}: {why}")]
    Unfit {
        /// The vCPU.
        index: u32,
        /// What differs.
        why: String,
    },
    /// KVM refused.
    #[error("{doing} of vCPU {index}: KVM answered {source}")]
    Kvm {
        /// The vCPU.
        index: u32,
        /// What was to be done.
        doing: &'static str,
        /// KVM's answer.
        source: kvm_ioctls::Error,
    },
}
