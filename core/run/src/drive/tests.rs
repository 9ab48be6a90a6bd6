//! What is noted of scripted machines.

use super::*;
use crate::ports::MockHostClock;
use ktstr_assert::AssertResult;
use ktstr_machine::{PhysicalMemory, VcpuRegisters};
use ktstr_monitor::{Inspector, Monitor, Sample, SampleError, Sampler};
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
    paused: Vec<bool>,
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
        self.paused.push(true);
        Ok(())
    }
    fn resume(&mut self) -> Result<(), MachineError> {
        self.paused.push(false);
        Ok(())
    }
    fn registers(&mut self) -> Result<Vec<VcpuRegisters>, MachineError> {
        Ok(Vec::new())
    }
    fn dump(&mut self, _: &Path) -> Result<(), MachineError> {
        Ok(())
    }
    fn memory(&self) -> Arc<dyn PhysicalMemory> {
        Arc::new(NoMemory)
    }
    fn setup_time(&self) -> Option<Duration> {
        None
    }
}

struct NoMemory;

impl PhysicalMemory for NoMemory {
    fn read(&self, _: u64, _: &mut [u8]) -> bool {
        false
    }
    fn regions(&self) -> Vec<(u64, u64)> {
        Vec::new()
    }
}

/// A kernel reader that notes what it was asked.
#[derive(Default)]
struct Eye {
    attached: usize,
    waited: usize,
    sampled: Vec<Duration>,
}

impl Sampler for Eye {
    fn sample(&mut self, at: Duration) -> Result<Sample, SampleError> {
        self.sampled.push(at);
        Ok(Sample { at, ..Sample::default() })
    }
}

impl Inspector for Eye {
    fn attach(&mut self, _: Arc<dyn PhysicalMemory>) {
        self.attached += 1;
    }
    fn wait_ready(&mut self, _: Duration) -> Result<(), SampleError> {
        self.waited += 1;
        Ok(())
    }
    fn state(&mut self, _: &[VcpuRegisters]) -> Result<KernelState, SampleError> {
        Err(SampleError::Broken("no kernel".into()))
    }
}

const LIMITS: Limits =
    Limits { boot: Duration::from_secs(10), run: Duration::from_secs(30), power_off: Duration::from_secs(5) };

fn follow(events: Vec<VmEvent>) -> (Observation, bool) {
    follow_with(events, Watch::blind("a test"))
}

fn follow_with(events: Vec<VmEvent>, watch: Watch<'_>) -> (Observation, bool) {
    let now = Arc::new(AtomicU64::new(0));
    let mut vm = Scripted { events: events.into(), now: Arc::clone(&now), killed: false, paused: Vec::new() };
    let mut clock = MockHostClock::new();
    clock.expect_now().returning(move || Duration::from_millis(now.load(Ordering::SeqCst)));
    let seen = drive(&mut vm, "build", &LIMITS, &clock, watch).unwrap();
    assert_eq!(vm.paused.first(), vm.paused.first().map(|_| &true));
    assert!(vm.killed || vm.paused.last() != Some(&true), "a machine was left paused");
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

#[test]
fn the_kernel_is_sampled_while_the_test_runs_and_dumped_when_it_hangs() {
    let mut eye = Eye::default();
    let watch = Watch::new(&mut eye, Monitor::every(Duration::from_secs(1)));
    let step = Message::Stimulus(Stimulus { label: "step 1".into(), ..Stimulus::default() });
    let mut messages = whole_run()[..2].to_vec();
    messages.push(step);
    let (seen, killed) = follow_with(vec![data(&messages)], watch);
    assert!(killed);
    assert_eq!(seen.monitor.marks[0].label, "step 1");
    assert_eq!(eye.attached, 1);
    assert_eq!(eye.sampled[..2], [Duration::ZERO, Duration::from_secs(1)]);
    assert!(eye.sampled.len() >= 30, "{:?}", eye.sampled);
    let state = seen.kernel_state.expect("a dump");
    assert_eq!(state.problems, ["the kernel's state: no kernel"]);
}

#[test]
fn a_monitor_that_is_off_leaves_a_healthy_machine_alone() {
    let mut eye = Eye::default();
    let mut events = vec![data(&whole_run())];
    events.push(VmEvent::Exited(VmExit::PowerOff));
    let (seen, _) = follow_with(events, Watch::new(&mut eye, Monitor::off("deterministic")));
    assert_eq!((eye.attached, eye.sampled.len()), (0, 0));
    assert_eq!(seen.monitor.unsampled.as_deref(), Some("deterministic"));
    assert!(seen.kernel_state.is_none());
}

#[test]
fn a_resumed_kernel_is_looked_for_once_and_before_the_guest_greets() {
    let mut eye = Eye::default();
    let on = || Monitor::every(Duration::from_secs(1));
    follow_with(vec![VmEvent::Exited(VmExit::Reset)], Watch::new(&mut eye, on()));
    assert_eq!(eye.attached, 0, "a kernel that boots is not there yet");
    follow_with(vec![VmEvent::Exited(VmExit::Reset)], Watch::new(&mut eye, on()).of_booted());
    assert_eq!(eye.attached, 1);
    let events = vec![data(&whole_run()), VmEvent::Exited(VmExit::PowerOff)];
    follow_with(events, Watch::new(&mut eye, on()).of_booted());
    assert_eq!(eye.attached, 2);
}

#[test]
fn a_test_whose_checks_need_the_kernel_waits_for_its_reader() {
    let run = |needs| {
        let mut eye = Eye::default();
        let watch = Watch::new(&mut eye, Monitor::every(Duration::from_secs(1)));
        let watch = if needs { watch.before_the_test() } else { watch };
        follow_with(vec![data(&whole_run()), VmEvent::Exited(VmExit::PowerOff)], watch);
        eye.waited
    };
    assert_eq!((run(false), run(true)), (0, 1));
}

#[test]
fn sampling_ends_with_the_test() {
    let mut eye = Eye::default();
    let watch = Watch::new(&mut eye, Monitor::every(Duration::from_millis(10)));
    let mut events = vec![data(&whole_run()[..2]), data(&[]), data(&[]), data(&whole_run()[2..])];
    events.push(VmEvent::Exited(VmExit::PowerOff));
    follow_with(events, watch);
    assert_eq!(eye.sampled.len(), 3, "{:?}", eye.sampled);
}
