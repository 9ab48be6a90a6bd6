//! What is noted of scripted machines.

use super::*;
use crate::ports::MockHostClock;
use ktstr_assert::AssertResult;
use ktstr_machine::{PhysicalMemory, VcpuRegisters};
use ktstr_wire::Encoder;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A machine that says what it was given to say; with nothing left it is silent.
struct Scripted {
    events: VecDeque<VmEvent>,
    now: Arc<AtomicU64>,
    killed: bool,
}

impl Vm for Scripted {
    fn next_event(&mut self, timeout: Duration) -> Result<Option<VmEvent>, MachineError> {
        self.now.fetch_add(timeout.as_millis() as u64, Ordering::SeqCst);
        Ok(self.events.pop_front())
    }
    fn kill(&mut self) -> Result<(), MachineError> {
        self.killed = true;
        Ok(())
    }
    fn pause(&mut self) -> Result<(), MachineError> {
        Ok(())
    }
    fn resume(&mut self) -> Result<(), MachineError> {
        Ok(())
    }
    fn registers(&mut self) -> Result<Vec<VcpuRegisters>, MachineError> {
        Ok(Vec::new())
    }
    fn dump(&mut self, _: &Path) -> Result<(), MachineError> {
        Ok(())
    }
    fn memory(&self) -> Arc<dyn PhysicalMemory> {
        unreachable!("drive reads no memory")
    }
    fn setup_time(&self) -> Option<Duration> {
        None
    }
}

const LIMITS: Limits =
    Limits { boot: Duration::from_secs(10), run: Duration::from_secs(30), power_off: Duration::from_secs(5) };

fn follow(events: Vec<VmEvent>) -> (Observation, bool) {
    let now = Arc::new(AtomicU64::new(0));
    let mut vm = Scripted { events: events.into(), now: Arc::clone(&now), killed: false };
    let mut clock = MockHostClock::new();
    clock.expect_now().returning(move || Duration::from_millis(now.load(Ordering::SeqCst)));
    let seen = drive(&mut vm, "build", &LIMITS, &clock).unwrap();
    (seen, vm.killed)
}

fn data(messages: &[Message]) -> VmEvent {
    let mut encoder = Encoder::new();
    let mut bytes = Vec::new();
    for message in messages {
        encoder.encode(message, &mut bytes).unwrap();
    }
    VmEvent::Data(bytes)
}

fn whole_run() -> Vec<Message> {
    let result = TestReturn::Judged(AssertResult::pass()).encode().unwrap();
    vec![
        Message::hello("build"),
        Message::Stage(Stage::TestStart),
        Message::Stage(Stage::TestEnd),
        Message::Result(result),
        Message::Goodbye,
    ]
}

#[test]
fn a_whole_run_is_noted() {
    let (seen, killed) = follow(vec![
        VmEvent::Console(b"hello\n".to_vec()),
        data(&whole_run()),
        VmEvent::Exited(VmExit::PowerOff),
    ]);
    assert_eq!(seen.returned, Some(TestReturn::Judged(AssertResult::pass())));
    assert_eq!(seen.console.last(1), ["hello"]);
    assert_eq!(seen.exit, Some(VmExit::PowerOff));
    assert!(seen.goodbye && seen.wire_error.is_none() && !killed);
    assert_eq!(seen.times.boot, Some(Duration::from_millis(400)));
}

#[test]
fn a_guest_that_never_greets_is_killed_at_the_boot_deadline() {
    let (seen, killed) = follow(Vec::new());
    assert_eq!(seen.deadline, Some(Deadline::Boot(LIMITS.boot)));
    assert!(killed);
}

#[test]
fn a_guest_that_falls_silent_is_killed_at_the_run_deadline() {
    let (seen, killed) = follow(vec![data(&whole_run()[..2])]);
    assert_eq!(seen.deadline, Some(Deadline::Run(LIMITS.run)));
    assert_eq!(seen.stage, Some(Stage::TestStart));
    assert!(killed);
}

#[test]
fn a_machine_that_outlives_its_goodbye_is_killed_and_its_result_kept() {
    let (seen, killed) = follow(vec![data(&whole_run())]);
    assert_eq!(seen.deadline, Some(Deadline::PowerOff(LIMITS.power_off)));
    assert!(seen.returned.is_some() && killed);
}

#[test]
fn noise_on_the_data_port_ends_the_run_with_the_offset() {
    let (seen, killed) = follow(vec![VmEvent::Data(vec![0xff; 64])]);
    assert!(seen.wire_error.as_deref().is_some_and(|e| e.contains("0")), "{:?}", seen.wire_error);
    assert!(killed);
}

#[test]
fn another_build_in_the_guest_is_refused() {
    let (seen, killed) = follow(vec![data(&[Message::hello("other")])]);
    assert!(seen.wire_error.unwrap().contains("\"other\""));
    assert!(killed);
}

#[test]
fn a_frame_cut_off_by_the_guests_death_is_noted() {
    let VmEvent::Data(mut bytes) = data(&whole_run()) else { unreachable!() };
    bytes.pop();
    let (seen, _) = follow(vec![VmEvent::Data(bytes), VmEvent::Exited(VmExit::Reset)]);
    assert!(seen.wire_error.is_some());
    assert!(!seen.goodbye);
}
