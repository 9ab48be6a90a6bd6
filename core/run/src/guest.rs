//! What the host tells the guest, and what the guest returns.

use ktstr_assert::{AssertResult, ScenarioStats};
use ktstr_scheduler::{SchedulerPlan, SchedulerReport};
use serde::{Deserialize, Serialize};

/// A payload between host and guest that makes no sense: they are of different
/// builds, or the bytes were damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("reading {what}: {why}; host and guest must be the same test binary")]
pub struct PayloadError {
    what: &'static str,
    why: String,
}

/// What the guest is to do. Everything else is in the binary, which is the same on
/// both sides.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GuestPlan {
    /// The test to run.
    pub test: String,
    /// Module path of the test, since names may repeat.
    pub module: String,
    /// What the guest greets with: it proves that the plan arrived.
    pub build_id: String,
    /// Decides everything random.
    pub seed: u64,
    /// True when vCPUs compete for the host's cores at the emulator's pace, so that the
    /// default limits made for hardware are too tight.
    pub emulated: bool,
    /// Replaces the test's duration, ms.
    pub duration_ms: Option<u64>,
    /// Report claims that hold, too.
    pub log_passes: bool,
    /// Replaces the work type of swappable cgroups, by name.
    pub work_type: Option<String>,
    /// Environment of the test.
    pub env: Vec<(String, String)>,
    /// True if the host waits for the bell after each request.
    pub bell: bool,
    /// How far apart the monitor's samples are that the guest asks for, ms; `None` where it
    /// asks for none.
    pub sample_period_ms: Option<u64>,
    /// True if a failure should carry the kernel log.
    pub want_kernel_log: bool,
    /// The test's scheduler, attached before the test, then those that lie ready. Empty under
    /// the kernel's own.
    pub schedulers: Vec<SchedulerPlan>,
    /// Kernel functions to probe while a scheduler runs; none unless a crash is repeated.
    pub probes: Vec<String>,
    /// The numbers of the same test under the kernel's own scheduler.
    pub baseline: Option<ScenarioStats>,
    /// Where in the cgroup tree the test's cgroups are made, without slashes at the ends.
    pub cgroup_parent: String,
}

/// How the test function ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum TestReturn {
    /// With a verdict.
    Judged(AssertResult),
    /// With an error; the text holds its causes.
    Error(String),
    /// With a panic; the text is its message.
    Panicked(String),
}

impl GuestPlan {
    /// Where the host puts it in the guest; together with being PID 1 it tells the guest.
    pub const PATH: &'static str = "/ktstr/plan";
    /// The cgroup that a test makes its own in, where its scheduler names no other; the
    /// boot init of a saved machine has made it.
    pub const CGROUP_PARENT: &'static str = "ktstr";

    /// As bytes for the guest.
    pub fn encode(&self) -> Result<Vec<u8>, PayloadError> {
        encode("the plan of a test", self)
    }

    /// From the host's bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
        decode("the plan of a test", bytes)
    }
}

impl TestReturn {
    /// As bytes for the host.
    pub fn encode(&self) -> Result<Vec<u8>, PayloadError> {
        encode("the result of a test", self)
    }

    /// From the guest's bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
        decode("the result of a test", bytes)
    }
}

/// What became of the schedulers, as bytes for the host.
pub fn encode_reports(reports: &[SchedulerReport]) -> Result<Vec<u8>, PayloadError> {
    encode("the reports on schedulers", &reports)
}

/// What became of the schedulers, from the guest's bytes.
pub fn decode_reports(bytes: &[u8]) -> Result<Vec<SchedulerReport>, PayloadError> {
    decode("the reports on schedulers", bytes)
}

fn encode<T: Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>, PayloadError> {
    postcard::to_allocvec(value).map_err(|e| PayloadError { what, why: e.to_string() })
}

fn decode<T: for<'a> Deserialize<'a>>(what: &'static str, bytes: &[u8]) -> Result<T, PayloadError> {
    let bad = |why: String| PayloadError { what, why };
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(bad(format!("{} bytes are left over", rest.len()))),
        Err(e) => Err(bad(e.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_result_survives_the_way_home() {
        for result in [
            TestReturn::Judged(AssertResult::fail("stuck 3500ms on cpu1 at +1200ms")),
            TestReturn::Error("a: b".to_string()),
            TestReturn::Panicked("no".to_string()),
        ] {
            assert_eq!(TestReturn::decode(&result.encode().unwrap()).unwrap(), result);
        }
    }

    #[test]
    fn bytes_of_another_build_are_an_error() {
        let mut bytes = GuestPlan { test: "t".to_string(), ..GuestPlan::default() }.encode().unwrap();
        bytes.push(0);
        assert!(GuestPlan::decode(&bytes).unwrap_err().to_string().contains("1 bytes are left over"));
    }

    proptest! {
        #[test]
        fn no_bytes_can_upset_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = TestReturn::decode(&bytes);
            let _ = GuestPlan::decode(&bytes);
            let _ = decode_reports(&bytes);
        }
    }
}
