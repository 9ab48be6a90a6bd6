//! What a snapshot tells of the kernel, and why not.

use super::*;
use crate::{SnapshotCause, TaskState, Value};

fn variable(name: &str, typed: Value) -> VariableState {
    VariableState { name: name.into(), typed, ..VariableState::default() }
}

fn section(id: u64, name: &str, in_use: bool, variables: Vec<VariableState>) -> MapState {
    MapState { id, name: name.into(), in_use, variables, ..MapState::default() }
}

fn snapshot(state: Option<KernelState>) -> Snapshot {
    Snapshot { state, ..Snapshot::new("s", 0, 1, SnapshotCause::Op) }
}

/// A scheduler with what one before it has left.
fn whole(state: &str) -> Snapshot {
    let stats = Value::Fields([("seen".to_string(), Value::List(vec![Value::Unsigned(3)]))].into());
    let maps = vec![
        section(
            1,
            "old.bss",
            false,
            vec![variable("nr", Value::Unsigned(1)), variable("gone", Value::Unsigned(0))],
        ),
        section(
            2,
            "new.bss",
            true,
            vec![variable("nr", Value::Unsigned(2)), variable("init.nr", Value::Unsigned(8))],
        ),
        section(
            3,
            ".data.stats",
            true,
            vec![variable("stats", stats.clone()), variable("twice", stats.clone())],
        ),
        MapState { more: 4, ..section(4, ".data.more", true, vec![variable("twice", Value::Unsigned(7))]) },
    ];
    let scx = SchedExtState { state: state.into(), maps, ..SchedExtState::default() };
    snapshot(Some(KernelState { sched_ext: Some(scx), ..KernelState::default() }))
}

fn told<T: std::fmt::Debug>(result: Result<T, SnapshotError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn variables_are_those_of_the_loaded_scheduler_first() {
    let s = whole("enabled");
    let number = |path: &str| s.var(path).and_then(|field| field.as_u64());
    assert_eq!((number("nr"), number("gone"), number("old.bss/nr")), (Ok(2), Ok(0), Ok(1)));
    assert_eq!((number("stats.seen[0]"), number("init.nr")), (Ok(3), Ok(8)));
    assert_eq!(number(".data.more/twice"), Ok(7));
    let text = told(s.var("twice"));
    assert_eq!(
        text,
        "several BPF variables are called \"twice\": .data.stats (ID 3), .data.more (ID 4): write `section/name`"
    );
    assert_eq!(
        told(s.var(".data.more/x")),
        "no BPF variable \".data.more/x\" in snapshot \"s\"; there is twice; 4 were not read"
    );
    assert_eq!(told(number("stats.seen[1]")), "stats.seen[1]: expected an index below 1, got 1");
    let names: Vec<String> = s.vars().unwrap().iter().map(|v| format!("{}/{}", v.section, v.name)).collect();
    assert_eq!(names.len(), 7);
    assert!(names.contains(&"new.bss/init.nr".to_string()));
}

#[test]
fn the_active_scheduler_has_nothing_of_another() {
    let s = whole("enabled");
    assert_eq!(s.live_var("nr").unwrap().as_u64(), Ok(2));
    assert!(matches!(s.live_var("gone"), Err(SnapshotError::VarMissing { .. })));
    assert!(matches!(s.active().unwrap().map("old.bss"), Err(SnapshotError::MapMissing { .. })));
    assert_eq!(s.map("old.bss").unwrap().state().id, 1);
    assert_eq!(
        told(whole("disabled").active()),
        "snapshot \"s\" saw no sched_ext scheduler: sched_ext is disabled"
    );
    assert!(whole("disabled").var("nr").is_ok(), "what is left can be looked at");
}

#[test]
fn what_is_not_there_says_why() {
    assert_eq!(
        told(snapshot(None).map("x")),
        "snapshot \"s\" holds values only: nobody asked for the kernel's state"
    );
    let unread = KernelState { unread: Some("no answer".into()), ..KernelState::default() };
    let text = told(snapshot(Some(unread)).rq_scx_states());
    assert_eq!(text, "\"the kernel's state\" could not be read for snapshot \"s\": no answer");
    let bare = snapshot(Some(KernelState::default()));
    assert!(told(bare.scx_sched_state()).contains("this kernel has no sched_ext"));
    assert!(told(bare.rq_scx_states()).contains("no runqueue has members for sched_ext"));
    let idle = SchedExtState { state: "disabled".into(), ..SchedExtState::default() };
    let torn = "the scheduler's BPF programs and maps: torn".to_string();
    let state = KernelState { sched_ext: Some(idle), problems: vec![torn], ..KernelState::default() };
    let s = snapshot(Some(state));
    assert_eq!(
        told(s.vars()),
        "snapshot \"s\" saw no sched_ext scheduler: sched_ext is disabled; the scheduler's BPF programs and maps: torn"
    );
    for why in [told(s.dsq_states()), told(s.prog_runtime_stats())] {
        assert!(why.contains("sched_ext is disabled and has no"), "{why}");
    }
}

#[test]
fn tasks_are_told_once_each_and_those_that_are_not_with_the_reason() {
    let task = |pid| TaskState { pid, ..TaskState::default() };
    let rq = |cpu, current, runnable: &[i64], more| RunqueueState {
        cpu,
        current: Some(task(current)),
        runnable: runnable.iter().map(|pid| task(*pid)).collect(),
        more,
        scx_nr_running: Some(runnable.len() as u64),
        local_dsq_nr: Some(u64::from(cpu)),
        ..RunqueueState::default()
    };
    let queue = QueueState { id: 1, ..QueueState::default() };
    let scx = SchedExtState {
        dsqs: vec![queue],
        programs: vec![ProgramState::default()],
        ..SchedExtState::default()
    };
    let runqueues = vec![rq(0, 7, &[7, 8], 0), rq(1, 0, &[], 0)];
    let s = snapshot(Some(KernelState { runqueues, sched_ext: Some(scx), ..KernelState::default() }));
    let pids: Vec<i64> = s.task_enrichments().unwrap().iter().map(|t| t.pid).collect();
    assert_eq!(pids, [7, 8, 0]);
    assert_eq!(s.task_enrichment_by_pid(8).unwrap().pid, 8);
    assert!(told(s.task_enrichment_by_pid(9)).ends_with("\"s\": there was no such task"));
    let of_rqs = s.rq_scx_states().unwrap();
    assert_eq!((of_rqs.len(), of_rqs[1].local_dsq_nr, of_rqs[0].nr_running), (2, 1, 2));
    assert_eq!((s.dsq_states().unwrap().len(), s.prog_runtime_stats().unwrap().len()), (1, 1));
}
