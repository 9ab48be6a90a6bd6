//! The outcome of a sweep: schedulers × topologies × kernels.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

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
}

impl Cell {
    fn place(&self) -> (&str, &str, &str) {
        (&self.scheduler, &self.topology, &self.kernel)
    }
}

/// All cells of a sweep, one for each place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grid {
    cells: Vec<Cell>,
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

    /// A table of outcomes, what went wrong, and the programs' sizes. A cell that never
    /// came is a dash.
    pub fn render(&self) -> String {
        let kernels: BTreeSet<&str> = self.cells.iter().map(|cell| cell.kernel.as_str()).collect();
        let mut table = vec![row(["scheduler", "topology"], kernels.iter().copied())];
        for (scheduler, topology) in self.rows() {
            let outcomes = kernels.iter().map(|kernel| {
                let place = (scheduler, topology, *kernel);
                let cell = self.cells.iter().find(|cell| cell.place() == place);
                cell.map_or_else(|| "-".to_string(), |cell| cell.outcome.to_string())
            });
            table.push(row([scheduler, topology], outcomes));
        }
        let mut text = aligned(&table);
        for cell in self.cells.iter().filter(|cell| !cell.detail.is_empty()) {
            let Cell { scheduler, topology, kernel, outcome, detail, .. } = cell;
            let _ = writeln!(text, "{outcome} {scheduler} {topology} {kernel}: {detail}");
        }
        text.push_str(&self.render_programs(&kernels));
        text
    }

    fn render_programs(&self, kernels: &BTreeSet<&str>) -> String {
        let schedulers: BTreeSet<&str> = self.cells.iter().map(|cell| cell.scheduler.as_str()).collect();
        let mut table = Vec::new();
        for scheduler in schedulers {
            let by_kernel: Vec<_> =
                kernels.iter().map(|kernel| self.verified_insns(scheduler, kernel)).collect();
            let programs: BTreeSet<&str> = by_kernel.iter().flatten().map(|(name, _)| *name).collect();
            for program in programs {
                let ranges = by_kernel.iter().map(|known| known.get(program).map_or("-".into(), range));
                table.push(row([scheduler, program], ranges));
            }
        }
        if table.is_empty() {
            return String::new();
        }
        table.insert(0, row(["scheduler", "verified_insns"], kernels.iter().copied()));
        format!("\n{}", aligned(&table))
    }

    /// Scheduler and topology of each row, in the order they came.
    fn rows(&self) -> Vec<(&str, &str)> {
        let mut seen = BTreeSet::new();
        let places = self.cells.iter().map(|cell| (cell.scheduler.as_str(), cell.topology.as_str()));
        places.filter(|place| seen.insert(*place)).collect()
    }
}

/// `lo..hi`, or the one number.
fn range(&(low, high): &(u64, u64)) -> String {
    if low == high { low.to_string() } else { format!("{low}..{high}") }
}

fn row<T: Into<String>>(heads: [&str; 2], rest: impl Iterator<Item = T>) -> Vec<String> {
    heads.into_iter().map(str::to_string).chain(rest.map(Into::into)).collect()
}

/// Columns as wide as their widest entry, two spaces between.
pub(crate) fn aligned(table: &[Vec<String>]) -> String {
    let columns = table.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        table.iter().filter_map(|row| row.get(column)).map(|it| it.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in table {
        let line = row.iter().zip(&widths).fold(String::new(), |mut line, (entry, width)| {
            let _ = write!(line, "{entry:width$}  ");
            line
        });
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests;
