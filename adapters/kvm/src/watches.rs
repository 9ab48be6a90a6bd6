//! Watched memory: which watchpoint is what address, and which stops the owner still has to hear of.

use crate::queue::Queue;
use ktstr_machine::{MachineError, VmEvent};
use ktstr_vmm::{Access, Hit, WATCHES, Watch};
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// How long the guest that tries a watchpoint may take; milliseconds on an idle host.
const PATIENCE: Duration = Duration::from_secs(5);

/// The watchpoints of the machine whose events go through a queue.
pub(crate) struct Watches {
    queue: Arc<Queue>,
}

/// What there is to know of them; each queue has one.
#[derive(Default)]
pub(crate) struct State {
    points: Vec<Watch>,
    /// Addresses that were written when the machine stopped, and that the owner wasn't told of.
    owed: VecDeque<u64>,
    /// True from when an address is put into the queue until the owner takes it: the machine stands still.
    announced: bool,
}

impl Watches {
    /// Those of the machine with this queue.
    pub(crate) fn of(queue: &Arc<Queue>) -> Self {
        Self { queue: Arc::clone(queue) }
    }

    /// The watchpoints with one more.
    ///
    /// # Errors
    /// A size or place that no debug register takes, or a fifth.
    pub(crate) fn with(&self, address: u64, bytes: usize) -> Result<Vec<Watch>, MachineError> {
        let refused = |answer: String| MachineError::Refused { doing: doing(address, bytes), answer };
        if !matches!(bytes, 1 | 2 | 4 | 8) || !address.is_multiple_of(bytes as u64) {
            let answer =
                "expected 1, 2, 4 or 8 bytes at a multiple of as many: debug registers take no others";
            return Err(refused(answer.to_string()));
        }
        let mut points = self.lock().points.clone();
        let point = Watch { address, bytes: bytes as u8, access: Access::Write };
        if !points.contains(&point) {
            if points.len() == WATCHES {
                let others: Vec<_> = points.iter().map(|p| format!("{:#x}", p.address)).collect();
                return Err(refused(format!(
                    "all {WATCHES} debug registers are taken, by {}; watch fewer variables",
                    others.join(", ")
                )));
            }
            points.push(point);
        }
        Ok(points)
    }

    /// The watchpoints with one less.
    pub(crate) fn without(&self, address: u64, bytes: usize) -> Vec<Watch> {
        let mut points = self.lock().points.clone();
        points.retain(|p| (p.address, usize::from(p.bytes)) != (address, bytes));
        points
    }

    /// The machine has these now.
    pub(crate) fn set(&self, points: Vec<Watch>) {
        self.lock().points = points;
    }

    /// The machine stands still because of these hits.
    pub(crate) fn hit(&self, hits: &[Hit]) {
        let mut state = self.lock();
        // Several vCPUs may have hit the same.
        let addresses: BTreeSet<u64> =
            hits.iter().flat_map(|hit| hit.trap.hit).flatten().map(|point| point.address).collect();
        state.owed.extend(addresses);
        self.announce(&mut state);
    }

    /// The owner has taken a write out of the queue.
    pub(crate) fn heard(&self) {
        self.lock().announced = false;
    }

    /// True when the owner has been told of all writes, so that the machine may run on; otherwise it is told of the next.
    pub(crate) fn settled(&self) -> bool {
        let mut state = self.lock();
        self.announce(&mut state);
        !state.announced
    }

    fn announce(&self, state: &mut State) {
        if state.announced {
            return;
        }
        if let Some(address) = state.owed.pop_front() {
            state.announced = true;
            self.queue.push(VmEvent::Written { address });
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.queue.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses where a watchpoint would never be hit.
pub(crate) fn supported(address: u64, bytes: usize) -> Result<(), MachineError> {
    honoured().map_err(|why| MachineError::Refused {
        doing: doing(address, bytes),
        answer: format!("{why}; use --accel tcg"),
    })
}

/// Whether watchpoints are hit here, which a guest that is run once finds out; or why not.
pub(crate) fn honoured() -> Result<(), String> {
    static ANSWER: OnceLock<Result<bool, String>> = OnceLock::new();
    let answer = ANSWER.get_or_init(|| ktstr_vmm::honours_watches(PATIENCE).map_err(|e| e.to_string()));
    match answer {
        Ok(true) => Ok(()),
        Ok(false) => {
            Err("this host's KVM sets watchpoints that are never hit, as hosts do that are virtual machines \
                          themselves: a guest wrote to watched memory and ran on"
                .to_string())
        }
        Err(why) => Err(format!("whether this host's KVM honours watchpoints can't be told: {why}")),
    }
}

/// What a watch is called in messages.
pub(crate) fn doing(address: u64, bytes: usize) -> String {
    format!("watching {bytes} bytes at {address:#x} for writes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ktstr_vmm::Trap;

    fn watches(addresses: &[u64]) -> (Watches, Arc<Queue>) {
        let queue = Arc::new(Queue::default());
        let watches = Watches::of(&queue);
        for address in addresses {
            watches.set(watches.with(*address, 4).unwrap());
        }
        (watches, queue)
    }

    fn hit(vcpu: u32, addresses: &[u64]) -> Hit {
        let point = |address: &u64| Watch { address: *address, bytes: 4, access: Access::Write };
        let hit = std::array::from_fn(|slot| addresses.get(slot).map(point));
        Hit { vcpu, trap: Trap { ip: 0, hit } }
    }

    fn next(queue: &Queue) -> Option<VmEvent> {
        queue.pop(Duration::ZERO)
    }

    #[test]
    fn what_no_register_takes_is_refused_with_a_reason() {
        let (watches, _) = watches(&[0x1000, 0x1004, 0x1008, 0x100c]);
        let fifth = watches.with(0x1010, 4).unwrap_err().to_string();
        assert!(fifth.contains("0x1010") && fifth.contains("all 4") && fifth.contains("0x1008"), "{fifth}");
        assert_eq!(watches.with(0x1004, 4).unwrap().len(), 4, "the same again is no fifth");
        watches.set(watches.without(0x1004, 4));
        assert_eq!(watches.with(0x1010, 4).unwrap().len(), 4);
        for (address, bytes) in [(0x1001, 4), (0x1000, 3), (0x1000, 0), (0x1000, 16), (0x1004, 8)] {
            let why = watches.with(address, bytes).unwrap_err().to_string();
            assert!(why.contains("expected 1, 2, 4 or 8 bytes"), "{why}");
        }
    }

    #[test]
    fn several_writes_at_once_are_told_one_after_the_other_and_hold_the_machine() {
        let (watches, queue) = watches(&[0x1000, 0x2000, 0x3000]);
        assert!(watches.settled());
        watches.hit(&[hit(1, &[0x3000]), hit(0, &[0x1000, 0x3000])]);
        assert!(!watches.settled(), "the owner hasn't heard of it");
        assert_eq!(next(&queue), Some(VmEvent::Written { address: 0x1000 }));
        assert_eq!(next(&queue), None, "one at a time");
        watches.heard();
        assert!(!watches.settled(), "another is owed");
        assert_eq!(next(&queue), Some(VmEvent::Written { address: 0x3000 }));
        watches.heard();
        assert!(watches.settled());
        assert_eq!(next(&queue), None);
    }

    #[test]
    fn a_write_just_before_its_watch_ended_is_still_told() {
        let (watches, queue) = watches(&[0x1000, 0x2000]);
        // Its register is another's by now.
        watches.set(watches.without(0x1000, 4));
        watches.set(watches.with(0x3000, 4).unwrap());
        watches.hit(&[hit(0, &[0x1000])]);
        assert_eq!(next(&queue), Some(VmEvent::Written { address: 0x1000 }));
        watches.heard();
        assert!(watches.settled(), "and nothing else");
    }

    #[test]
    fn where_watchpoints_are_not_honoured_they_are_refused_with_a_way_out() {
        if let Err(e) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
            crate::skip::skip(
                "where_watchpoints_are_not_honoured_they_are_refused_with_a_way_out",
                &format!("opening /dev/kvm: {e}"),
            );
            return;
        }
        if let Err(e) = supported(0x1000, 4) {
            let e = e.to_string();
            assert!(e.contains("watching 4 bytes at 0x1000") && e.contains("--accel tcg"), "{e}");
        }
    }
}
