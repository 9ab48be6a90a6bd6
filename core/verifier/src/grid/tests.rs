//! Sweeps in small.

use super::*;

use crate::{Stats, Verdict};

fn cell(scheduler: &str, topology: &str, kernel: &str, outcome: Outcome, insns: &[(&str, u64)]) -> Cell {
    Cell {
        detail: if outcome == Outcome::Pass { String::new() } else { "why".into() },
        verified_insns: insns.iter().map(|&(name, count)| (name.to_string(), count)).collect(),
        ..Cell::new(scheduler, topology, kernel, outcome)
    }
}

fn verified(name: &str, processed: u64, stack: &[u32]) -> ProgramSummary {
    let stats = Stats {
        processed,
        total_states: processed / 10,
        peak_states: 2,
        stack: stack.to_vec(),
        ..Stats::default()
    };
    let verified_insns = Some(processed);
    ProgramSummary { name: name.into(), verified_insns, stats: Some(stats), verdict: Verdict::Accepted }
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

#[test]
fn statistics_span_topologies() {
    let mut grid = Grid::default();
    for (topology, insns) in [("1n1l1c1t", 55), ("2n4l4c2t", 137)] {
        let mut one = cell("fixture", topology, "6.12", Outcome::Pass, &[("enqueue", insns)]);
        one.programs = vec![verified("enqueue", insns, &[72, 8]), verified("init", 15, &[])];
        grid.record(one);
    }
    insta::assert_snapshot!(grid.render());
}

#[test]
fn a_refusal_is_told_once_with_its_log() {
    let mut grid = Grid::default();
    for topology in ["1n1l1c1t", "1n1l2c1t", "1n2l2c1t", "2n2l2c1t", "2n4l4c2t"] {
        let mut one = cell("broken", topology, "6.12", Outcome::Fail, &[]);
        let verdict = Verdict::Rejected {
            reason: Some("R0 invalid mem access".into()),
            source: Some("*seen = 1;".into()),
            errno: Some("-EACCES".into()),
        };
        one.programs =
            vec![ProgramSummary { name: "running".into(), verified_insns: None, stats: None, verdict }];
        one.log = "0: (95) exit\nR0 invalid mem access\n".into();
        grid.record(one);
    }
    grid.record(cell("broken", "1n1l1c1t", "6.1", Outcome::Skip, &[]));
    insta::assert_snapshot!(grid.render());
}

#[test]
fn two_schedulers_are_compared_place_by_place() {
    let mut grid = grid();
    grid.record(cell("slim", "1n1l2c1t", "6.12", Outcome::Pass, &[("enqueue", 50), ("exit", 3)]));
    grid.record(cell("slim", "9n9l9c1t", "6.12", Outcome::Pass, &[("enqueue", 50)]));
    grid.compare("fixture", "slim");
    let text: Vec<String> = grid.comparisons().iter().map(Comparison::render).collect();
    insta::assert_snapshot!(text.concat());
    let text = serde_json::to_string(&grid).unwrap();
    assert_eq!(serde_json::from_str::<Grid>(&text).unwrap(), grid);
}

#[test]
fn a_sweep_is_compared_with_an_earlier_one() {
    let (earlier, mut now) = (grid(), grid());
    now.record(cell("fixture", "1n1l2c1t", "6.12", Outcome::Pass, &[("enqueue", 60), ("init", 15)]));
    now.record(cell("fixture", "1n1l1c1t", "6.12", Outcome::Pass, &[("enqueue", 60)]));
    now.compare_with(&earlier, "old.json");
    let changed: Vec<_> = now.comparisons().iter().flat_map(|it| &it.programs).collect();
    assert_eq!(changed.iter().filter_map(|it| it.difference()).collect::<Vec<_>>(), [5, 0, 0, 0]);
    let lacks: Vec<_> = now.comparisons().iter().filter_map(|it| it.lacks.as_deref()).collect();
    assert_eq!(
        lacks,
        [
            "fixture verified no program (skip); old.json verified no program (skip)",
            "broken verified no program (fail); old.json verified no program (fail)",
            "old.json has no such cell"
        ]
    );
    assert!(now.render().contains("\nfixture − old.json on 1n1l2c1t 6.12\nprogram"), "{}", now.render());
}

/// Files that an earlier version wrote can be compared with.
#[test]
fn a_file_without_newer_fields_is_read() {
    let text = r#"{"cells":[{"scheduler":"s","topology":"t","kernel":"k","outcome":"pass","verified_insns":{"x":1}}]}"#;
    let grid: Grid = serde_json::from_str(text).unwrap();
    assert_eq!((grid.cells()[0].log.as_str(), grid.cells()[0].programs.len()), ("", 0));
}
