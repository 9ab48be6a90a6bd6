//! What is noted of scripted machines.

use super::*;
use crate::ports::MockHostClock;
use ktstr_assert::AssertResult;
use ktstr_machine::{PhysicalMemory, VcpuRegisters};
use ktstr_monitor::{
    CgroupState, Inspector, LongestWait, Monitor, Place, Readings, Sample, SampleError, Sampler, Value,
};
use ktstr_wire::{ANSWER_BODY_AT, ANSWER_LEN, Answer, Call, Encoder, Request};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// A machine that says what it was given to say; with nothing left it is silent.
struct Scripted {
    events: VecDeque<VmEvent>,
    now: Arc<AtomicU64>,
    killed: bool,
    paused: Vec<bool>,
    bell: bool,
    written: Written,
    registers: Vec<VcpuRegisters>,
    /// How long a stop takes that is not done in time; `None` where all are.
    stuck_for: Option<u64>,
}

/// What was written, where, and whether the machine stood still.
type Written = Arc<Mutex<Vec<(u64, Vec<u8>, bool)>>>;

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
        let Some(ms) = self.stuck_for else { return Ok(()) };
        self.now.fetch_add(ms, Ordering::SeqCst);
        Err(MachineError::NoAnswer { doing: "stop".into(), after: Duration::from_millis(ms) })
    }
    fn resume(&mut self) -> Result<(), MachineError> {
        self.paused.push(false);
        Ok(())
    }
    fn registers(&mut self) -> Result<Vec<VcpuRegisters>, MachineError> {
        Ok(self.registers.clone())
    }
    fn dump(&mut self, _: &Path) -> Result<(), MachineError> {
        Ok(())
    }
    fn memory(&self) -> Arc<dyn PhysicalMemory> {
        Arc::new(NoMemory)
    }
    fn await_bell(&mut self, _: Duration) -> Result<bool, MachineError> {
        self.paused.extend(self.bell.then_some(true));
        Ok(self.bell)
    }
    fn let_go(&mut self) -> Result<(), MachineError> {
        self.paused.extend(self.bell.then_some(false));
        Ok(())
    }
    fn write_memory(&mut self, address: u64, bytes: &[u8]) -> Result<(), MachineError> {
        self.written.lock().unwrap().push((address, bytes.to_vec(), self.paused.last() == Some(&true)));
        Ok(())
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
    explained: usize,
    frozen: bool,
    registers: usize,
    looks: usize,
    wait: Option<LongestWait>,
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
    fn state(&mut self, registers: &[VcpuRegisters]) -> Result<KernelState, SampleError> {
        self.registers = registers.len();
        self.looks += 1;
        if !self.frozen {
            return Err(SampleError::Broken("no kernel".into()));
        }
        let cgroup = CgroupState {
            path: "/a".into(),
            frozen: true,
            tasks: vec![(7, "t".into())],
            ..Default::default()
        };
        Ok(KernelState { cgroups: vec![cgroup], ..KernelState::default() })
    }
    fn longest_wait(&mut self) -> Result<Option<LongestWait>, SampleError> {
        Ok(self.wait.clone())
    }
    fn explain(&mut self, _: &mut KernelState) {
        self.explained += 1;
    }
    fn values(&mut self, paths: &[&str]) -> Result<Readings, SampleError> {
        let value = |path: &str| match path {
            "jiffies" => Ok(Value::Unsigned(42)),
            _ => Err(format!("no {path} here")),
        };
        Ok(paths.iter().map(|path| ((*path).to_string(), value(path))).collect())
    }
    fn locate(&mut self, path: &str) -> Result<Place, SampleError> {
        match path {
            "knob" => Ok(Place { physical: 0x5000, address: 0xffff_0000, bytes: 4 }),
            _ => Err(SampleError::Absent(format!("no {path} here"))),
        }
    }
}

const LIMITS: Limits =
    Limits { boot: Duration::from_secs(10), run: Duration::from_secs(30), power_off: Duration::from_secs(5) };

fn follow(events: Vec<VmEvent>) -> (Observation, bool) {
    follow_with(events, Watch::blind("a test"))
}

fn follow_with(events: Vec<VmEvent>, watch: Watch<'_>) -> (Observation, bool) {
    let (seen, killed, _) = follow_all(events, watch, false);
    (seen, killed)
}

fn follow_all(events: Vec<VmEvent>, watch: Watch<'_>, bell: bool) -> (Observation, bool, Written) {
    follow_at(events, watch, bell, Vec::new())
}

/// No stop of the machine is done in time: each takes so many milliseconds.
fn follow_stuck(events: Vec<VmEvent>, watch: Watch<'_>, ms: u64) -> (Observation, bool, Written) {
    let machine = |vm: &mut Scripted| vm.stuck_for = Some(ms);
    follow_machine(events, watch, machine)
}

/// The machine's vCPUs are always at `registers`.
fn follow_at(
    events: Vec<VmEvent>,
    watch: Watch<'_>,
    bell: bool,
    registers: Vec<VcpuRegisters>,
) -> (Observation, bool, Written) {
    follow_machine(events, watch, |vm| (vm.bell, vm.registers) = (bell, registers))
}

fn follow_machine(
    events: Vec<VmEvent>,
    watch: Watch<'_>,
    machine: impl FnOnce(&mut Scripted),
) -> (Observation, bool, Written) {
    let written = Written::default();
    let now = Arc::new(AtomicU64::new(0));
    let mut vm = Scripted {
        events: events.into(),
        now: Arc::clone(&now),
        killed: false,
        paused: Vec::new(),
        bell: false,
        written: written.clone(),
        registers: Vec::new(),
        stuck_for: None,
    };
    machine(&mut vm);
    let mut clock = MockHostClock::new();
    clock.expect_now().returning(move || Duration::from_millis(now.load(Ordering::SeqCst)));
    let seen = drive(&mut vm, "build", &LIMITS, &clock, watch).unwrap();
    assert_eq!(vm.paused.first(), vm.paused.first().map(|_| &true));
    assert!(vm.killed || vm.paused.last() != Some(&true), "a machine was left paused");
    (seen, vm.killed, written)
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
fn a_monitor_that_is_off_takes_no_sample() {
    let mut eye = Eye::default();
    let mut events = vec![data(&whole_run())];
    events.push(VmEvent::Exited(VmExit::PowerOff));
    let (seen, _) = follow_with(events, Watch::new(&mut eye, Monitor::off("deterministic")));
    assert_eq!((eye.attached, eye.sampled.len()), (1, 0));
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

fn asks(call: Call) -> VmEvent {
    let request = Request { id: 3, answer_at: 0x1000, elapsed_ms: 250, step: 2, call };
    data(&[Message::hello("build"), Message::Request(request)])
}

/// The answer that the guest would find in its page.
fn answer(written: &Written) -> Answer {
    let mut page = [0; ANSWER_LEN];
    let written = written.lock().unwrap();
    for (at, bytes, _) in written.iter().filter(|(at, ..)| (0x1000..0x2000).contains(at)) {
        let at = (at - 0x1000) as usize;
        page[at..at + bytes.len()].copy_from_slice(bytes);
    }
    let last = written.last().expect("an answer");
    assert_eq!(last.0, 0x1000, "the id comes last, after {ANSWER_BODY_AT} bytes and on");
    Answer::find(&page, 3).expect("an answer to this request")
}

fn asked(call: Call, bell: bool) -> (Observation, Answer, bool) {
    let mut eye = Eye { frozen: true, ..Eye::default() };
    let watch = Watch::new(&mut eye, Monitor::off("a test")).with_paths(&["jiffies", "gone"]);
    let events = vec![asks(call), VmEvent::Exited(VmExit::PowerOff)];
    let (seen, _, written) = follow_all(events, watch, bell);
    let still = written.lock().unwrap().iter().all(|(_, _, still)| *still);
    (seen, answer(&written), still)
}

#[test]
fn a_capture_holds_the_paths_and_the_guests_time() {
    for bell in [false, true] {
        let (seen, answer, still) = asked(Call::Capture { name: "mid".into(), periodic: false }, bell);
        assert_eq!(answer, Answer(Ok(0)));
        assert!(still, "the guest is answered while it stands still");
        let snapshot = seen.snapshots.get("mid").expect("it was kept");
        assert_eq!((snapshot.at_ms, snapshot.step), (250, 2));
        assert_eq!(snapshot.get("jiffies"), Ok(&Value::Unsigned(42)));
        assert!(snapshot.get("gone").unwrap_err().to_string().contains("no gone here"));
        assert_eq!(snapshot.sample.as_ref().map(|s| s.at), Some(Duration::from_millis(250)));
    }
}

#[test]
fn memory_is_read_and_written_hot_and_cold() {
    let read = |path: &str, frozen| Call::ReadKernel { tag: "t".into(), path: path.into(), frozen };
    let (seen, answer, still) = asked(read("jiffies", false), false);
    assert_eq!((answer, still), (Answer(Ok(42)), false));
    assert_eq!(seen.snapshots.get("t").unwrap().get("jiffies"), Ok(&Value::Unsigned(42)));
    let (_, answer, still) = asked(read("gone", true), false);
    assert_eq!((answer, still), (Answer(Err("no gone here".into())), true));
    let write = |path: &str, value| Call::WriteKernel { path: path.into(), value, frozen: true };
    assert_eq!(asked(write("knob", 7), false).1, Answer(Ok(0)));
    assert_eq!(asked(write("knob", -1i64 as u64), false).1, Answer(Ok(0)));
    let Answer(refused) = asked(write("knob", 1 << 40), false).1;
    assert!(refused.unwrap_err().contains("does not fit knob, which has 4 bytes"));
    assert!(asked(write("gone", 1), false).1.0.is_err());
    let Answer(refused) = asked(read(&"x".repeat(300), true), false).1;
    assert_eq!(refused, Err("a name or path has 300 bytes: expected at most 256".into()));
}

#[test]
fn what_is_frozen_when_the_workload_ends_is_told() {
    let (seen, answer, _) = asked(Call::WorkloadEnds, true);
    assert_eq!(answer, Answer(Ok(0)));
    assert_eq!(seen.monitor.left_frozen[0].path, "/a");
    assert!(seen.kernel_state.is_some_and(|s| s.moment.starts_with("+250 ms, at the end of the workload")));
}

#[test]
fn a_panic_is_looked_at_while_the_machine_stands_still_but_not_at_the_hosts_instant() {
    let panic = Message::Panic { message: "no".into(), location: None, backtrace: String::new() };
    let events = || vec![data(&[Message::hello("build"), panic.clone()]), VmEvent::Exited(VmExit::PowerOff)];
    let mut eye = Eye { frozen: true, ..Eye::default() };
    let (seen, _) = follow_with(events(), Watch::new(&mut eye, Monitor::off("a test")));
    assert!(seen.kernel_state.is_some_and(|s| s.moment.contains("when the test panicked")));
    assert_eq!(eye.explained, 1);
    let watch = Watch::new(&mut eye, Monitor::off("a test")).at_the_guests_instants();
    assert_eq!(follow_with(events(), watch).0.kernel_state, None);
}

#[test]
fn a_guest_that_chooses_its_instants_has_its_host_look_before_it_tells() {
    let (seen, answer, still) = asked(Call::LastLook { when: "when it fell".into() }, true);
    assert_eq!((answer, still), (Answer(Ok(0)), true));
    assert!(seen.kernel_state.is_some_and(|s| s.moment == "+250 ms, when it fell:"));
}

/// The look is taken once, and kept where nothing later is.
#[test]
fn a_task_that_waits_too_long_is_looked_at_before_the_watchdog_acts() {
    let wait = |waited| LongestWait { cpu: 1, pid: 7, comm: "stuck".into(), waited, limit: 1000 };
    for (waited, early) in [(499, false), (500, true)] {
        let mut eye = Eye { frozen: true, wait: Some(wait(waited)), ..Eye::default() };
        let events = vec![
            data(&[Message::hello("build"), Message::Stage(Stage::TestStart)]),
            VmEvent::Console(Vec::new()),
            VmEvent::Console(Vec::new()),
            VmEvent::Exited(VmExit::Reset),
        ];
        let (seen, _) = follow_with(events, Watch::new(&mut eye, Monitor::every(Duration::from_millis(100))));
        let early_moment = seen.early_state.map(|s| s.moment);
        let says = "early, when stuck (pid 7) on cpu1 had been runnable for 500 of the 1000 jiffies";
        assert_eq!(early_moment.is_some_and(|m| m.starts_with(says)), early);
        assert!(seen.kernel_state.is_some_and(|s| s.moment.starts_with("after the machine's end")));
        assert_eq!(eye.looks, 1 + usize::from(early));
    }
}

#[test]
fn a_kernel_that_died_is_looked_at_afterwards() {
    let mut eye = Eye { frozen: true, ..Eye::default() };
    let events = vec![data(&[Message::hello("build")]), VmEvent::Exited(VmExit::Reset)];
    let (seen, _) = follow_with(events.clone(), Watch::new(&mut eye, Monitor::off("a test")));
    assert!(seen.kernel_state.is_some_and(|s| s.moment.contains("after the machine's end")));
    assert_eq!(eye.registers, 0);
    let last = vec![VcpuRegisters { ip: 7, ..VcpuRegisters::default() }];
    let (seen, ..) = follow_at(events, Watch::new(&mut eye, Monitor::off("a test")), false, last);
    let state = seen.kernel_state.unwrap();
    assert!(state.moment.contains("had its machine reset") && state.problems.is_empty(), "{state:?}");
    assert_eq!(eye.registers, 1);
}

/// An event a message.
fn each(messages: &[Message]) -> Vec<VmEvent> {
    let mut encoder = Encoder::new();
    let event = |message: &Message| {
        let mut bytes = Vec::new();
        encoder.encode(message, &mut bytes).unwrap();
        VmEvent::Data(bytes)
    };
    messages.iter().map(event).collect()
}

fn request(id: u64, call: Call) -> Message {
    Message::Request(Request { id, answer_at: 0x4000, elapsed_ms: 100 * id, step: 1, call })
}

/// All answers that were written, in order.
fn answers(written: &Written) -> Vec<Answer> {
    let written = written.lock().unwrap();
    let bodies = written.iter().filter(|(at, ..)| *at == 0x4000 + ANSWER_BODY_AT as u64);
    let answer = |(_, body, _): &(u64, Vec<u8>, bool)| {
        let mut page = [0; ANSWER_LEN];
        page[ANSWER_BODY_AT..ANSWER_BODY_AT + body.len()].copy_from_slice(body);
        page[0] = 1;
        Answer::find(&page, 1).unwrap()
    };
    bodies.map(answer).collect()
}

fn sample(id: u64) -> Message {
    request(id, Call::Sample { tid: 9, switches: id })
}

/// Nothing of what is noted comes from the host's clock.
#[test]
fn a_guest_that_chooses_the_instants_is_sampled_when_it_asks() {
    let mut eye = Eye::default();
    let watch = Watch::new(&mut eye, Monitor::when_asked()).at_the_guests_instants().before_the_test();
    let mut messages = whole_run()[..2].to_vec();
    let step = Stimulus { label: "step 1".into(), since_test_ms: 150, elapsed_ms: 30, ..Stimulus::default() };
    messages.extend([sample(1), Message::Stimulus(step), sample(2)]);
    messages.extend_from_slice(&whole_run()[2..]);
    let mut events = each(&messages);
    events.push(VmEvent::Exited(VmExit::PowerOff));
    let (seen, _, written) = follow_all(events, watch, true);
    let ms = Duration::from_millis;
    assert_eq!(eye.sampled, [ms(100), ms(200)]);
    assert_eq!(seen.monitor.samples.iter().map(|s| s.at).collect::<Vec<_>>(), eye.sampled);
    assert_eq!((seen.monitor.marks[0].at, seen.monitor.marks[0].guest_ms), (ms(150), 30));
    assert_eq!(answers(&written), [Answer(Ok(0)), Answer(Ok(0))]);
    assert!(written.lock().unwrap().iter().all(|(.., still)| *still), "the guest stands at its bell");
    assert!(eye.waited >= 2, "whether the kernel was found already must not show");
}

#[test]
fn a_task_that_waits_too_long_is_looked_at_when_a_sample_is_asked_for() {
    let wait = LongestWait { cpu: 1, pid: 7, comm: "stuck".into(), waited: 500, limit: 1000 };
    let mut eye = Eye { frozen: true, wait: Some(wait), ..Eye::default() };
    let watch = Watch::new(&mut eye, Monitor::when_asked()).at_the_guests_instants();
    let mut messages = whole_run()[..2].to_vec();
    messages.extend([sample(1), sample(2)]);
    let (seen, ..) = follow_all(vec![data(&messages), VmEvent::Exited(VmExit::PowerOff)], watch, true);
    // Nothing later was looked at, so it is all there is.
    assert!(seen.kernel_state.is_some_and(|s| s.moment.starts_with("early, when stuck (pid 7) on cpu1")));
    assert_eq!(eye.looks, 1, "once");
}

#[test]
fn a_monitor_of_the_hosts_clock_takes_no_sample_for_the_guest() {
    let mut eye = Eye::default();
    let events = vec![data(&[Message::hello("build"), sample(1)]), VmEvent::Exited(VmExit::PowerOff)];
    let watch = Watch::new(&mut eye, Monitor::every(Duration::from_secs(1)));
    let (_, _, written) = follow_all(events, watch, false);
    let [Answer(Err(why))] = &answers(&written)[..] else { panic!("refused") };
    assert!(why.starts_with("samples are taken by the host's clock here"), "{why}");
    assert!(eye.sampled.is_empty());
}

/// The run goes on, what could not be done is told, and the time that it took is not the guest's.
#[test]
fn a_machine_that_is_not_stopped_in_time_costs_the_request_and_not_the_run() {
    let capture = |id| request(id, Call::Capture { name: "p".into(), periodic: true });
    let mut messages = whole_run()[..2].to_vec();
    messages.extend([capture(1), capture(2), capture(3)]);
    messages.extend_from_slice(&whole_run()[2..]);
    let mut eye = Eye::default();
    let watch = Watch::new(&mut eye, Monitor::off("a test"));
    let mut events = each(&messages);
    events.push(VmEvent::Exited(VmExit::PowerOff));
    let (seen, killed, written) = follow_stuck(events, watch, 20_000);
    assert!(!killed && seen.deadline.is_none() && seen.returned.is_some(), "{:?}", seen.deadline);
    let answers = answers(&written);
    let whys: Vec<&str> = answers.iter().map(|Answer(a)| a.as_ref().unwrap_err().as_str()).collect();
    assert!(whys[..2].iter().all(|w| w.starts_with("the machine could not be stopped: ")), "{whys:?}");
    assert!(whys[2].starts_with("no more snapshots are taken by the clock"), "{whys:?}");
    assert_eq!(seen.complaints.len(), 2, "{:?}", seen.complaints);
}

#[test]
fn a_look_at_a_machine_that_can_not_be_stopped_says_so() {
    let panic = Message::Panic { message: "no".into(), location: None, backtrace: String::new() };
    let mut eye = Eye { frozen: true, ..Eye::default() };
    let events = vec![data(&[Message::hello("build"), panic]), VmEvent::Exited(VmExit::PowerOff)];
    let (seen, ..) = follow_stuck(events, Watch::new(&mut eye, Monitor::off("a test")), 20_000);
    let state = seen.kernel_state.expect("what could be read while it ran");
    assert!(state.unread.is_some_and(|why| why.starts_with("pausing the machine: ")), "{:?}", state.problems);
    assert_eq!((eye.registers, seen.complaints.len()), (0, 1));
}

/// However long it is held, a guest has no more than twice its time.
#[test]
fn a_guest_that_asks_on_and_on_is_ended() {
    let capture = |id| request(id, Call::Capture { name: "p".into(), periodic: false });
    let mut messages = whole_run()[..2].to_vec();
    messages.extend((1..100).map(capture));
    let mut eye = Eye::default();
    let watch = Watch::new(&mut eye, Monitor::off("a test"));
    let (seen, killed, written) = follow_stuck(each(&messages), watch, 5_000);
    assert_eq!(seen.deadline, Some(Deadline::Run(LIMITS.run)));
    assert!(killed);
    // 30 s of its own and as much again, of which each takes 5.2 s.
    let answered = answers(&written).len();
    assert!((11..=12).contains(&answered), "{answered}");
}
