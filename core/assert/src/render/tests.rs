//! The text as users see it, kept in `snapshots/`.

use super::*;
use crate::CgroupStats;

fn cgroup(name: &str, cpus: &str, spread: Option<f64>, gap: u64, iterations: u64) -> CgroupStats {
    let cpus_used: ktstr_topology::CpuSet = cpus.parse().unwrap();
    CgroupStats {
        name: name.to_owned(),
        num_workers: 2,
        num_cpus: cpus_used.len(),
        cpus_used,
        spread,
        max_gap_ms: gap,
        total_migrations: 4,
        total_iterations: iterations,
        ..CgroupStats::default()
    }
}

fn documented() -> AssertResult {
    let mut r = AssertResult::from_detail(
        Detail::fail(DetailKind::Gap, "stuck 3500ms on cpu1 at +1200ms").in_cgroup("cg0"),
    );
    r.push_stats(cgroup("cg0", "0-1", Some(5.1), 3500, 15230));
    r.push_stats(cgroup("cg1", "0-1", Some(12.3), 890, 14870));
    r
}

#[test]
fn the_documented_failure_reads_exactly_so() {
    let expected = "\
ktstr_test 'my_test' [topo=1n1l2c1t] failed:
  stuck 3500ms on cpu1 at +1200ms

--- stats ---
4 workers, 2 cpus, 8 migrations, worst_spread=12.3%, worst_gap=3500ms
  cg0: workers=2 cpus=2 spread=5.1% gap=3500ms migrations=4 iter=15230
  cg1: workers=2 cpus=2 spread=12.3% gap=890ms migrations=4 iter=14870
";
    assert_eq!(render_failure("my_test", "1n1l2c1t", &documented()), expected);
}

#[test]
fn the_worst_comes_first_and_others_say_what_they_are() {
    let mut r = AssertResult::inconclusive("no wake-up latency was measured");
    r.merge(AssertResult::skip("needs 2 LLCs"));
    r.push(Detail::fail(DetailKind::Starvation, "worker 2 (tid 41) starved").in_cgroup("cg_1"));
    r.push(Detail::fail(DetailKind::Scheduler, "the scheduler failed:\nEXIT: stall\n  at 0x40"));
    r.note("the host was busy");
    r.passes.push("n: expected at least 5, got 7".to_owned());
    insta::assert_snapshot!(render_failure("mixed", "1n2l4c2t", &r));
}

#[test]
fn other_outcomes_have_their_word() {
    let mut text = render_failure("a", "1n1l1c1t", &AssertResult::inconclusive("the scenario ran no worker"));
    text += &render_failure("b", "1n1l1c1t", &AssertResult::skip("needs at least 2 LLCs, the machine has 1"));
    text += &render_failure("c", "1n1l1c1t", &AssertResult::pass());
    insta::assert_snapshot!(text);
}

#[test]
fn numbers_without_a_value_say_so() {
    let mut r = AssertResult::fail("broken");
    r.push_stats(CgroupStats { num_workers: 1, ..cgroup("", "3", None, 0, 0) });
    insta::assert_snapshot!(render_stats(&r.stats));
}
