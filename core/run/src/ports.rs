//! What a run needs of the world besides a machine.

use crate::Sidecar;
use ktstr_monitor::FailureDump;
use std::path::PathBuf;
use std::time::Duration;

/// Host time.
#[cfg_attr(test, mockall::automock)]
pub trait HostClock {
    /// Monotonic time since some fixed instant.
    fn now(&self) -> Duration;
}

/// A result file that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("writing the result file {path}: {source}; {remedy}")]
pub struct SidecarError {
    /// The file.
    pub path: PathBuf,
    /// The system's answer.
    pub source: std::io::Error,
    /// What to do.
    pub remedy: String,
}

/// Keeps results.
#[cfg_attr(test, mockall::automock)]
pub trait SidecarStore {
    /// Writes a sidecar whole or not at all; returns its path.
    fn write(&self, sidecar: &Sidecar) -> Result<PathBuf, SidecarError>;

    /// Writes what the kernel looked like beside the sidecar, likewise.
    fn write_dump(&self, sidecar: &Sidecar, dump: &FailureDump) -> Result<PathBuf, SidecarError>;

    /// The same of a second run, with probes.
    fn write_repro_dump(&self, sidecar: &Sidecar, dump: &FailureDump) -> Result<PathBuf, SidecarError>;
}
