//! The outcome of a sweep: schedulers × topologies × kernels.

mod render;

use crate::{Comparison, ProgramSummary};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

pub(crate) use render::aligned;

/// How one cell came out. Worse ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Not tried, for a reason.
    Skip,
    /// Verified, attached and scheduled.
    Pass,
    /// No data to judge by.
    Inconclusive,
    /// It did not verify, attach or schedule.
    Fail,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Skip => "SKIP",
            Self::Pass => "PASS",
            Self::Inconclusive => "INCONCLUSIVE",
            Self::Fail => "FAIL",
        })
    }
}

/// One scheduler on one kernel in one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// The declared scheduler.
    pub scheduler: String,
    /// The machine's shape, as topologies are written.
    pub topology: String,
    /// The kernel, as people tell it from others.
    pub kernel: String,
    /// How it came out.
    pub outcome: Outcome,
    /// Why, in a line; empty for a pass.
    #[serde(default)]
    pub detail: String,
    /// Instructions verified, by program.
    #[serde(default)]
    pub verified_insns: BTreeMap<String, u64>,
    /// What the verifier said of each program, as far as the scheduler printed it: statistics and verdict.
    #[serde(default)]
    pub programs: Vec<ProgramSummary>,
    /// The verifier's log of the program that the kernel refused, as people are shown it; empty if it took all.
    #[serde(default)]
    pub log: String,
}

impl Cell {
    /// A cell that tells no more than how it came out.
    pub fn new(scheduler: &str, topology: &str, kernel: &str, outcome: Outcome) -> Self {
        Self {
            scheduler: scheduler.to_string(),
            topology: topology.to_string(),
            kernel: kernel.to_string(),
            outcome,
            detail: String::new(),
            verified_insns: BTreeMap::new(),
            programs: Vec::new(),
            log: String::new(),
        }
    }

    fn place(&self) -> (&str, &str, &str) {
        (&self.scheduler, &self.topology, &self.kernel)
    }
}

/// All cells of a sweep, one for each place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grid {
    cells: Vec<Cell>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    comparisons: Vec<Comparison>,
}

impl Grid {
    /// Adds a cell; it replaces an earlier one of the same place.
    pub fn record(&mut self, cell: Cell) {
        match self.cells.iter_mut().find(|known| known.place() == cell.place()) {
            Some(known) => *known = cell,
            None => self.cells.push(cell),
        }
    }

    /// The cells in the order they came.
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// The worst cell's outcome. A sweep in which nothing ran is inconclusive.
    pub fn outcome(&self) -> Outcome {
        match self.cells.iter().map(|cell| cell.outcome).max() {
            None | Some(Outcome::Skip) => Outcome::Inconclusive,
            Some(worst) => worst,
        }
    }

    /// For each program of a scheduler on a kernel the least and the most instructions
    /// verified over all topologies.
    pub fn verified_insns(&self, scheduler: &str, kernel: &str) -> BTreeMap<&str, (u64, u64)> {
        let mut ranges: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        let cells = self.cells.iter().filter(|cell| cell.scheduler == scheduler && cell.kernel == kernel);
        for (name, &insns) in cells.flat_map(|cell| &cell.verified_insns) {
            let range = ranges.entry(name).or_insert((insns, insns));
            *range = (range.0.min(insns), range.1.max(insns));
        }
        ranges
    }

    /// Compares two schedulers of the sweep on every machine and kernel that either has a cell of.
    pub fn compare(&mut self, a: &str, b: &str) {
        let at = |scheduler: &str, cell: &Cell| {
            self.cells.iter().find(|c| c.place() == (scheduler, &cell.topology, &cell.kernel))
        };
        let of_a = self.cells.iter().filter(|cell| cell.scheduler == a);
        let only_b = self.cells.iter().filter(|cell| cell.scheduler == b && at(a, cell).is_none());
        let made = of_a
            .chain(only_b)
            .filter_map(|cell| Comparison::of((a, at(a, cell)), (b, at(b, cell))))
            .collect();
        self.comparisons = made;
    }

    /// Compares every cell of the sweep (a) with the one of the same place in an earlier sweep (b), which is called
    /// `name`.
    pub fn compare_with(&mut self, earlier: &Self, name: &str) {
        let made = self.cells.iter().filter_map(|cell| {
            let before = earlier.cells.iter().find(|known| known.place() == cell.place());
            Comparison::of((&cell.scheduler, Some(cell)), (name, before))
        });
        self.comparisons = made.collect();
    }

    /// What was compared.
    pub fn comparisons(&self) -> &[Comparison] {
        &self.comparisons
    }
}

#[cfg(test)]
mod tests;
