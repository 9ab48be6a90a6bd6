//! What a scenario asks of the host that watches its machine.

use std::time::Duration;

/// Something for the host to do while the scenario waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostRequest {
    /// Capture the kernel's state, all vCPUs standing still, and keep it under a name.
    Capture {
        /// The name.
        name: String,
    },
    /// Read kernel memory and keep the value under a name.
    ReadKernel {
        /// The name.
        tag: String,
        /// Such as `runqueues[0].nr_running`.
        path: String,
        /// Whether all vCPUs stand still meanwhile.
        frozen: bool,
    },
    /// Write a number of kernel memory.
    WriteKernel {
        /// Such as `sysctl_sched_base_slice`.
        path: String,
        /// The number; it must fit the variable.
        value: u64,
        /// Whether all vCPUs stand still meanwhile.
        frozen: bool,
    },
    /// Capture the kernel's state whenever a variable is written, and keep the last.
    Watch {
        /// The variable.
        symbol: String,
    },
    /// Keep process ids under a name.
    KeepPids {
        /// The name.
        tag: String,
        /// The ids.
        pids: Vec<i32>,
    },
    /// Nothing yet: the workload is about to end, and what the kernel looks like now explains
    /// what is found later.
    WorkloadEnds,
}

/// A request that was not fulfilled.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Nobody watches.
    #[error("no host watches here: {0}; run the test in a machine")]
    Nobody(&'static str),
    /// The way to the host is broken.
    #[error("{0}")]
    Broken(String),
    /// The host is silent.
    #[error("no answer from the host within {0:?} of guest time; it may be swamped, or ended")]
    Silent(Duration),
    /// The host can't do it.
    #[error("the host answered: {0}")]
    Refused(String),
}

/// The host that watches the machine.
#[cfg_attr(test, mockall::automock)]
pub trait HostLink: Send + Sync {
    /// Asks during step `step` (0 is before the first); returns when it was done, with the
    /// value that was read, or 0.
    ///
    /// # Errors
    /// [`HostError`]
    fn ask(&self, step: u16, request: &HostRequest) -> Result<u64, HostError>;
}

/// Where a test runs without a machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHost;

impl HostLink for NoHost {
    fn ask(&self, _: u16, _: &HostRequest) -> Result<u64, HostError> {
        Err(HostError::Nobody("this test runs on the host itself"))
    }
}
