//! Guest RAM in the memory of the process that runs the machine: a resumed machine's is a
//! private mapping, which no file shows (proc_pid_mem(5)).

use crate::running::LiveMemoryError;
use ktstr_introspect_memory::{MemoryFault, PhysAddr, PhysRange, PhysicalMemory};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A stretch of it.
#[derive(Debug)]
pub(crate) struct ProcessMemory {
    file: File,
    /// Address in that process.
    offset: u64,
    range: [PhysRange; 1],
}

impl ProcessMemory {
    /// True for files that have no length, as those that stand for a process's memory:
    /// they can be read and not mapped.
    pub(crate) fn is(path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|meta| meta.len() == 0)
    }

    pub(crate) fn open(path: &Path, offset: u64, range: PhysRange) -> Result<Self, LiveMemoryError> {
        let file = File::open(path).map_err(|source| LiveMemoryError::Process {
            path: path.to_path_buf(),
            hint: hint(&source),
            source,
        })?;
        Ok(Self { file, offset, range: [range] })
    }
}

/// Many distributions let only a process's parents read its memory.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "the machine was resumed, so its memory is its process's: be root, set kernel.yama.ptrace_scope=0, or \
             run the test with KTSTR_NO_TEMPLATE=1"
        }
        _ => "the machine may just have ended",
    }
}

impl PhysicalMemory for ProcessMemory {
    fn read(&self, at: PhysAddr, into: &mut [u8]) -> Result<(), MemoryFault> {
        let fault = MemoryFault { address: at, length: into.len() };
        let [range] = self.range;
        if range.remaining(at) < into.len() as u64 {
            return Err(fault);
        }
        let offset = at.0.checked_sub(range.start.0).and_then(|inside| self.offset.checked_add(inside));
        match offset.map(|offset| self.file.read_exact_at(into, offset)) {
            Some(Ok(())) => Ok(()),
            _ => Err(fault),
        }
    }

    fn ranges(&self) -> &[PhysRange] {
        &self.range
    }
}
