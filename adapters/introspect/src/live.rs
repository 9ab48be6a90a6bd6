//! The ports of ktstr-monitor over the memory of a running machine.

use crate::expression;
use crate::index::IndexCache;
use crate::open::{Opened, sample_error};
use crate::state::{explain, kernel_state, longest_wait};
use ktstr_machine::{PhysicalMemory, VcpuRegisters};
use ktstr_monitor::{
    Current, Inspector, KernelState, LongestWait, Place, Readings, Sample, SampleError, Sampler,
};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

/// How long a dump waits for the kernel to be found; a search of some gigabytes by an
/// unoptimized build takes about as long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Reads the kernel of the machine that it is attached to.
pub struct LiveKernel {
    vmlinux: Option<PathBuf>,
    index: Option<IndexCache>,
    kernel: Slot,
}

/// How a kernel was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How long it took, until it could be sampled.
    pub took: Duration,
    /// What came of the index, in words.
    pub how: String,
}

enum Slot {
    Detached,
    Opening(Receiver<Result<Opened, SampleError>>),
    Open(Box<Opened>),
    Failed(SampleError),
}

impl LiveKernel {
    /// Takes symbols, types and source lines from `vmlinux` where it is the guest's.
    pub fn new(vmlinux: Option<PathBuf>) -> Self {
        Self { vmlinux, index: None, kernel: Slot::Detached }
    }

    /// Takes symbols and types from an index where there is one of this kernel, and else makes one.
    #[must_use]
    pub fn with_index(self, index: IndexCache) -> Self {
        Self { index: Some(index), ..self }
    }

    /// How the kernel was found, once it was.
    pub fn finding(&mut self) -> Option<Finding> {
        let (took, how) = self.opened(Duration::ZERO).ok()?.finding.clone();
        Some(Finding { took, how })
    }

    /// The kernel, once it was found; waits for that at most `patience`.
    fn opened(&mut self, patience: Duration) -> Result<&mut Opened, SampleError> {
        if let Slot::Opening(outcome) = &self.kernel {
            let found = match patience {
                Duration::ZERO => outcome.try_recv().map_err(|e| e == TryRecvError::Empty),
                _ => outcome.recv_timeout(patience).map_err(|e| e == RecvTimeoutError::Timeout),
            };
            self.kernel = match found {
                Ok(Ok(opened)) => Slot::Open(Box::new(opened)),
                Ok(Err(error)) => Slot::Failed(error),
                Err(true) => return Err(SampleError::NotReady),
                Err(false) => {
                    Slot::Failed(SampleError::Broken("the thread that looks for the kernel died".to_string()))
                }
            };
        }
        match &mut self.kernel {
            Slot::Open(opened) => Ok(opened),
            Slot::Failed(error) => Err(error.clone()),
            Slot::Detached | Slot::Opening(_) => Err(SampleError::NotReady),
        }
    }
}

impl Sampler for LiveKernel {
    fn sample(&mut self, at: Duration) -> Result<Sample, SampleError> {
        self.opened(Duration::ZERO)?.sample(at)
    }

    fn next_after(&mut self, cpu: u32, pid: i32) -> Option<Current> {
        self.opened(Duration::ZERO).ok()?.next_after(cpu, pid)
    }
}

impl Inspector for LiveKernel {
    fn attach(&mut self, memory: Arc<dyn PhysicalMemory>) {
        let (sender, receiver) = mpsc::channel();
        let (vmlinux, index) = (self.vmlinux.clone(), self.index.clone());
        let search = move || {
            // Nobody listens any more once the machine is gone: then nothing is lost.
            let _ = sender.send(Opened::find(memory, vmlinux.as_deref(), index.as_ref()));
        };
        let thread = std::thread::Builder::new().name("ktstr-kernel".to_string()).spawn(search);
        self.kernel = match thread {
            Ok(_) => Slot::Opening(receiver),
            Err(e) => {
                let text = format!("starting the thread that looks for the kernel: {e}");
                Slot::Failed(SampleError::Broken(text))
            }
        };
    }

    fn wait_ready(&mut self, patience: Duration) -> Result<(), SampleError> {
        self.opened(patience).map(drop)
    }

    fn values(&mut self, paths: &[&str]) -> Result<Readings, SampleError> {
        let Opened { kernel, variables, .. } = self.opened(PATIENCE)?;
        Ok(expression::values(kernel, variables, paths))
    }

    fn locate(&mut self, path: &str) -> Result<Place, SampleError> {
        let Opened { kernel, variables, .. } = self.opened(PATIENCE)?;
        expression::locate(kernel, variables, path).map_err(|e| SampleError::Absent(e.to_string()))
    }

    fn state(&mut self, registers: &[VcpuRegisters]) -> Result<KernelState, SampleError> {
        let opened = self.opened(PATIENCE)?;
        let mut state = kernel_state(&opened.kernel, registers);
        state.problems.extend(opened.remarks.iter().cloned());
        Ok(state)
    }

    fn longest_wait(&mut self) -> Result<Option<LongestWait>, SampleError> {
        let kernel = &self.opened(Duration::ZERO)?.kernel;
        let found = kernel.scx_longest_wait().map_err(|e| sample_error(&e))?;
        found.map(|wait| longest_wait(kernel, &wait)).transpose().map_err(|e| sample_error(&e))
    }

    fn explain(&mut self, state: &mut KernelState) {
        let vmlinux = self.vmlinux.clone();
        // Of a kernel that was not found, the state says so.
        if let Ok(opened) = self.opened(Duration::ZERO) {
            explain(&opened.kernel, vmlinux.as_deref().filter(|_| opened.by_file), state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Noise;

    impl PhysicalMemory for Noise {
        fn read(&self, address: u64, buffer: &mut [u8]) -> bool {
            buffer
                .iter_mut()
                .zip(address..)
                .for_each(|(byte, at)| *byte = (at.wrapping_mul(0x9e37) >> 7) as u8);
            true
        }
        fn regions(&self) -> Vec<(u64, u64)> {
            vec![(0, 1 << 20)]
        }
    }

    #[test]
    fn before_a_machine_there_is_nothing_to_read() {
        let mut live = LiveKernel::new(None);
        assert_eq!(live.sample(Duration::ZERO), Err(SampleError::NotReady));
    }

    #[test]
    fn memory_without_a_kernel_is_an_explained_and_final_error() {
        let mut live = LiveKernel::new(Some("/no/such/vmlinux".into()));
        live.attach(Arc::new(Noise));
        let error = live.state(&[]).unwrap_err();
        assert!(!error.is_passing());
        let text = error.to_string();
        assert!(text.starts_with("finding the kernel in guest memory: no kallsyms"), "{text}");
        assert!(text.contains("/no/such/vmlinux was of no use"), "{text}");
        assert_eq!(live.sample(Duration::ZERO), Err(error));
    }
}
