//! Ops that change the scheduler.

use crate::engine::execute_steps;
use crate::world::World;
use crate::{CgroupDef, HoldSpec, Op, Setup, Step};

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
    w.log().into_iter().filter(|line| line.contains("attach") || line.contains("detach")).collect()
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
fn one_that_does_not_attach_ends_the_scenario() {
    let w = world(true);
    w.state.get().fail_at = Some(1);
    let text = execute_steps(&w.ctx(), steps(vec![Op::restart_scheduler()])).unwrap_err().to_string();
    assert_eq!(text, "step 1: attaching scheduler \"mine\": told to fail");
}
