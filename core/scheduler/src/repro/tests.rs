//! Probes defined, traces read and told.

use super::*;
use crate::ports::{MemberPlace, MockKernelTypes, Prototype, ValueType};
use crate::repro::ProbeHits;
use crate::{SchedulerReport, ScxExit};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

const UNSIGNED: ValueType = ValueType::Integer { size: 8, signed: false };
const SIGNED: ValueType = ValueType::Integer { size: 4, signed: true };

/// A kernel with one function that is given a task, and a few members of a task.
fn types() -> MockKernelTypes {
    let mut types = MockKernelTypes::new();
    types.expect_prototype().returning(|function| {
        let task = ValueType::Pointer(Some("task_struct".to_string()));
        let parameters = vec![("p".to_string(), task), ("dsq_id".to_string(), UNSIGNED)];
        (function == "enqueue").then_some(Prototype { parameters, returns: Some(ValueType::Truth) })
    });
    types.expect_member().returning(|_, path| {
        let at = |offsets: &[u64], bits, ty| Some(MemberPlace { offsets: offsets.to_vec(), bits, ty });
        match path {
            "pid" => at(&[0x10], None, SIGNED),
            "comm" => at(&[0x20], None, ValueType::Text),
            "cpus_ptr->bits[0]" => at(&[0x30, 0], None, UNSIGNED),
            "scx.slice" => at(&[0x40], None, UNSIGNED),
            "scx.dsq->id" => at(&[0x48, 0x8], None, UNSIGNED),
            "scx.sticky_cpu" => at(&[0x50], Some((3, 7)), SIGNED),
            _ => None,
        }
    });
    types
}

#[test]
fn a_probe_fetches_what_its_function_is_given() {
    let probe = define("enqueue", &types());
    insta::assert_snapshot!(format!("{}\n{}\n{}", probe.at_entry(3), probe.at_exit(3, true), probe.at_exit(3, false)), @r"
    p:ktstr/e3 enqueue a0=$arg1:x64 a1=+0x10($arg1):s32 a2=+0x20($arg1):string a3=+0x0(+0x30($arg1)):x64 a4=+0x40($arg1):u64 a5=+0x48($arg1):x64 a6=+0x8(+0x48($arg1)):u64 a7=+0x50($arg1):b7@3/16 a8=$arg2:u64
    r:ktstr/x3 enqueue ret=$retval:u8 a3=+0x0(+0x30($arg1)):x64 a4=+0x40($arg1):u64 a5=+0x48($arg1):x64 a6=+0x8(+0x48($arg1)):u64 a7=+0x50($arg1):b7@3/16
    r:ktstr/x3 enqueue ret=$retval:u8
    ");
}

#[test]
fn a_function_without_a_prototype_is_probed_all_the_same() {
    let probe = define("other", &types());
    assert_eq!(
        probe.at_entry(0),
        "p:ktstr/e0 other a0=$arg1:x64 a1=$arg2:x64 a2=$arg3:x64 a3=$arg4:x64 a4=$arg5:x64 a5=$arg6:x64"
    );
    assert_eq!(probe.at_exit(0, true), "r:ktstr/x0 other");
}

#[test]
fn masks_and_flags_are_shown_for_what_they_are() {
    let mut types = MockKernelTypes::new();
    types.expect_prototype().returning(|function| {
        let flags = ("flags".to_string(), UNSIGNED);
        let of_struct = ("c".to_string(), ValueType::Pointer(Some("cpu_ctx".to_string())));
        let parameters = if function == "scx_bpf_kick_cpu" { vec![flags] } else { vec![flags, of_struct] };
        Some(Prototype { parameters, returns: None })
    });
    types.expect_scalars().returning(|_, _| vec!["nr".to_string(), "idle->bits[0]".to_string()]);
    types.expect_member().returning(|_, path| {
        let offsets = if path == "nr" { vec![0] } else { vec![8, 0] };
        Some(MemberPlace { offsets, bits: None, ty: UNSIGNED })
    });
    let shown = |function: &str| -> Vec<(String, Show)> {
        let fields = define(function, &types).fields.into_iter().filter(|f| f.part != Part::Pointer);
        fields.map(|f| (format!("{}.{}", f.argument, f.member), f.show)).collect()
    };
    assert_eq!(shown("scx_bpf_kick_cpu"), [("flags.".to_string(), Show::KickFlags)]);
    let found = [
        ("flags.".to_string(), Show::Hex),
        ("c.nr".to_string(), Show::Decimal),
        ("c.idle".to_string(), Show::Cpus),
    ];
    assert_eq!(shown("update"), found);
}

#[test]
fn a_call_is_told_with_what_it_changed() {
    let probes = vec![define("enqueue", &types())];
    let lines = [
        "w [1]-9 [001] d..2. 5.000010: e0: (enqueue+0x0/0x1) a0=0xffff8881 a1=7 a2=\"a b\" a3=0x5 a4=20 a5=0x0 a6=99 a7=-1 a8=9223372036854775810",
        "w [1]-9 [001] d..2. 5.000030: x0: (g+0x1/0x2 <- enqueue) ret=1 a3=0x5 a4=30 a5=0xffff01 a6=9223372036854775810 a7=-1",
        "w [1]-9 [001] d..2. 5.000040: e0: (enqueue+0x0/0x1) a0=0x0 a1=7 a2=\"junk\" a8=1",
    ];
    let trace = ProbeTrace {
        probes,
        task: Some(Task { comm: "a b".to_string(), pid: 7 }),
        lines: lines.map(String::from).to_vec(),
        counts: vec![ProbeHits { entries: 12, exits: 11, missed: Some(2), exact: true }],
        seen: 9,
        of_task: 3,
        ..ProbeTrace::default()
    };
    insta::assert_snapshot!(told(trace), @r"
    the crash came again: scx_bpf_error: no (CPU 1)
    its machine took 3.1 s in all
    probed functions: none of the back-trace, 1 around the scheduler's callbacks
    not probed: demo_enqueue (no program could be attached to it; the kernel's side of it is probed)
    probes fired: enqueue 12, 11 returned, 2 missed
    task a b[7]: 3 of 9 events were its, the last 2 of its calls are shown
         5.000010 cpu1 enqueue(p=a b[7], dsq_id=SCX_DSQ_LOCAL)
                         p: cpus_ptr=0x5(0,2) scx.slice=20 scx.sticky_cpu=-1
                         returned true after 20 us: p.scx.slice 20 → 30, p.scx.dsq->id none → SCX_DSQ_LOCAL
         5.000040 cpu1 enqueue(p=NULL, dsq_id=0x1)
                         no exit seen
    ");
}

fn error() -> ScxExit {
    let log = "sched_ext: BPF scheduler \"demo\" disabled (scx_bpf_error)\nsched_ext: demo: no (CPU 1)\n   \
               scx_bpf_error_bstr+0x62/0x80\n   bpf_prog_29ba6a0bd1d8f534_demo_enqueue+0x7e/0x91\n";
    ScxExit::last_in(log).unwrap()
}

fn told(trace: ProbeTrace) -> String {
    let exit = error();
    let report =
        SchedulerReport { exit: Some(exit.clone()), probes: Some(trace), ..SchedulerReport::default() };
    let choice = choose(&exit).unwrap();
    render(
        &exit,
        &choice,
        &Rerun {
            report: Some(&report),
            outcome: "fail",
            took: Duration::from_millis(3140),
            lines: &BTreeMap::new(),
        },
    )
}

proptest! {
    #[test]
    fn no_trace_can_upset_the_reader(
        lines in prop::collection::vec(
            "( ?[a-z\\[\\]-]{0,6}-[0-9]{1,12} \\[[0-9]{1,4}\\] d..2. [0-9]{1,3}\\.[0-9]{6}: [ex][0-9]{1,2}: .{0,20}( ret=.{0,5})?( a[0-9]=.{0,9}){0,4}|.{0,60})",
            0..60,
        ),
        pid in 0u32..20,
    ) {
        let probes = vec![define("enqueue", &types()), define("other", &types())];
        let (mut selection, mut end) = (Selection::new(&probes, pid), AtTheEnd::new(&probes));
        for line in &lines {
            selection.push(line);
            end.push(line);
        }
        let _ = end.finish();
        let mut trace = ProbeTrace { probes: probes.clone(), task: Some(Task { comm: String::new(), pid }), ..ProbeTrace::default() };
        selection.finish(&mut trace);
        prop_assert!(trace.lines.len() <= lines.len() && trace.of_task <= trace.seen);
        let _ = told(trace);
    }

    /// Calls nest: each exit belongs to the latest entry of its function that is still open, CPU by CPU.
    #[test]
    fn every_call_gets_its_own_exit(steps in prop::collection::vec((0usize..3, any::<bool>()), 1..80)) {
        let probes: Vec<Probe> = ["a", "b", "c"].map(|f| define(f, &types())).into();
        let (mut open, mut lines, mut took) = (Vec::new(), Vec::new(), Vec::new());
        for (at, (function, enters)) in steps.iter().enumerate() {
            if *enters || open.is_empty() {
                lines.push(format!("w-7 [000] d..2. 1.{at:06}: e{function}: ({function}+0x0/0x1)"));
                open.push((took.len(), *function, at));
                took.push(None);
            } else if let Some((call, function, since)) = open.pop() {
                lines.push(format!("w-7 [000] d..2. 1.{at:06}: x{function}: (z+0x0/0x1 <- {function})"));
                took[call] = Some((at - since) as u64);
            }
        }
        let trace = ProbeTrace { probes, lines, ..ProbeTrace::default() };
        let seen: Vec<Option<u64>> = super::calls::calls(&trace)
            .iter()
            .map(|call| call.exit.as_ref().map(|exit| exit.at_us - call.entry.at_us))
            .collect();
        prop_assert_eq!(seen, took);
    }
}

/// A wake-up by the task of another one is none of its calls, unless it ends the scheduler there.
#[test]
fn calls_for_other_tasks_are_kept_around_the_end_only() {
    let probes = vec![define("enqueue", &types()), define("scx_ops_exit_kind", &types())];
    let mut selection = Selection::new(&probes, 7);
    for line in [
        "w-7 [000] d..2. 1.000001: e0: (enqueue+0x0/0x1) a0=0x1 a1=8",
        "w-7 [000] d..2. 1.000002: x0: (g <- enqueue) ret=1",
        "v-9 [001] d..2. 1.000003: e0: (enqueue+0x0/0x1) a0=0x1 a1=7",
        "w-7 [000] d..2. 1.000004: e0: (enqueue+0x0/0x1) a0=0x1 a1=8",
        "v-9 [001] d..2. 1.000005: x0: (g <- enqueue) ret=1",
        "w-7 [000] d..2. 1.000006: e1: (scx_ops_exit_kind+0x0/0x1)",
        "w-7 [000] d..2. 1.000007: x1: (g <- scx_ops_exit_kind)",
        "w-7 [000] d..2. 1.000008: x0: (g <- enqueue) ret=0",
    ] {
        selection.push(line);
    }
    let mut trace = ProbeTrace::default();
    selection.finish(&mut trace);
    let at: Vec<&str> = trace.lines.iter().map(|l| &l[l.find("1.00000").unwrap() + 7..][..1]).collect();
    assert_eq!(at, ["3", "4", "5", "6", "7", "8"]);
    assert_eq!((trace.seen, trace.of_task), (8, 6));
}

#[test]
fn only_the_last_events_are_kept() {
    for count in [1, 400, 401, 3000] {
        let probes = vec![define("other", &types())];
        let mut selection = Selection::new(&probes, 7);
        for at in 0..count {
            selection.push(&format!("w-7 [000] d..2. 1.{at:06}: e0: (other+0x0/0x1)"));
            selection.push(&format!("v-8 [000] d..2. 1.{at:06}: e0: (other+0x0/0x1)"));
        }
        let mut trace = ProbeTrace::default();
        selection.finish(&mut trace);
        assert_eq!((trace.seen, trace.of_task), (2 * count as u64, count as u64));
        assert_eq!(trace.lines.len(), count.min(400));
        let last = format!("1.{:06}:", count - 1);
        assert!(trace.lines.last().unwrap().contains(&last));
    }
}
