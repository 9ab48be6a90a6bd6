//! Ops that change the scheduler.

use crate::engine::execute_steps;
use crate::world::World;
use crate::{CgroupDef, HoldSpec, Op, Setup, Step};
use std::time::Duration;

fn world(attached: bool) -> World {
    let w = World::new(1, 2);
    {
        let mut s = w.state.get();
        s.schedulers = vec!["mine".to_owned(), "other".to_owned()];
        s.attached = attached.then(|| "mine".to_owned());
    }
    w
}

fn steps(ops: Vec<Op>) -> Vec<Step> {
    let setup = Setup::Defs(vec![CgroupDef::named("cg_0")]);
    vec![Step { setup, ops, hold: HoldSpec::FULL }]
}

/// What was done to schedulers.
fn changes(w: &World) -> Vec<String> {
    w.log()
        .into_iter()
        .filter(|line| ["attach", "detach", "pin"].iter().any(|word| line.starts_with(word)))
        .collect()
}

#[test]
fn each_op_does_what_it_says() {
    for (op, log) in [
        (Op::restart_scheduler(), vec!["detach mine", "attach mine"]),
        (Op::replace_scheduler("other"), vec!["detach mine", "attach other"]),
        (Op::detach_scheduler(), vec!["detach mine"]),
    ] {
        let w = world(true);
        assert!(execute_steps(&w.ctx(), steps(vec![op])).unwrap().is_pass());
        assert_eq!(changes(&w), log);
    }
    let w = world(true);
    let ops = vec![Op::detach_scheduler(), Op::attach_staged_scheduler("other")];
    assert!(execute_steps(&w.ctx(), steps(ops)).unwrap().is_pass());
    assert_eq!(w.state.get().attached.as_deref(), Some("other"));
    let event = w.state.get().events.iter().find(|e| e.op_kind == "AttachScheduler").cloned().unwrap();
    assert_eq!(event.detail, "other");
}

#[test]
fn nonsense_is_found_before_anything_is_done() {
    let refused = |attached, ops: Vec<Op>| {
        let w = world(attached);
        let text = execute_steps(&w.ctx(), steps(ops)).unwrap_err().to_string();
        assert_eq!(w.log(), Vec::<String>::new(), "{text}");
        text
    };
    assert!(refused(true, vec![Op::attach_scheduler()]).contains("\"mine\" is attached at that point"));
    assert!(refused(false, vec![Op::detach_scheduler()]).contains("no scheduler is attached"));
    let text = refused(true, vec![Op::replace_scheduler("third")]);
    assert!(text.contains("\"third\" is none of the test's (mine, other)"), "{text}");
}

#[test]
fn a_map_is_pinned_while_its_scheduler_is_there() {
    let w = world(true);
    let ops = vec![Op::pin_bpf_map(".bss", "a/b"), Op::detach_scheduler()];
    assert!(execute_steps(&w.ctx(), steps(ops)).unwrap().is_pass());
    assert_eq!(changes(&w), ["pin .bss at a/b", "detach mine"]);
    let event = w.state.get().events.iter().find(|e| e.op_kind == "PinBpfMap").cloned().unwrap();
    assert_eq!(event.detail, ".bss a/b");
    for (ops, why) in [
        (vec![Op::detach_scheduler(), Op::pin_bpf_map(".bss", "a")], "no scheduler is attached"),
        (vec![Op::pin_bpf_map("", "a")], "a name or path is empty"),
        (vec![Op::pin_bpf_map(".bss", "../a")], "below /sys/fs/bpf"),
        (vec![Op::pin_bpf_map(".bss", "/a")], "below /sys/fs/bpf"),
    ] {
        let w = world(true);
        let text = execute_steps(&w.ctx(), steps(ops)).unwrap_err().to_string();
        assert!(text.contains(why), "{text}");
        assert_eq!(w.log(), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn a_scheduler_is_asked_about_workers_that_are_stuck() {
    let asked = |attached, duration_s, ops: Vec<Op>| {
        let w = world(attached);
        w.state.get().stuck_from = Some(Duration::from_millis(500));
        let mut ctx = w.ctx();
        ctx.duration = Duration::from_secs(duration_s);
        let setup = Setup::Defs(vec![CgroupDef::named("cg_0").workers(2)]);
        let step = |setup, ops| Step { setup, ops, hold: HoldSpec::frac(0.5) };
        // Whether they fail for it is another question.
        let _ = execute_steps(&ctx, vec![step(setup, Vec::new()), step(Setup::Defs(Vec::new()), ops)]);
        let prompts = w.log().iter().filter(|line| line.starts_with("prompt")).count();
        let events = w.state.get().events.clone();
        (prompts, events.into_iter().find(|e| e.op_kind == "WorkerStuck"))
    };
    let (prompts, event) = asked(true, 10, Vec::new());
    let event = event.expect("it is told");
    assert_eq!((prompts, event.detail.as_str()), (1, "cg_0 worker 0, cg_0 worker 1: mine was asked"));
    assert!((2500..2800).contains(&event.elapsed_ms), "{event:?}");
    assert_eq!(asked(true, 2, Vec::new()), (0, None), "not stuck for long enough");
    assert_eq!(asked(false, 10, Vec::new()), (0, None), "nobody to ask");
    assert_eq!(asked(true, 4, vec![Op::freeze_cgroup("cg_0")]), (0, None), "it is frozen in time");
}

#[test]
fn one_that_does_not_attach_ends_the_scenario() {
    let w = world(true);
    w.state.get().fail_at = Some(1);
    let text = execute_steps(&w.ctx(), steps(vec![Op::restart_scheduler()])).unwrap_err().to_string();
    assert_eq!(text, "step 1: attaching scheduler \"mine\": told to fail");
}
