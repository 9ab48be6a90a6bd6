//! Two runs compared, program by program.

use crate::grid::{Cell, aligned};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// A program's instructions verified in run a and in run b.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramDelta {
    /// The program.
    pub name: String,
    /// In a; `None` if a hasn't got the program.
    pub a: Option<u64>,
    /// In b; `None` if b hasn't got the program.
    pub b: Option<u64>,
}

impl ProgramDelta {
    /// `a − b`: positive if a was the costlier one. `None` if one of them is missing.
    pub fn difference(&self) -> Option<i128> {
        Some(i128::from(self.a?) - i128::from(self.b?))
    }
}

/// The programs of two cells: the same machine on the same kernel, another scheduler or another day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// What a is: a scheduler, or where its numbers are from.
    pub a: String,
    /// What b is.
    pub b: String,
    /// The machine's shape.
    pub topology: String,
    /// The kernel.
    pub kernel: String,
    /// One for each program of either; empty if there is nothing to compare.
    pub programs: Vec<ProgramDelta>,
    /// Why there is nothing to compare; `None` if there is.
    #[serde(default)]
    pub lacks: Option<String>,
}

impl Comparison {
    /// Compares two cells of one machine and kernel. A side that is not there, or that has no numbers, is told.
    /// The one given decides which machine and kernel it is about; of no cell at all there is no comparison.
    pub fn of((a, in_a): (&str, Option<&Cell>), (b, in_b): (&str, Option<&Cell>)) -> Option<Self> {
        let place = in_a.or(in_b)?;
        let lacks: Vec<String> =
            [(a, in_a), (b, in_b)].into_iter().filter_map(|(name, cell)| lack(name, cell)).collect();
        let programs = match (in_a, in_b) {
            (Some(a), Some(b)) if lacks.is_empty() => deltas(&a.verified_insns, &b.verified_insns),
            _ => Vec::new(),
        };
        Some(Self {
            a: a.to_string(),
            b: b.to_string(),
            topology: place.topology.clone(),
            kernel: place.kernel.clone(),
            programs,
            lacks: (!lacks.is_empty()).then(|| lacks.join("; ")),
        })
    }

    /// A heading with both names, and the table of [`render_deltas`] or why there is none.
    pub fn render(&self) -> String {
        let Self { a, b, topology, kernel, .. } = self;
        let mut text = format!("{a} − {b} on {topology} {kernel}");
        match &self.lacks {
            Some(why) => {
                let _ = writeln!(text, ": not compared, {why}");
            }
            None => {
                text.push('\n');
                text.push_str(&render_deltas(&self.programs));
            }
        }
        text
    }
}

/// Why a cell has nothing to compare.
fn lack(name: &str, cell: Option<&Cell>) -> Option<String> {
    match cell {
        None => Some(format!("{name} has no such cell")),
        Some(cell) if cell.verified_insns.is_empty() => {
            let word = cell.outcome.to_string().to_lowercase();
            Some(format!("{name} verified no program ({word})"))
        }
        Some(_) => None,
    }
}

/// One for each program of either run, by name.
pub fn deltas(a: &BTreeMap<String, u64>, b: &BTreeMap<String, u64>) -> Vec<ProgramDelta> {
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    names
        .into_iter()
        .map(|name| ProgramDelta { name: name.clone(), a: a.get(name).copied(), b: b.get(name).copied() })
        .collect()
}

/// A table; what only one run has is a dash in the other.
pub fn render_deltas(deltas: &[ProgramDelta]) -> String {
    let number = |number: Option<u64>| number.map_or("-".to_string(), |number| number.to_string());
    let mut table = vec![["program", "a", "b", "a-b"].map(str::to_string).to_vec()];
    for delta in deltas {
        let difference = delta.difference().map_or("-".to_string(), |it| format!("{it:+}"));
        table.push(vec![delta.name.clone(), number(delta.a), number(delta.b), difference]);
    }
    aligned(&table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Outcome;

    fn run(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
        counts.iter().map(|&(name, count)| (name.to_string(), count)).collect()
    }

    fn cell(outcome: Outcome, counts: &[(&str, u64)]) -> Cell {
        let mut cell = Cell::new("s", "1n1l1c1t", "6.12", outcome);
        cell.verified_insns = run(counts);
        cell
    }

    #[test]
    fn programs_of_both_runs_are_compared_and_others_named() {
        let found = deltas(&run(&[("x", 10), ("gone", 1)]), &run(&[("x", 25), ("new", 3)]));
        let differences: Vec<_> = found.iter().map(|it| (it.name.as_str(), it.difference())).collect();
        assert_eq!(differences, [("gone", None), ("new", None), ("x", Some(-15))]);
        let text = render_deltas(&found);
        assert!(text.contains("gone     1   -   -\n") && text.contains("x        10  25  -15"), "{text}");
    }

    #[test]
    fn the_largest_numbers_have_a_difference() {
        let found = deltas(&run(&[("x", 0)]), &run(&[("x", u64::MAX)]));
        assert_eq!(found[0].difference(), Some(-i128::from(u64::MAX)));
    }

    #[test]
    fn two_cells_are_compared_under_their_names() {
        let (a, b) = (cell(Outcome::Pass, &[("x", 10)]), cell(Outcome::Pass, &[("x", 25)]));
        let both = Comparison::of(("new", Some(&a)), ("old", Some(&b))).unwrap();
        assert_eq!(both.lacks, None);
        assert_eq!(both.render(), "new − old on 1n1l1c1t 6.12\nprogram  a   b   a-b\nx        10  25  -15\n");
    }

    #[test]
    fn what_can_not_be_compared_is_told() {
        let (a, b) = (cell(Outcome::Pass, &[("x", 10)]), cell(Outcome::Fail, &[]));
        let broken = Comparison::of(("new", Some(&a)), ("old", Some(&b))).unwrap();
        assert_eq!(
            broken.render(),
            "new − old on 1n1l1c1t 6.12: not compared, old verified no program (fail)\n"
        );
        let alone = Comparison::of(("new", None), ("old", Some(&a))).unwrap();
        assert_eq!(alone.lacks.as_deref(), Some("new has no such cell"));
        assert_eq!(Comparison::of(("new", None), ("old", None)), None);
    }
}
