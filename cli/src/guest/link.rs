//! The guest's way to the host that watches it.

use ktstr_guest_init::{AskError, HostCalls};
use ktstr_scenario::ports::{HostError, HostLink, HostRequest};
use ktstr_wire::Call;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Asks the host over the machine's own channel.
pub(super) struct GuestLink {
    calls: Result<HostCalls, String>,
    begin: Instant,
    /// The end of the workload was told.
    ended: AtomicBool,
}

impl GuestLink {
    /// The test begins at `begin`.
    pub(super) fn new(calls: Result<HostCalls, String>, begin: Instant) -> Self {
        Self { calls, begin, ended: AtomicBool::new(false) }
    }

    /// Tells that the workload has ended, unless the scenario has.
    pub(super) fn workload_ends(&self, step: u16) {
        if !self.ended.load(Ordering::Relaxed) {
            // It only helps to explain a failure.
            let _ = self.ask(step, &HostRequest::WorkloadEnds);
        }
    }

    /// Since the test began.
    pub(super) fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    pub(super) fn call(&self, step: u16, call: Call) -> Result<u64, HostError> {
        self.calls()?.ask(self.elapsed(), step, call).map_err(broken)
    }

    /// Has the host look at the kernel before it hears that this test went wrong.
    pub(super) fn last_look(&self, step: u16, when: &str) {
        let call = Call::LastLook { when: when.to_string() };
        let asked =
            self.calls().and_then(|calls| calls.ask_unless_busy(self.elapsed(), step, call).map_err(broken));
        if let Err(e) = asked {
            eprintln!("ktstr: the kernel's state {when}: {e}");
        }
    }

    fn calls(&self) -> Result<&HostCalls, HostError> {
        self.calls.as_ref().map_err(|why| HostError::Broken(why.clone()))
    }
}

impl HostLink for GuestLink {
    fn ask(&self, step: u16, request: &HostRequest) -> Result<u64, HostError> {
        if *request == HostRequest::WorkloadEnds {
            self.ended.store(true, Ordering::Relaxed);
        }
        self.call(step, call(request))
    }
}

fn broken(error: AskError) -> HostError {
    match error {
        AskError::Refused(why) => HostError::Refused(why),
        AskError::Silent(after) => HostError::Silent(after),
        AskError::Broken(_) | AskError::Busy => HostError::Broken(error.to_string()),
    }
}

fn call(request: &HostRequest) -> Call {
    match request.clone() {
        HostRequest::Capture { name } => Call::Capture { name, periodic: false },
        HostRequest::ReadKernel { tag, path, frozen } => Call::ReadKernel { tag, path, frozen },
        HostRequest::WriteKernel { path, value, frozen } => Call::WriteKernel { path, value, frozen },
        HostRequest::Watch { symbol } => Call::Watch { symbol },
        HostRequest::KeepPids { tag, pids } => Call::KeepPids { tag, pids },
        HostRequest::WorkloadEnds => Call::WorkloadEnds,
    }
}
