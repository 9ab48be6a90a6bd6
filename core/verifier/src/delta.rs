//! Two runs compared, program by program.

use crate::grid::aligned;
use std::collections::{BTreeMap, BTreeSet};

/// A program's instructions verified in run a and in run b.
#[derive(Debug, Clone, PartialEq, Eq)]
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

    fn run(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
        counts.iter().map(|&(name, count)| (name.to_string(), count)).collect()
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
}
