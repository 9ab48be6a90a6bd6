//! The loop that serves queues that the guest kicked, and ends the machine.

use crate::VmError;
use crate::bus::{Bus, Kick, VmEnd, lock};
use crate::config::OnTrap;
use crate::time::Time;
use event_manager::{EventManager, EventOps, Events, MutEventSubscriber, SubscriberOps};
use ktstr_vmm_vcpu::{Vcpu, pause_all, stop_all};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;

/// How long the end of a line may wait when nothing happens, in milliseconds.
const FLUSH_EVERY_MS: i32 = 50;
/// How long stopped vCPUs may take to leave the guest.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// How the machine ended, once everything was handed on.
#[derive(Default)]
pub(crate) struct Outcome {
    end: Mutex<Option<VmEnd>>,
    told: Condvar,
}

impl Outcome {
    pub(crate) fn wait(&self, patience: Duration) -> Option<VmEnd> {
        let deadline = Instant::now() + patience;
        let mut end = lock(&self.end);
        while end.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                break;
            }
            end = self.told.wait_timeout(end, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        end.clone()
    }

    fn tell(&self, end: VmEnd) {
        *lock(&self.end) = Some(end);
        self.told.notify_all();
    }
}

/// Everything that the loop's thread needs.
pub(crate) struct Service {
    pub(crate) bus: Arc<Bus>,
    /// A kick for each queue.
    pub(crate) kicks: Vec<Kick>,
    pub(crate) vcpus: Arc<[Vcpu]>,
    pub(crate) time: Arc<Time>,
    pub(crate) outcome: Arc<Outcome>,
    pub(crate) on_trap: OnTrap,
    pub(crate) on_end: Box<dyn FnOnce(VmEnd) + Send>,
}

impl Service {
    /// Serves until the machine is to end, then ends it.
    pub(crate) fn run(mut self, mut manager: EventManager<Subscriber>) {
        if let Err(why) = self.bus.enter_events() {
            self.bus.finish(VmEnd::Failed { why });
        }
        while self.bus.end().is_none() {
            match manager.run_with_timeout(FLUSH_EVERY_MS) {
                Ok(0) => self.bus.flush(),
                Ok(_) => {}
                Err(e) => self.bus.finish(VmEnd::Failed { why: format!("waiting for events: {e:?}") }),
            }
            self.stand_still();
            self.bus.check_thread();
        }
        if let Err(e) = stop_all(&self.vcpus, STOP_PATIENCE) {
            // The end that was asked for stays the end; this is told when it is all.
            self.bus.finish(VmEnd::Failed { why: e.to_string() });
        }
        // What was kicked before the end and not yet served.
        self.kicks.iter().for_each(|kick| self.bus.serve(kick));
        self.bus.flush();
        drop(manager);
        self.bus.check_thread();
        let end = self.bus.end().unwrap_or(VmEnd::Stopped);
        (self.on_end)(end.clone());
        self.outcome.tell(end);
    }

    /// Stops all vCPUs once one of them has hit a breakpoint or watchpoint, and tells of it. Whoever wants the machine
    /// to run on waits for the lock meanwhile.
    fn stand_still(&mut self) {
        let mut traps = self.bus.traps();
        if traps.is_empty() {
            return;
        }
        let paused = pause_all(&self.vcpus, STOP_PATIENCE).map_err(VmError::from);
        match paused.and_then(|()| self.time.stop(&self.vcpus)) {
            Ok(()) => (self.on_trap)(&traps),
            Err(e) => self.bus.finish(VmEnd::Failed { why: e.to_string() }),
        }
        traps.clear();
    }

    /// The event loop, told of all that it waits for.
    pub(crate) fn manager(&self) -> Result<EventManager<Subscriber>, String> {
        let mut manager = EventManager::new().map_err(|e| format!("{e:?}"))?;
        let clone = |fd: &EventFd| fd.try_clone().map_err(|e| format!("duplicating an eventfd: {e}"));
        let kick =
            |kick: &Kick| Ok(Kick { device: kick.device, queue: kick.queue, event: clone(&kick.event)? });
        let kicks = self.kicks.iter().map(kick).collect::<Result<_, String>>()?;
        let (trap, end) = (clone(&self.bus.trap_event)?, clone(&self.bus.end_event)?);
        manager.add_subscriber(Subscriber { bus: Arc::clone(&self.bus), kicks, trap, end });
        Ok(manager)
    }
}

/// What the loop calls.
pub(crate) struct Subscriber {
    bus: Arc<Bus>,
    kicks: Vec<Kick>,
    trap: EventFd,
    end: EventFd,
}

impl Subscriber {
    /// Number of the first event that is no queue's: a trap; the end follows.
    fn trap_data(&self) -> u32 {
        self.kicks.len() as u32
    }
}

impl MutEventSubscriber for Subscriber {
    fn process(&mut self, events: Events, _ops: &mut EventOps) {
        if let Some(kick) = self.kicks.get(events.data() as usize) {
            // Empty only if another wake-up took it, and then it is served already.
            if kick.event.read().is_ok() {
                self.bus.serve(kick);
            }
        } else if events.data() == self.trap_data() {
            // What was hit is looked up after this; the counter only wakes.
            let _ = self.trap.read();
        }
    }

    fn init(&mut self, ops: &mut EventOps) {
        let kicks = (0u32..).zip(self.kicks.iter().map(|kick| &kick.event));
        let all = kicks.chain([(self.trap_data(), &self.trap), (self.trap_data() + 1, &self.end)]);
        for (data, fd) in all {
            if let Err(e) = ops.add(Events::with_data(fd, data, EventSet::IN)) {
                self.bus.finish(VmEnd::Failed { why: format!("waiting for an eventfd: {e:?}") });
            }
        }
    }
}
