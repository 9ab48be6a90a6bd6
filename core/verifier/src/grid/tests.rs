//! Sweeps in small.

use super::*;

fn cell(scheduler: &str, topology: &str, kernel: &str, outcome: Outcome, insns: &[(&str, u64)]) -> Cell {
    Cell {
        scheduler: scheduler.into(),
        topology: topology.into(),
        kernel: kernel.into(),
        outcome,
        detail: if outcome == Outcome::Pass { String::new() } else { "why".into() },
        verified_insns: insns.iter().map(|&(name, count)| (name.to_string(), count)).collect(),
    }
}

fn grid() -> Grid {
    let mut grid = Grid::default();
    grid.record(cell("fixture", "1n1l2c1t", "6.12", Outcome::Pass, &[("enqueue", 55), ("init", 15)]));
    grid.record(cell("fixture", "2n4l4c2t", "6.12", Outcome::Pass, &[("enqueue", 137), ("init", 15)]));
    grid.record(cell("fixture", "1n1l2c1t", "6.1", Outcome::Skip, &[]));
    grid.record(cell("broken", "1n1l2c1t", "6.12", Outcome::Fail, &[]));
    grid
}

#[test]
fn a_sweep_reads_as_a_table() {
    insta::assert_snapshot!(grid().render());
}

#[test]
fn ranges_span_topologies() {
    let grid = grid();
    let ranges = grid.verified_insns("fixture", "6.12");
    assert_eq!(ranges.get("enqueue"), Some(&(55, 137)));
    assert_eq!(ranges.get("init"), Some(&(15, 15)));
    assert!(grid.verified_insns("fixture", "6.1").is_empty());
}

#[test]
fn the_worst_cell_decides_and_nothing_is_no_pass() {
    let mut grid = grid();
    assert_eq!(grid.outcome(), Outcome::Fail);
    grid.record(cell("broken", "1n1l2c1t", "6.12", Outcome::Pass, &[]));
    assert_eq!((grid.outcome(), grid.cells().len()), (Outcome::Pass, 4));
    assert_eq!(Grid::default().outcome(), Outcome::Inconclusive);
    let mut skipped = Grid::default();
    skipped.record(cell("a", "t", "k", Outcome::Skip, &[]));
    assert_eq!(skipped.outcome(), Outcome::Inconclusive);
}

#[test]
fn it_survives_its_file() {
    let text = serde_json::to_string(&grid()).unwrap();
    assert!(text.contains(r#""outcome":"pass""#), "{text}");
    assert_eq!(serde_json::from_str::<Grid>(&text).unwrap(), grid());
}
