//! What a run leaves for programs: one JSON file a variant.

use ktstr_assert::AssertResult;
use ktstr_monitor::{MonitorSummary, Snapshot};
use ktstr_scheduler::SchedulerReport;
use serde::{Deserialize, Serialize};

/// Version of the file's layout; raised when a field changes its meaning.
pub const SIDECAR_SCHEMA: u32 = 1;

/// One run of one variant.
///
/// Everything in it but `host` is the same, byte for byte, for every run of the
/// same (test, kernel, machine, seed) in deterministic mode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sidecar {
    /// [`SIDECAR_SCHEMA`].
    pub schema: u32,
    /// The test.
    pub test_name: String,
    /// Its module path.
    pub module: String,
    /// Machine label, such as `1n1l2c1t`.
    pub topology: String,
    /// RAM, MiB.
    pub memory_mib: u64,
    /// `kvm`, `tcg`, `deterministic` or `host`.
    pub accel: String,
    /// Hypervisor and version.
    pub hypervisor: String,
    /// `booted`, or `resumed` from a saved machine.
    #[serde(default)]
    pub start: String,
    /// What everything random was derived from.
    pub seed: u64,
    /// Kernel release, as far as it is known.
    pub kernel_version: String,
    /// Where the kernel came from (cache key or path).
    pub kernel: String,
    /// CRC-32 of the kernel image.
    pub kernel_crc: String,
    /// The scheduler; `eevdf` is the kernel's own.
    pub scheduler: String,
    /// What became of the schedulers, one entry a start.
    #[serde(default)]
    pub schedulers: Vec<SchedulerReport>,
    /// Commit of the project under test, 7 hex digits, `-dirty` if modified.
    pub project_commit: String,
    /// The verdict: `passed`, `failed`, `inconclusive` or `skipped`.
    pub outcome: String,
    /// Shorthands of the verdict.
    pub passed: bool,
    /// As above.
    pub skipped: bool,
    /// As above.
    pub inconclusive: bool,
    /// True for a test declared with `expect_err`.
    pub expected_failure: bool,
    /// Details, notes and statistics.
    pub result: AssertResult,
    /// What the scenario did: ms of guest time, text.
    pub stimulus_events: Vec<(u64, String)>,
    /// Hashes (FNV-1a, 16 hex digits) over all bytes of the console, of the test's output
    /// and of the kernel log where the guest sent it: two runs of the deterministic mode
    /// have the same.
    pub console_hash: String,
    /// As above.
    pub output_hash: String,
    /// As above.
    pub kernel_log_hash: String,
    /// vCPUs.
    pub vcpus: u32,
    /// What the monitor saw of the kernel's state; without what that cost the host in
    /// deterministic mode.
    #[serde(default)]
    pub monitor: Option<MonitorSummary>,
    /// What was captured at the test's request.
    #[serde(default)]
    pub snapshots: Vec<Snapshot>,
    /// What differs from run to run by nature.
    pub host: SidecarTimes,
}

/// Host times of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SidecarTimes {
    /// When the run ended, ms since the Unix epoch.
    pub finished_unix_ms: u64,
    /// Start of the machine to the guest's greeting, ms.
    pub boot_ms: Option<u64>,
    /// Start of the machine to the test's first line, ms.
    pub to_test_ms: Option<u64>,
    /// When the test's first line ran, microseconds since the Unix epoch; whoever started
    /// this process can tell from it what all that came before the machine took.
    #[serde(default)]
    pub test_unix_us: Option<u64>,
    /// The test function, ms of host time.
    pub test_ms: Option<u64>,
    /// What half of the monitor's samples took at most, microseconds; absent without any.
    #[serde(default)]
    pub sample_us: Option<f64>,
    /// Start to end of the machine, ms.
    pub total_ms: u64,
}
