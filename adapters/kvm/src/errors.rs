//! The monitor's errors in the port's words.

use ktstr_machine::{Accel, MachineError};
use ktstr_vmm::VmError;
use std::path::Path;

const REMEDY: &str =
    "name a bzImage, for instance with KTSTR_TEST_KERNEL, or build one: `cargo ktstr kernel build`";

/// A kernel that can't be used.
pub(crate) fn kernel(path: &Path, why: String) -> MachineError {
    MachineError::Kernel { path: path.to_path_buf(), why, remedy: REMEDY.to_string() }
}

/// A machine that could not be booted.
pub(crate) fn boot(path: &Path, error: VmError) -> MachineError {
    let unsupported = |what: String| MachineError::Unsupported { accel: Accel::Kvm, what };
    match error {
        VmError::Topology(e) => MachineError::Topology(e),
        VmError::Boot(e) => kernel(path, e.to_string()),
        VmError::Os { doing, source } => MachineError::os(doing)(source),
        VmError::Kvm { doing, source } => MachineError::Refused { doing, answer: source.to_string() },
        e @ VmError::NoKvm { .. } => unsupported(format!("{e}; or use --accel tcg")),
        e => unsupported(e.to_string()),
    }
}

/// A saved machine that could not be resumed: what is wrong with it is told apart from what
/// is wrong with the host, as it can be saved anew.
pub(crate) fn restore(dir: &Path, error: VmError) -> MachineError {
    match error {
        VmError::Saved { why, .. } => broken(dir, why),
        e @ (VmError::File { .. } | VmError::Memory(_) | VmError::Device(_) | VmError::Serial(_)) => {
            broken(dir, e.to_string())
        }
        VmError::Kvm { doing, source } => MachineError::Refused { doing, answer: source.to_string() },
        VmError::Os { doing, source } => MachineError::os(doing)(source),
        VmError::Topology(e) => MachineError::Topology(e),
        e => MachineError::Unsupported { accel: Accel::Kvm, what: e.to_string() },
    }
}

/// A saved machine that is not as it should be.
pub(crate) fn broken(dir: &Path, why: String) -> MachineError {
    MachineError::Template { dir: dir.to_path_buf(), why }
}

/// A running machine that could not be asked.
pub(crate) fn ask(doing: &str, error: &VmError) -> MachineError {
    MachineError::Refused { doing: doing.to_string(), answer: error.to_string() }
}
