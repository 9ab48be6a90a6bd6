//! What watching a guest costs the guest.

use super::{kernel_image, test_binaries};
use crate::project::Project;
use crate::say;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};

/// Periods beside none at all: the default, and ten times as often, where a cost would show.
const PERIODS_MS: [u32; 2] = [100, 10];
/// What is measured under each mode.
const MODES: [Mode; 2] = [
    // 80 samples at the default period.
    Mode { accel: "tcg", hold_s: 8, who: "the host samples at its own pace" },
    // A second of guest time costs several of the host's.
    Mode { accel: "deterministic", hold_s: 4, who: "a thread of the guest's asks for each sample" },
];

struct Mode {
    accel: &'static str,
    /// How long each run holds, guest time.
    hold_s: u32,
    who: &'static str,
}

/// One run.
struct Run {
    /// Iterations of all workers a second of the test, host time.
    rate: f64,
    /// Iterations of all workers: in deterministic mode the same in each run.
    iterations: f64,
    /// Host time of a sample, µs.
    sample_us: f64,
}

/// Runs of one period, each over the run beside it that was not watched.
#[derive(Default)]
struct Ratios {
    rates: Vec<f64>,
    iterations: Vec<f64>,
    costs: Vec<f64>,
}

pub(super) fn run(project: &Project, rounds: usize) -> Result<()> {
    say::heading("What is measured");
    let image = kernel_image(project)?;
    let [test] = test_binaries(project, ["seeds"])?;
    println!("  four spinners on 2 vCPUs, kernel {}", image.display());
    let dir = project.logs.join("bench-monitor");
    for mode in &MODES {
        say::heading(&format!("{}: {} s, {}", mode.accel, mode.hold_s, mode.who));
        measure(mode, rounds, &|period| one(&test, &image, mode, period, &dir))?;
    }
    println!("  goal: the default costs less than 2 % of the throughput");
    Ok(())
}

fn measure(mode: &Mode, rounds: usize, one: &dyn Fn(u32) -> Result<Run>) -> Result<()> {
    let mut base = Vec::new();
    let mut ratios = PERIODS_MS.map(|_| Ratios::default());
    for round in 1..=rounds {
        // Each period has the unwatched run beside it, so that a busy host troubles both.
        for (period, of) in PERIODS_MS.into_iter().zip(&mut ratios) {
            let (without, with) = (one(0)?, one(period)?);
            base.push(without.rate);
            of.rates.push(with.rate / without.rate);
            of.iterations.push(with.iterations / without.iterations);
            of.costs.push(with.sample_us);
        }
        println!("  round {round} of {rounds} done");
    }
    println!("{}", say::table(&table(mode, &base, &mut ratios)));
    Ok(())
}

/// Medians.
fn table(mode: &Mode, base: &[f64], ratios: &mut [Ratios]) -> Vec<[String; 5]> {
    // At the host's pace, what is done in a time and how fast it is done are the same number.
    let work = |text: &str| if mode.accel == "deterministic" { text.to_string() } else { String::new() };
    let mut rows = vec![
        ["".into(), "throughput".into(), work("work in guest time"), "a sample".into(), "of one CPU".into()],
        [
            "not watched".into(),
            "100.0 %".into(),
            work("100.00 %"),
            String::new(),
            format!("(its own runs spread by {:.1} %)", spread(base)),
        ],
    ];
    for (period, of) in PERIODS_MS.into_iter().zip(ratios) {
        let cost = middle(&mut of.costs);
        rows.push([
            format!("sampled every {period} ms"),
            format!("{:.1} %", middle(&mut of.rates) * 100.0),
            work(&format!("{:.2} %", middle(&mut of.iterations) * 100.0)),
            format!("{cost:.0} µs"),
            format!("{:.2} %", cost / (f64::from(period) * 1000.0) * 100.0),
        ]);
    }
    rows
}

fn one(test: &Path, image: &Path, mode: &Mode, period_ms: u32, dir: &Path) -> Result<Run> {
    if dir.exists() {
        std::fs::remove_dir_all(dir).with_context(|| format!("emptying {}", dir.display()))?;
    }
    let mut command = Command::new(test);
    command
        .args(["--exact", "ktstr/my_scheduler_test"])
        .env("NEXTEST", "1")
        .env("KTSTR_ACCEL", mode.accel)
        .env("KTSTR_TEST_KERNEL", image)
        .env("KTSTR_DURATION_S", mode.hold_s.to_string())
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
    let sample_us = sidecar["host"]["sample_us"].as_f64().unwrap_or_default();
    let iterations = iterations as f64;
    Ok(Run { rate: iterations * 1000.0 / ms as f64, iterations, sample_us })
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
            "host": { "test_ms": 2000, "sample_us": 150.0 },
        });
        let run = read(&sidecar).unwrap();
        assert!((run.rate - 500.0).abs() < 1e-9 && (run.sample_us - 150.0).abs() < 1e-9);
        assert!(read(&json!({})).is_err());
    }

    #[test]
    fn what_samples_cost_is_told_under_each_mode() {
        for mode in &MODES {
            let mut ratios =
                PERIODS_MS.map(|_| Ratios { rates: vec![0.99], iterations: vec![0.997], costs: vec![200.0] });
            let rows = table(mode, &[100.0, 98.0], &mut ratios);
            assert_eq!(rows[2][..2], ["sampled every 100 ms", "99.0 %"]);
            assert_eq!(rows[2][2], if mode.accel == "deterministic" { "99.70 %" } else { "" });
            assert_eq!(rows[2][3..], ["200 µs", "0.20 %"]);
        }
    }

    #[test]
    fn the_spread_is_of_the_most() {
        assert!((spread(&[90.0, 100.0, 95.0]) - 10.0).abs() < 1e-9);
        assert!(spread(&[]).abs() < 1e-9);
    }
}
