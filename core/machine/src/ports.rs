//! The hypervisor port.

use crate::{Accel, MachineError, MachineSpec, Missing, Pace, Wake};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How often a machine is started again when its hypervisor broke it ([`Hypervisor::loses_code_patches`]).
pub const MAX_RESTARTS: usize = 2;

/// Boots machines of one or several modes.
pub trait Hypervisor: Send + Sync {
    /// What it is called in messages, such as `QEMU 7.2.0`.
    fn describe(&self) -> Result<String, MachineError>;

    /// How fast it runs guest code of that mode on this host. A mode made for hardware is no
    /// faster than emulation where the host's own processor is emulated.
    fn pace(&self, accel: Accel) -> Pace {
        accel.pace()
    }

    /// What a machine of that mode must do without of [`Performance`](crate::Performance) on this host, on the
    /// hypervisor's part; `None` where it can't have any of it.
    fn performance(&self, accel: Accel) -> Option<Vec<Missing>> {
        let _ = accel;
        None
    }

    /// Starts a machine. Returns once it runs, not once it has booted.
    fn boot(&self, spec: &MachineSpec) -> Result<Box<dyn Vm>, MachineError>;

    /// True if a guest of that mode may die of the hypervisor's own fault on a breakpoint that
    /// its kernel has put into its code and taken out again.
    ///
    /// # Errors
    /// When its version can't be told.
    fn loses_code_patches(&self, accel: Accel) -> Result<bool, MachineError> {
        let _ = accel;
        Ok(false)
    }

    /// What of this hypervisor goes into a template of `spec`, kernel image and initial
    /// RAM disk aside: its version and settings, as text that is part of the key.
    ///
    /// `None` when it has no templates for that mode: boot instead.
    fn template_identity(&self, spec: &MachineSpec) -> Result<Option<String>, MachineError> {
        let _ = spec;
        Ok(None)
    }

    /// Boots a machine whose init waits in a [mailbox](crate::mailbox) of so many pages
    /// until it stops itself, and saves it in the empty directory `dir`.
    ///
    /// # Errors
    /// [`MachineError::NotReady`] when it ends, or `limit` passes, before it stops;
    /// [`MachineError::Killed`] when somebody else ends the hypervisor meanwhile.
    fn prepare(
        &self,
        spec: &MachineSpec,
        mailbox_pages: u64,
        dir: &Path,
        limit: Duration,
    ) -> Result<(), MachineError> {
        let _ = (mailbox_pages, dir, limit);
        Err(no_templates(spec))
    }

    /// Resumes a private copy of a saved machine. What `spec` calls its initial RAM disk
    /// is unpacked over the root file system that it was saved with; the rest of `spec`
    /// is as it was for [`prepare`](Self::prepare).
    fn resume(
        &self,
        template: &Template,
        spec: &MachineSpec,
        wake: &Wake,
    ) -> Result<Box<dyn Vm>, MachineError> {
        let _ = (template, wake);
        Err(no_templates(spec))
    }
}

fn no_templates(spec: &MachineSpec) -> MachineError {
    MachineError::Unsupported { accel: spec.accel, what: "no templates here; boot instead".to_string() }
}

/// A saved machine, as the hypervisor that saved it knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Hash over everything that went into it.
    pub key: String,
    /// Where it is kept.
    pub dir: std::path::PathBuf,
}

/// A running machine. Dropping it ends it, and nothing of it outlives the
/// process that booted it.
pub trait Vm: Send {
    /// The next thing that happened; `None` when nothing did for `timeout`.
    ///
    /// After [`VmEvent::Exited`] there are no more.
    fn next_event(&mut self, timeout: Duration) -> Result<Option<VmEvent>, MachineError>;

    /// Stops all vCPUs; guest time stands still in deterministic mode.
    fn pause(&mut self) -> Result<(), MachineError>;

    /// Lets them run again.
    fn resume(&mut self) -> Result<(), MachineError>;

    /// Registers of every vCPU: of a paused machine, of one that stands still at its bell (which
    /// vCPUs are halted is not known then), or as they were when the guest had its machine reset.
    ///
    /// # Errors
    /// [`MachineError::Gone`] when the machine has ended and they were not kept.
    fn registers(&mut self) -> Result<Vec<VcpuRegisters>, MachineError>;

    /// Writes an ELF core of guest-physical memory to a file.
    fn dump(&mut self, path: &Path) -> Result<(), MachineError>;

    /// CPU time that the host has given to each vCPU so far, by vCPU number; `None` where
    /// that can't be told.
    fn vcpu_times(&mut self) -> Option<Vec<Duration>> {
        None
    }

    /// The host's threads that run the vCPUs; `None` where vCPUs have none of their own, or they aren't known.
    fn vcpu_threads(&mut self) -> Option<VcpuThreads> {
        None
    }

    /// Waits until the guest stands still at an instant that it chose itself, by ringing its
    /// bell; true once it does, and then it stays so until [`let_go`](Self::let_go). False
    /// where guests have no bell, because stopping them at any instant changes nothing.
    ///
    /// # Errors
    /// When it does not ring within `patience`, or the machine is gone.
    fn await_bell(&mut self, patience: Duration) -> Result<bool, MachineError> {
        let _ = patience;
        Ok(false)
    }

    /// Lets a guest go on that stands still at its bell.
    fn let_go(&mut self) -> Result<(), MachineError> {
        Ok(())
    }

    /// Has the machine, which stands still now, stop after each write to `bytes` bytes at virtual
    /// address `address` ([`VmEvent::Written`]).
    ///
    /// # Errors
    /// [`MachineError::Refused`] where that can't be had.
    fn watch(&mut self, address: u64, bytes: usize) -> Result<(), MachineError> {
        Err(MachineError::Refused {
            doing: format!("watching {bytes} bytes at {address:#x} for writes"),
            answer: "this mode has no watched memory; use tcg".to_string(),
        })
    }

    /// Ends a watch; the machine stands still now.
    fn unwatch(&mut self, address: u64, bytes: usize) -> Result<(), MachineError> {
        let _ = (address, bytes);
        Ok(())
    }

    /// Writes to guest-physical memory while the guest may be running.
    ///
    /// # Errors
    /// When any of it lies outside RAM; then nothing was written.
    fn write_memory(&mut self, address: u64, bytes: &[u8]) -> Result<(), MachineError>;

    /// Where guest RAM lies in files that other processes of this user can open while the
    /// machine lives; none where there are no such files.
    fn ram_files(&self) -> Vec<RamFile> {
        Vec::new()
    }

    /// Guest RAM, as the host can read it while the guest runs.
    fn memory(&self) -> Arc<dyn PhysicalMemory>;

    /// Ends the machine at once.
    fn kill(&mut self) -> Result<(), MachineError>;

    /// Time from the start of the machine until the guest first ran code or the
    /// hypervisor was ready for it, where known.
    fn setup_time(&self) -> Option<Duration>;
}

/// The host's threads that run a machine's vCPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VcpuThreads {
    /// Their thread ids, by vCPU number.
    pub ids: Vec<u32>,
    /// Whether they run guest code on the host's CPUs as such, which a CPU can tell from the rest of what they do.
    pub guest_mode: bool,
}

/// A stretch of guest RAM in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RamFile {
    /// The file, as a path that holds while this process does (`/proc/…/fd/…`, or
    /// `/proc/…/mem`, which has no length and can't be mapped).
    pub path: std::path::PathBuf,
    /// Where the stretch begins in it, bytes.
    pub offset: u64,
    /// Guest-physical address of its first byte.
    pub start: u64,
    /// Its length, bytes.
    pub length: u64,
}

/// What a machine says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VmEvent {
    /// Bytes from the console.
    Console(Vec<u8>),
    /// Bytes from the data port.
    Data(Vec<u8>),
    /// Bytes that the guest's PID 1 wrote to standard output or error.
    Output(Vec<u8>),
    /// Bytes from the second serial port, where a guest says what it can say nowhere else.
    LastWords(Vec<u8>),
    /// The guest stopped the machine itself, at an instant of its own.
    Paused,
    /// The guest wrote to memory that is watched; the machine stands still.
    Written {
        /// The virtual address that was watched.
        address: u64,
    },
    /// It ended.
    Exited(VmExit),
}

impl VmEvent {
    /// What it takes of the room of a queue of events, bytes; what a guest can't flood the queue with takes none.
    #[must_use]
    pub fn room(&self) -> usize {
        match self {
            // However little a guest says at a time: each piece has its place in the queue and in the heap.
            Self::Console(bytes) | Self::Data(bytes) | Self::Output(bytes) | Self::LastWords(bytes) => {
                size_of::<Self>() + bytes.len()
            }
            Self::Paused | Self::Written { .. } | Self::Exited(_) => 0,
        }
    }
}

/// Why a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VmExit {
    /// The guest powered off.
    PowerOff,
    /// The guest asked for a reset; we boot without reboot, so this is a kernel
    /// panic or a `reboot` call.
    Reset,
    /// We ended it.
    Stopped,
    /// The hypervisor was killed by a signal.
    Killed {
        /// Signal number.
        signal: i32,
        /// The end of what it printed.
        stderr: String,
    },
    /// The hypervisor gave up.
    Failed {
        /// Its exit code.
        code: i32,
        /// The end of what it printed.
        stderr: String,
    },
}

/// Some registers of one vCPU.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VcpuRegisters {
    /// vCPU number.
    pub cpu: u32,
    /// Instruction pointer.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Page-table root (x86: CR3).
    pub page_table: u64,
    /// True when halted.
    pub halted: bool,
}

/// Guest-physical memory that can be read while the guest runs.
pub trait PhysicalMemory: Send + Sync {
    /// Fills `buffer` from guest-physical address `address`.
    ///
    /// False when any of it lies outside RAM; the buffer is then unspecified.
    fn read(&self, address: u64, buffer: &mut [u8]) -> bool;

    /// `(start, length)` of each RAM region in bytes, ascending.
    fn regions(&self) -> Vec<(u64, u64)>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_empty_lines_takes_room_and_the_end_of_a_machine_takes_none() {
        let lines = [VmEvent::Console, VmEvent::LastWords].map(|event| event(b"\n".to_vec()).room());
        assert!(lines.iter().all(|room| *room > size_of::<VmEvent>()), "{lines:?}");
        assert!(VmEvent::Data(vec![0; 4096]).room() > 4096);
        let failed = VmExit::Failed { code: 1, stderr: "x".repeat(100) };
        assert_eq!((VmEvent::Exited(failed).room(), VmEvent::Paused.room()), (0, 0));
    }
}
