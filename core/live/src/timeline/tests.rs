//! Timelines out of bytes and out of text, and what is made of them.

use super::ring::tests::Writer;
use super::*;
use proptest::prelude::*;

const HEADER_PAGE: &str = "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n\tfield: local_t commit;\toffset:8;\t\
                           size:8;\tsigned:1;\n\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n\t\
                           field: char data;\toffset:16;\tsize:4080;\tsigned:1;\n";
const SWITCH: &str = include_str!("testdata/sched_switch.format");
const COMMON: &str = "field:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
                      field:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n";

/// The other formats of 6.12, written short.
fn format(point: TracePoint) -> String {
    let (id, fields): (u16, &[(&str, usize, usize)]) = match point {
        TracePoint::Switch => return SWITCH.to_string(),
        TracePoint::Migrate => (
            318,
            &[
                ("char comm[16]", 8, 16),
                ("pid_t pid", 24, 4),
                ("int prio", 28, 4),
                ("int orig_cpu", 32, 4),
                ("int dest_cpu", 36, 4),
            ],
        ),
        TracePoint::Wakeup | TracePoint::WakeupNew => (
            if point == TracePoint::Wakeup { 323 } else { 322 },
            &[("char comm[16]", 8, 16), ("pid_t pid", 24, 4), ("int prio", 28, 4), ("int target_cpu", 32, 4)],
        ),
        TracePoint::PiBoost => (
            300,
            &[("char comm[16]", 8, 16), ("pid_t pid", 24, 4), ("int oldprio", 28, 4), ("int newprio", 32, 4)],
        ),
        TracePoint::LockBegin => (200, &[("void * lock_addr", 8, 8), ("unsigned int flags", 16, 4)]),
        TracePoint::LockEnd => (201, &[("void * lock_addr", 8, 8), ("int ret", 16, 4)]),
    };
    let one = |(declared, offset, size): &(&str, usize, usize)| {
        let signed = u8::from(!declared.contains('*') && !declared.contains("unsigned"));
        format!("field:{declared};\toffset:{offset};\tsize:{size};\tsigned:{signed};\n")
    };
    let fields: String = fields.iter().map(one).collect();
    format!("name: {}\nID: {id}\nformat:\n{COMMON}\n{fields}", point.path().1)
}

fn decoder() -> Decoder {
    let formats: Vec<_> = TracePoint::ALL.iter().map(|point| (*point, format(*point))).collect();
    Decoder::new(HEADER_PAGE, formats.iter().map(|(point, text)| (*point, text.as_str()))).unwrap()
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    bytes[at..at + what.len()].copy_from_slice(what);
}

/// The event's bytes, as the kernel lays them out by those formats.
fn bytes_of(record: &TimelineRecord) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    let task = |bytes: &mut [u8], at, task: &TaskRef| {
        put(bytes, at, task.comm.as_bytes());
        put(bytes, at + 16, &task.pid.to_le_bytes());
        put(bytes, at + 20, &task.prio.to_le_bytes());
    };
    let id: u16 = match &record.event {
        TimelineEvent::Switch { prev, prev_state, next } => {
            task(&mut bytes, 8, prev);
            let state = match prev_state.as_str() {
                "R" => 0,
                "R+" => 0x100,
                "S" => 1,
                "D|T" => 6,
                other => panic!("{other}"),
            };
            put(&mut bytes, 32, &i64::to_le_bytes(state));
            task(&mut bytes, 40, next);
            321
        }
        TimelineEvent::Migrate { task: moved, from_cpu, to_cpu } => {
            task(&mut bytes, 8, moved);
            put(&mut bytes, 32, &from_cpu.to_le_bytes());
            put(&mut bytes, 36, &to_cpu.to_le_bytes());
            318
        }
        TimelineEvent::Wakeup { task: woken, target_cpu, new } => {
            task(&mut bytes, 8, woken);
            put(&mut bytes, 32, &target_cpu.to_le_bytes());
            if *new { 322 } else { 323 }
        }
        TimelineEvent::PiBoost { task: boosted, new_prio } => {
            task(&mut bytes, 8, boosted);
            put(&mut bytes, 32, &new_prio.to_le_bytes());
            300
        }
        TimelineEvent::LockBegin { lock, flags } => {
            put(&mut bytes, 8, &lock.to_le_bytes());
            put(&mut bytes, 16, &flags.to_le_bytes());
            200
        }
        TimelineEvent::LockEnd { lock, result } => {
            put(&mut bytes, 8, &lock.to_le_bytes());
            put(&mut bytes, 16, &result.to_le_bytes());
            201
        }
    };
    put(&mut bytes, 0, &id.to_le_bytes());
    put(&mut bytes, 4, &record.pid.to_le_bytes());
    bytes
}

/// The line of `trace`, as the kernel's `print fmt` of each event has it.
fn line_of(record: &TimelineRecord) -> String {
    let names = [(1, "SPIN"), (2, "READ"), (4, "WRITE"), (8, "RT"), (16, "PERCPU"), (32, "MUTEX")];
    let fields = match &record.event {
        TimelineEvent::Switch { prev, prev_state, next } => format!(
            "prev_comm={} prev_pid={} prev_prio={} prev_state={prev_state} ==> next_comm={} next_pid={} next_prio={}",
            prev.comm, prev.pid, prev.prio, next.comm, next.pid, next.prio
        ),
        TimelineEvent::Migrate { task: t, from_cpu, to_cpu } => {
            format!("comm={} pid={} prio={} orig_cpu={from_cpu} dest_cpu={to_cpu}", t.comm, t.pid, t.prio)
        }
        TimelineEvent::Wakeup { task: t, target_cpu, .. } => {
            format!("comm={} pid={} prio={} target_cpu={target_cpu:03}", t.comm, t.pid, t.prio)
        }
        TimelineEvent::PiBoost { task: t, new_prio } => {
            format!("comm={} pid={} oldprio={} newprio={new_prio}", t.comm, t.pid, t.prio)
        }
        TimelineEvent::LockBegin { lock, flags } => {
            let set: Vec<&str> = names.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, n)| *n).collect();
            format!("{lock:016x} (flags={})", set.join("|"))
        }
        TimelineEvent::LockEnd { lock, result } => format!("{lock:016x} (ret={result})"),
    };
    let (s, us) = (record.at_ns / 1_000_000_000, record.at_ns / 1000 % 1_000_000);
    let (pid, cpu, name) = (record.pid, record.cpu, record.point().path().1);
    format!("  some [one]-7-{pid:<7} [{cpu:03}] d..2. {s:>5}.{us:06}: {name}: {fields}\n")
}

fn a_task() -> impl Strategy<Value = TaskRef> {
    ("[ -~]{0,15}", 0i32..1 << 22, -1i32..140).prop_map(|(comm, pid, prio)| TaskRef { pid, comm, prio })
}

fn an_event() -> impl Strategy<Value = TimelineEvent> {
    let state = prop_oneof![Just("R"), Just("R+"), Just("S"), Just("D|T")].prop_map(str::to_string);
    let cpu = 0u32..512;
    prop_oneof![
        (a_task(), state, a_task()).prop_map(|(prev, prev_state, next)| TimelineEvent::Switch {
            prev,
            prev_state,
            next
        }),
        (a_task(), cpu.clone(), cpu.clone()).prop_map(|(task, from_cpu, to_cpu)| TimelineEvent::Migrate {
            task,
            from_cpu,
            to_cpu
        }),
        (a_task(), cpu, any::<bool>()).prop_map(|(task, target_cpu, new)| TimelineEvent::Wakeup {
            task,
            target_cpu,
            new
        }),
        (a_task(), -1i32..140).prop_map(|(task, new_prio)| TimelineEvent::PiBoost { task, new_prio }),
        (any::<u64>(), 0u32..64).prop_map(|(lock, flags)| TimelineEvent::LockBegin { lock, flags }),
        (any::<u64>(), any::<i32>()).prop_map(|(lock, result)| TimelineEvent::LockEnd { lock, result }),
    ]
}

fn some_records(step: u64) -> impl Strategy<Value = Vec<TimelineRecord>> {
    let one = (0u64..1 << 30, 0u32..4, 0i32..1 << 22, an_event());
    proptest::collection::vec(one, 0..24).prop_map(move |all| {
        let mut at_ns = 0;
        let record = |(delta, cpu, pid, event)| {
            at_ns += (delta + 1) * step;
            TimelineRecord { at_ns, cpu, pid, event }
        };
        all.into_iter().map(record).collect()
    })
}

proptest! {
    #[test]
    fn records_come_back_from_the_kernels_bytes(records in some_records(1)) {
        let decoder = decoder();
        let mut timeline = Timeline::default();
        for cpu in 0..4 {
            let mut writer = Writer::new(0);
            let own = records.iter().filter(|record| record.cpu == cpu);
            own.for_each(|record| writer.event(record.at_ns, &bytes_of(record)));
            timeline.merge(decoder.pages(cpu, &writer.page(None), 4096));
        }
        prop_assert_eq!(&timeline.problems, &Vec::<String>::new());
        prop_assert_eq!(&timeline.records, &records);
        // And through JSON.
        let json = serde_json::to_string(&timeline).unwrap();
        prop_assert_eq!(serde_json::from_str::<Timeline>(&json).unwrap(), timeline);
    }

    #[test]
    fn records_come_back_from_the_kernels_text(records in some_records(1000)) {
        let text: String = records.iter().map(line_of).collect();
        let timeline = Timeline::parse_text(&format!("# tracer: nop\n#\n{text}"));
        prop_assert_eq!(&timeline.problems, &Vec::<String>::new());
        prop_assert_eq!(timeline.records, records);
    }

    #[test]
    fn no_text_does_harm(text in "(sched_switch|sched_wakeup|contention_begin|prev_|comm=|pid=|[a -~\n0-9:\\[\\]()-])*") {
        let timeline = Timeline::parse_text(&text);
        let _ = (timeline.to_string(), timeline.wakeup_delays(), timeline.lock_waits());
    }

    #[test]
    fn a_filter_takes_nothing_that_it_should_not(records in some_records(1), pid in 0i32..9, cpu in 0u32..4) {
        let timeline = Timeline::of(records);
        let of_pid = timeline.of_pid(pid);
        prop_assert!(of_pid.records.iter().all(|record| record.is_about(pid)));
        let elsewhere = timeline.filter(|record| record.cpu != cpu).records.len();
        prop_assert_eq!(timeline.on_cpu(cpu).records.len() + elsewhere, timeline.records.len());
    }
}

fn task(pid: i32, comm: &str) -> TaskRef {
    TaskRef { pid, comm: comm.to_string(), prio: 120 }
}

fn record(at_ns: u64, cpu: u32, pid: i32, event: TimelineEvent) -> TimelineRecord {
    TimelineRecord { at_ns, cpu, pid, event }
}

/// A task is woken, boosted, moved, runs, waits for a lock.
fn story() -> Timeline {
    let wakeup = |new| TimelineEvent::Wakeup { task: task(7, "worker"), target_cpu: 1, new };
    let switch = |prev: TaskRef, state: &str, next: TaskRef| TimelineEvent::Switch {
        prev,
        prev_state: state.to_string(),
        next,
    };
    let (lock, idle) = (0xffff_8880_0000_1000, task(0, "swapper/1"));
    let mut timeline = Timeline::of(vec![
        record(5_000_000, 0, 1, wakeup(true)),
        record(5_100_000, 0, 1, wakeup(false)),
        record(5_200_000, 0, 1, TimelineEvent::PiBoost { task: task(7, "worker"), new_prio: 19 }),
        record(5_300_000, 0, 1, TimelineEvent::Migrate { task: task(7, "worker"), from_cpu: 1, to_cpu: 2 }),
        record(6_500_000, 2, 0, switch(idle.clone(), "R", task(7, "worker"))),
        record(6_600_000, 2, 7, TimelineEvent::LockBegin { lock, flags: 1 | 4 }),
        record(6_600_500, 2, 7, TimelineEvent::LockBegin { lock, flags: 32 }),
        record(6_700_000, 2, 7, TimelineEvent::LockEnd { lock, result: 0 }),
        record(6_710_000, 2, 7, TimelineEvent::LockEnd { lock: 0x10, result: -4 }),
        record(6_800_000, 2, 7, switch(task(7, "worker"), "S", idle)),
    ]);
    timeline.lost.push(Lost {
        cpu: 2,
        records: None,
        why: "they were overwritten before they were read".into(),
    });
    timeline.problems.push("this kernel has no event sched:sched_pi_setprio".into());
    timeline
}

#[test]
fn people_read_it_line_by_line() {
    let mut story = story();
    story.keep_latest(9);
    assert_eq!(
        story.to_string(),
        "9 records in 1.700000 ms\n\
         lost on cpu2: some records (they were overwritten before they were read)\n\
         left out: the 1 oldest records\n\
         this kernel has no event sched:sched_pi_setprio\n      \
         0.000000 cpu0   wakeup  worker[7] on cpu1, by [1]\n      \
         0.100000 cpu0   boost   worker[7] prio 120 -> 19\n      \
         0.200000 cpu0   migrate worker[7] cpu1 -> cpu2\n      \
         1.400000 cpu2   switch  swapper/1[0] prio 120 R -> worker[7] prio 120\n      \
         1.500000 cpu2   waits   [7] for lock 0xffff888000001000 (spin write)\n      \
         1.500500 cpu2   waits   [7] for lock 0xffff888000001000 (mutex)\n      \
         1.600000 cpu2   has     [7] lock 0xffff888000001000\n      \
         1.610000 cpu2   gave up [7] lock 0x10: error -4\n      \
         1.700000 cpu2   switch  worker[7] prio 120 S -> swapper/1[0] prio 120\n"
    );
    assert!(!story.is_whole() && Timeline::default().is_whole());
}

#[test]
fn waits_are_measured_from_the_first_wakeup_and_to_the_lock() {
    let story = story();
    let delays = story.wakeup_delays();
    assert_eq!(delays.iter().map(|d| (d.pid, d.cpu, d.delay_ns())).collect::<Vec<_>>(), [(7, 2, 1_500_000)]);
    let waits = story.lock_waits();
    assert_eq!(
        waits.iter().map(|w| (w.pid, w.flags, w.end_ns - w.begin_ns)).collect::<Vec<_>>(),
        [(7, 5, 100_000)]
    );
    assert_eq!((story.count(TracePoint::Switch), story.count(TracePoint::WakeupNew)), (2, 1));
    assert_eq!(story.between(6_500_000, 6_600_000).records.len(), 2);
}

#[test]
fn what_the_kernel_overwrote_is_told_by_cpu() {
    let decoder = decoder();
    let pages = |missed: [Option<Option<u64>>; 2]| missed.map(|missed| Writer::new(0).page(missed)).concat();
    let of = |missed| decoder.pages(3, &pages(missed), 4096).lost;
    assert_eq!(of([None, None]), []);
    let told = of([Some(Some(5)), Some(Some(2))]);
    assert_eq!(told.iter().map(|lost| (lost.cpu, lost.records)).collect::<Vec<_>>(), [(3, Some(7))]);
    assert_eq!(of([Some(Some(5)), Some(None)])[0].records, None);
    let text = Timeline::parse_text("CPU:1 [LOST 12 EVENTS]\nCPU:2 [LOST EVENTS]\n");
    assert_eq!(
        text.lost.iter().map(|lost| (lost.cpu, lost.records)).collect::<Vec<_>>(),
        [(1, Some(12)), (2, None)]
    );
}

#[test]
fn a_line_that_cannot_be_read_is_a_problem_and_others_are_passed_over() {
    let text = " a-1 [000] d..2. 1.000000: sched_switch: prev_comm=a\n a-1 [000] d..2. 1.000000: other: x\n\
                 a-1 (    -12) [000] d..2. 1.000000: sched_wakeup: comm=a pid=1 prio=120 target_cpu=000\n\
                 a-9 (     12) [000] 2.000000: sched_wakeup: comm=b pid=2 prio=120 target_cpu=000\n";
    let timeline = Timeline::parse_text(text);
    assert_eq!(timeline.problems.len(), 1, "{timeline:?}");
    assert!(timeline.problems[0].contains("prev_comm=a"));
    assert_eq!(timeline.records.len(), 1);
    assert_eq!((timeline.records[0].pid, timeline.records[0].at_ns), (9, 2_000_000_000));
}
