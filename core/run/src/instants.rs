//! What is done at instants that the guest reaches itself, while it stands still there: in deterministic mode no
//! other instant may be looked at.

use crate::ports::HostClock;
use crate::watch::{PATIENCE, Watch};
use ktstr_machine::Vm;
use ktstr_monitor::{KernelState, Observer};
use std::time::Duration;

impl Watch<'_> {
    /// Samples the runqueues, as if the guest's `observer` that asks for it were not there. Where a task has waited for
    /// half of what the sched_ext watchdog allows, or a check that the test set is violated for the first time, the
    /// kernel is looked at as well.
    pub(crate) fn sample(
        &mut self,
        vm: &mut dyn Vm,
        at_ms: u64,
        observer: &Observer,
        clock: &dyn HostClock,
    ) -> Result<(), String> {
        if !self.own_instants {
            return Err("samples are taken by the host's clock here, not when the guest asks".to_string());
        }
        // How soon the kernel is found is the host's affair and must not show. Why it was not, the sample tells.
        let _ = self.inspector_of(vm)?.wait_ready(PATIENCE);
        let Some(inspector) = self.inspector.as_deref_mut() else { return Ok(()) };
        let at = Duration::from_millis(at_ms);
        let taken = self.monitor.take(inspector, at, observer, &|| clock.now());
        if let Some(when) = self.early_moment(taken) {
            self.early = self.standing(vm, &when);
        }
        if let Some(what) = self.monitor.alarm()
            && self.wrong.is_none()
        {
            self.wrong = self.standing(vm, &format!("+{at_ms} ms, when this had lasted long enough: {what}"));
        }
        Ok(())
    }

    /// What the kernel of a guest looks like that stands still at its bell.
    fn standing(&mut self, vm: &mut dyn Vm, when: &str) -> Option<KernelState> {
        let mut state = self.state(vm, true);
        state.iter_mut().for_each(idle_is_halted);
        self.dated(state, when)
    }
}

/// Marks as halted the vCPUs whose instruction pointers are in the kernel's idle loop while their CPUs run the idle
/// task: at a guest's bell its hypervisor does not tell.
pub(crate) fn idle_is_halted(state: &mut KernelState) {
    let KernelState { vcpus, runqueues, .. } = state;
    for vcpu in vcpus {
        let current = runqueues.iter().find(|rq| rq.cpu == vcpu.cpu).and_then(|rq| rq.current.as_ref());
        let place = vcpu.symbol.as_deref().unwrap_or_default();
        vcpu.halted |=
            current.is_some_and(|task| task.pid == 0) && ["idle", "halt"].iter().any(|s| place.contains(s));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ktstr_monitor::{RunqueueState, TaskState, VcpuState};

    #[test]
    fn a_vcpu_that_idles_is_halted_and_one_that_works_is_not() {
        let cases =
            [(0, "default_idle+0xf", true), (0, "schedule+0x10", false), (7, "default_idle+0xf", false)];
        for (pid, symbol, expected) in cases {
            let vcpu = VcpuState { symbol: Some(symbol.into()), ..VcpuState::default() };
            let current = Some(TaskState { pid, ..TaskState::default() });
            let rq = RunqueueState { current, ..RunqueueState::default() };
            let mut state = KernelState { vcpus: vec![vcpu], runqueues: vec![rq], ..KernelState::default() };
            idle_is_halted(&mut state);
            assert_eq!(state.vcpus[0].halted, expected, "{pid} at {symbol}");
        }
    }
}
