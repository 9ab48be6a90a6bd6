//! What watching a guest costs the guest.

use super::{kernel_image, test_binaries};
use crate::project::Project;
use crate::say;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};

/// How long each run holds: 80 samples at the default period.
const HOLD_S: u32 = 8;
/// Periods beside none at all: the default, and ten times as often, where a cost would show.
const PERIODS_MS: [u32; 2] = [100, 10];

/// One run.
struct Run {
    /// Iterations of all workers a second of the test.
    rate: f64,
    /// Host time of a sample, µs.
    sample_us: f64,
}

pub(super) fn run(project: &Project, rounds: usize) -> Result<()> {
    say::heading("What is measured");
    let image = kernel_image(project)?;
    let [test] = test_binaries(project, ["seeds"])?;
    println!("  four spinners on 2 vCPUs for {HOLD_S} s under tcg, kernel {}", image.display());
    let dir = project.logs.join("bench-monitor");
    let mut base = Vec::new();
    let mut ratios = PERIODS_MS.map(|_| Vec::new());
    let mut costs = PERIODS_MS.map(|_| Vec::new());
    for round in 1..=rounds {
        // Each period has the unwatched run beside it, so that a busy host troubles both.
        for (n, period) in PERIODS_MS.into_iter().enumerate() {
            let without = one(&test, &image, 0, &dir)?;
            let with = one(&test, &image, period, &dir)?;
            base.push(without.rate);
            ratios[n].push(with.rate / without.rate);
            costs[n].push(with.sample_us);
        }
        println!("  round {round} of {rounds} done");
    }
    say::heading("Medians");
    let mut rows = vec![["".into(), "throughput".into(), "a sample".into(), "of one CPU".into()]];
    let spread = spread(&base);
    rows.push([
        "not watched".into(),
        "100.0 %".into(),
        String::new(),
        format!("(its own runs spread by {spread:.1} %)"),
    ]);
    for ((period, ratios), costs) in PERIODS_MS.into_iter().zip(&mut ratios).zip(&mut costs) {
        let (ratio, cost) = (middle(ratios), middle(costs));
        rows.push([
            format!("sampled every {period} ms"),
            format!("{:.1} %", ratio * 100.0),
            format!("{cost:.0} µs"),
            format!("{:.2} %", cost / (f64::from(period) * 1000.0) * 100.0),
        ]);
    }
    println!("{}", say::table(&rows));
    println!("  goal: the default costs less than 2 % of the throughput");
    Ok(())
}

fn one(test: &Path, image: &Path, period_ms: u32, dir: &Path) -> Result<Run> {
    if dir.exists() {
        std::fs::remove_dir_all(dir).with_context(|| format!("emptying {}", dir.display()))?;
    }
    let mut command = Command::new(test);
    command
        .args(["--exact", "ktstr/my_scheduler_test"])
        .env("NEXTEST", "1")
        .env("KTSTR_ACCEL", "tcg")
        .env("KTSTR_TEST_KERNEL", image)
        .env("KTSTR_DURATION_S", HOLD_S.to_string())
        .env("KTSTR_MONITOR_MS", period_ms.to_string())
        .env("KTSTR_SIDECAR_DIR", dir)
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let output = command.output().with_context(|| format!("running {}", test.display()))?;
    if !output.status.success() {
        bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    let entries = std::fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))?;
    let sidecar = entries.filter_map(|e| Some(e.ok()?.path())).next().context("no sidecar was written")?;
    let bytes = std::fs::read(&sidecar).with_context(|| format!("reading {}", sidecar.display()))?;
    read(&serde_json::from_slice(&bytes)?).with_context(|| format!("in {}", sidecar.display()))
}

fn read(sidecar: &Value) -> Result<Run> {
    let cgroups = sidecar["result"]["stats"]["cgroups"].as_array().context("no statistics")?;
    let iterations: u64 = cgroups.iter().filter_map(|c| c["total_iterations"].as_u64()).sum();
    let ms = sidecar["host"]["test_ms"].as_u64().filter(|ms| *ms > 0).context("no time of the test")?;
    let sample_us = sidecar["monitor"]["cost_us"].as_f64().unwrap_or_default();
    Ok(Run { rate: iterations as f64 * 1000.0 / ms as f64, sample_us })
}

fn middle(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// From the least to the most, in percent of the most.
fn spread(values: &[f64]) -> f64 {
    let most = values.iter().copied().fold(0.0, f64::max);
    let least = values.iter().copied().fold(most, f64::min);
    if most > 0.0 { (most - least) / most * 100.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_rate_is_of_all_workers_over_the_hosts_time() {
        let sidecar = json!({
            "result": { "stats": { "cgroups": [{ "total_iterations": 600 }, { "total_iterations": 400 }] } },
            "host": { "test_ms": 2000 },
            "monitor": { "cost_us": 150.0 },
        });
        let run = read(&sidecar).unwrap();
        assert!((run.rate - 500.0).abs() < 1e-9 && (run.sample_us - 150.0).abs() < 1e-9);
        assert!(read(&json!({})).is_err());
    }

    #[test]
    fn the_spread_is_of_the_most() {
        assert!((spread(&[90.0, 100.0, 95.0]) - 10.0).abs() < 1e-9);
        assert!(spread(&[]).abs() < 1e-9);
    }
}
