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

    /// What the kernel of a guest looks like that stands still at its bell, where its vCPUs can't be asked.
    fn standing(&mut self, vm: &mut dyn Vm, when: &str) -> Option<KernelState> {
        let state = self.state(vm, false);
        self.dated(state, when)
    }
}
