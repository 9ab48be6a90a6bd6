//! A context's small helpers.

use crate::world::World;
use ktstr_topology::CpusetSpec;
use std::time::Duration;

#[test]
fn a_cgroup_of_the_context_has_its_number_of_workers() {
    let w = World::new(2, 2);
    let mut ctx = w.ctx();
    ctx.workers_per_cgroup = 7;
    let def = ctx.cgroup_def("a");
    assert_eq!((def.name.as_str(), def.main.num_workers), ("a", Some(7)));
}

#[test]
fn a_cpuset_is_counted_on_this_machine() {
    let w = World::new(2, 2);
    assert_eq!(w.ctx().cpuset_cpus(&CpusetSpec::llc(1)), Ok(2));
    assert!(w.ctx().cpuset_cpus(&CpusetSpec::llc(2)).is_err());
}

#[test]
fn a_settled_hold_never_overflows() {
    let w = World::new(1, 1);
    let mut ctx = w.ctx();
    ctx.settle = Duration::from_millis(100);
    assert_eq!(ctx.settled_hold(0.5), Duration::from_millis(1100));
    assert_eq!(ctx.settled_hold(-1.0), ctx.settle);
    assert_eq!(ctx.settled_hold(f64::NAN), ctx.settle);
    assert_eq!(ctx.settled_hold(f64::INFINITY), Duration::MAX);
    assert_eq!(ctx.current_step(), 0);
}
