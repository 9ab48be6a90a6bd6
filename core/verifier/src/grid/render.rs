//! A sweep as text for people.

use super::{Cell, Grid};
use crate::{ProgramSummary, Verdict, render_summary};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Machines that are named where several cells came out the same; of more only the number is told.
const NAMED: usize = 4;

impl Grid {
    /// A table of outcomes, what went wrong with the verifier's log of what it refused, the programs' sizes and
    /// statistics, and what was compared. A cell that never came is a dash.
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
        self.render_details(&mut text);
        text.push_str(&self.render_programs(&kernels));
        text.push_str(&self.render_statistics());
        for comparison in &self.comparisons {
            let _ = write!(text, "\n{}", comparison.render());
        }
        text
    }

    /// Cells that came out the same for the same reason are told once, and so is a log.
    fn render_details(&self, text: &mut String) {
        let same = |a: &Cell, b: &Cell| {
            (a.outcome, &a.scheduler, &a.kernel, &a.detail) == (b.outcome, &b.scheduler, &b.kernel, &b.detail)
        };
        let told: Vec<&Cell> = self.cells.iter().filter(|cell| !cell.detail.is_empty()).collect();
        let mut logs: BTreeSet<&str> = BTreeSet::new();
        for (at, cell) in told.iter().enumerate() {
            if told[..at].iter().any(|earlier| same(earlier, cell)) {
                continue;
            }
            let on: Vec<&str> =
                told[at..].iter().filter(|c| same(c, cell)).map(|c| c.topology.as_str()).collect();
            let machines = if on.len() > NAMED { format!("{} machines", on.len()) } else { on.join(", ") };
            let Cell { scheduler, kernel, outcome, detail, .. } = cell;
            let _ = writeln!(text, "{outcome} {scheduler} {machines} {kernel}: {detail}");
            if cell.log.is_empty() || !logs.insert(&cell.log) {
                continue;
            }
            let refused = |p: &&ProgramSummary| matches!(p.verdict, Verdict::Rejected { .. });
            for program in cell.programs.iter().filter(refused) {
                let _ = writeln!(text, "  {}", render_summary(program));
            }
            for line in cell.log.lines() {
                let _ = writeln!(text, "    {line}");
            }
        }
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

    /// What the verifier counted, by scheduler, kernel and program over all topologies. Its time differs from run to
    /// run and stays in the file.
    fn render_statistics(&self) -> String {
        // The least and the most of each number, by scheduler, kernel and program.
        type Ranges<'a> = BTreeMap<(&'a str, &'a str, &'a str), [Option<(u64, u64)>; 4]>;
        let mut known = Ranges::new();
        for cell in &self.cells {
            for program in &cell.programs {
                let Some(stats) = &program.stats else { continue };
                let of = (cell.scheduler.as_str(), cell.kernel.as_str(), program.name.as_str());
                let ranges = known.entry(of).or_default();
                let numbers = [
                    Some(stats.processed),
                    Some(stats.total_states),
                    Some(stats.peak_states),
                    stats.stack_bytes(),
                ];
                for (range, number) in ranges.iter_mut().zip(numbers) {
                    *range = number
                        .map(|n| range.map_or((n, n), |(low, high)| (low.min(n), high.max(n))))
                        .or(*range);
                }
            }
        }
        if known.is_empty() {
            return String::new();
        }
        let heads = ["scheduler", "kernel", "program", "insns", "states", "peak states", "stack bytes"];
        let mut table = vec![heads.map(str::to_string).to_vec()];
        for ((scheduler, kernel, program), ranges) in known {
            let numbers = ranges.iter().map(|it| it.as_ref().map_or("-".to_string(), range));
            let names = [scheduler, kernel, program].map(str::to_string);
            table.push(names.into_iter().chain(numbers).collect());
        }
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
