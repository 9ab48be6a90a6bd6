//! What the monitor needs of the world: a reader of the guest kernel's state.

use crate::{Current, KernelState, LongestWait, Sample, Value, VcpuCounters};
use ktstr_machine::{PhysicalMemory, VcpuRegisters, VcpuThreads};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A sample that could not be taken. The kinds are told apart because they call for
/// different answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// The reader is still looking for symbols and types: try again later.
    #[error("the kernel's symbols and types are still being read")]
    NotReady,
    /// This kernel has no such thing: another version or configuration.
    #[error("this kernel does not have it: {0}")]
    Absent(String),
    /// It changed while it was read, or it is corrupt: worth another try.
    #[error("torn: {0}")]
    Torn(String),
    /// An address that should hold it can't be read.
    #[error("unmapped: {0}")]
    Unmapped(String),
    /// The kernel could not be found in memory, or the reader is at fault: no later try
    /// will do better.
    #[error("{0}")]
    Broken(String),
}

impl SampleError {
    /// Whether another try may go better.
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::NotReady | Self::Torn(_) | Self::Unmapped(_))
    }
}

/// Samples runqueues of a running kernel, without touching it.
#[cfg_attr(test, mockall::automock)]
pub trait Sampler {
    /// Reads every online CPU once; `at` is the sample's time, since the test began.
    ///
    /// # Errors
    /// [`SampleError`]
    fn sample(&mut self, at: Duration) -> Result<Sample, SampleError>;

    /// The task that a CPU goes on with once `pid`, which runs there now, has left it; `None`
    /// where that is not certain.
    fn next_after(&mut self, cpu: u32, pid: i32) -> Option<Current> {
        let _ = (cpu, pid);
        None
    }
}

/// Counts what the host's CPUs and its kernel do for a machine's vCPUs.
#[cfg_attr(test, mockall::automock)]
pub trait HostCounters {
    /// Begins to count for these threads; what was counted for others ends.
    fn open(&mut self, threads: &VcpuThreads);

    /// What was counted since, by vCPU; empty where nothing can be counted.
    fn read(&mut self) -> Vec<VcpuCounters>;

    /// What is not counted, and why.
    fn left_out(&self) -> Vec<String>;
}

/// Values by path, each read or not for a reason of its own.
pub type Readings = BTreeMap<String, Result<Value, String>>;

/// Where a number of the kernel's lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Guest-physical address.
    pub physical: u64,
    /// Kernel virtual address.
    pub address: u64,
    /// Its size: 1, 2, 4 or 8 bytes.
    pub bytes: usize,
}

/// Looks into the kernel of one machine after another.
pub trait Inspector: Sampler {
    /// Begins to look for the kernel in a machine's memory, and returns at once. What was
    /// known of another machine is forgotten.
    fn attach(&mut self, memory: Arc<dyn PhysicalMemory>);

    /// Waits until the kernel was found, at most `patience`.
    ///
    /// # Errors
    /// [`SampleError`] when it was not.
    fn wait_ready(&mut self, patience: Duration) -> Result<(), SampleError>;

    /// Reads values by paths such as `jiffies` or `runqueues[0].nr_running`; `[*]` stands for
    /// every possible CPU and makes a reading of each. Waits until the kernel was found.
    ///
    /// # Errors
    /// [`SampleError`] when the kernel can't be read at all.
    fn values(&mut self, paths: &[&str]) -> Result<Readings, SampleError>;

    /// Where the number at a path lies. Waits until the kernel was found.
    ///
    /// # Errors
    /// [`SampleError`] when there is no such path, or it is no number of whole bytes.
    fn locate(&mut self, path: &str) -> Result<Place, SampleError>;

    /// What the kernel of a paused machine looks like. Waits until the kernel was found.
    ///
    /// # Errors
    /// [`SampleError`] when nothing at all can be told; parts that can't be read are
    /// listed in the state.
    fn state(&mut self, registers: &[VcpuRegisters]) -> Result<KernelState, SampleError>;

    /// The task that has waited longest to run under a sched_ext scheduler, by what the kernel's
    /// watchdog goes by; `None` while no such scheduler runs or nobody waits. Does not wait for
    /// the kernel to be found.
    ///
    /// # Errors
    /// [`SampleError`] when that can't be read now.
    fn longest_wait(&mut self) -> Result<Option<LongestWait>, SampleError> {
        Ok(None)
    }

    /// Adds what takes longer to find out and holds as well later: the source lines of the
    /// vCPUs' instruction pointers.
    fn explain(&mut self, state: &mut KernelState);
}
