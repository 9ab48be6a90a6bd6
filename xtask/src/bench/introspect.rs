//! Reading a guest kernel from outside, beside drgn on the same core.

use super::KERNEL;
use crate::child::Child;
use crate::project::Project;
use crate::say;
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The version that the figures in the documents are of.
const DRGN: &str = "drgn==0.3.0";
const ORACLE: &str = "introspect/kernel/oracle";

pub(super) fn run(project: &Project, rounds: usize) -> Result<()> {
    say::heading("What is measured");
    let image = kernel_image(project)?;
    let vmlinux = image.with_file_name("vmlinux");
    if !vmlinux.exists() {
        anyhow::bail!("{} is not there: the bench needs a kernel that was built with it", vmlinux.display());
    }
    let dir = project.logs.join("bench-introspect");
    std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let core = take_core(project, &image, &dir)?;
    let cost = cost_binary(project)?;
    let python = drgn(project, &dir)?;
    println!("  kernel {}, 4 CPUs, core {}", image.display(), project.shown(&core));
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let mut command = Command::new(&cost);
        command.args([&core, &vmlinux]);
        ours.push(line(project, "bench: cost here", command)?);
        if let Some(python) = &python {
            let mut command = Command::new(python);
            command.current_dir(project.root.join(ORACLE)).arg("cost.py").args([&core, &vmlinux]);
            // The core's kernel was booted with nokaslr.
            command.args(["0", "0"]);
            theirs.push(line(project, "bench: cost with drgn", command)?);
        }
        println!("  round {round} of {rounds} done");
    }
    say::heading("Medians");
    report(&ours, &theirs);
    Ok(())
}

fn report(ours: &[Value], theirs: &[Value]) {
    let row = |what: &str, key: &str, against: &str, goal: &str| {
        let here = middle(ours, key);
        let there = (!theirs.is_empty()).then(|| middle(theirs, against)).flatten();
        let ratio = here.zip(there).map_or("-".into(), |(here, there)| format!("{:.1}", there / here));
        let shown = |time: Option<f64>| time.map_or("-".into(), nanoseconds);
        [what.to_string(), shown(here), shown(there), ratio, goal.to_string()]
    };
    let opening = "symbols_and_types";
    println!(
        "{}",
        say::table(&[
            ["".into(), "here".into(), "drgn".into(), "drgn / here".into(), "goal".into()],
            row("one sample of all CPUs", "sample", "sample", "at least 50"),
            row("open symbols and types", opening, opening, "at least 5"),
            row("the same from the index", "index", opening, "under 10 ms"),
            row("the whole kernel in the core", "kernel", opening, ""),
            row("the same from the index", "kernel_from_index", opening, ""),
        ])
    );
    let bytes = ours.first().and_then(|run| run["index_bytes"].as_u64()).unwrap_or(0);
    println!("  the index takes {:.1} MiB", bytes as f64 / f64::from(1 << 20));
    if theirs.is_empty() {
        println!("  drgn could not be had: there is nothing to compare with");
    }
}

/// The middle of the runs' medians, nanoseconds.
fn middle(runs: &[Value], key: &str) -> Option<f64> {
    let mut medians: Vec<f64> = runs.iter().filter_map(|run| run[key]["median"].as_f64()).collect();
    medians.sort_by(f64::total_cmp);
    medians.get(medians.len() / 2).copied()
}

fn nanoseconds(time: f64) -> String {
    match time {
        ..1e3 => format!("{time:.0} ns"),
        ..1e6 => format!("{:.1} us", time / 1e3),
        _ => format!("{:.1} ms", time / 1e6),
    }
}

fn kernel_image(project: &Project) -> Result<PathBuf> {
    if let Some(image) = std::env::var_os("KTSTR_TEST_KERNEL") {
        return Ok(PathBuf::from(image));
    }
    let spec = std::env::var("KTSTR_KERNEL").unwrap_or_else(|_| KERNEL.into());
    let command = project.ktstr(&["kernel", "path", &spec]);
    let found = Child::new(&project.logs, "bench: kernel", command).keep_stdout().check()?;
    found.last_line().map(PathBuf::from).context("asking for the kernel's path: no answer")
}

/// A core of a guest under load, as the oracle takes them.
fn take_core(project: &Project, image: &Path, dir: &Path) -> Result<PathBuf> {
    let core = dir.join("guest.core");
    let mut command = Command::new("python3");
    command.arg(project.root.join(ORACLE).join("take_core.py")).arg(image).arg(&core).arg("scx nokaslr");
    Child::new(&project.logs, "bench: taking a core", command).check()?;
    Ok(core)
}

fn cost_binary(project: &Project) -> Result<PathBuf> {
    let words = ["build", "--release", "-p", "ktstr-introspect-kernel", "--example", "cost"];
    let command = project.cargo(words.into_iter().chain(["--message-format", "json"]));
    let built = Child::new(&project.logs, "bench: building the readers", command).keep_stdout().check()?;
    built
        .stdout
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "cost")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("building the readers: cargo named no executable")
}

/// A Python that has drgn, in a folder of our own; nothing when it can't be had.
fn drgn(project: &Project, dir: &Path) -> Result<Option<PathBuf>> {
    let venv = dir.join("venv");
    let python = venv.join("bin/python");
    let has_it = |python: &Path| {
        let asked = Command::new(python).args(["-c", "import drgn"]).output();
        asked.is_ok_and(|output| output.status.success())
    };
    if has_it(&python) {
        return Ok(Some(python));
    }
    let mut make = Command::new("python3");
    make.args(["-m", "venv"]).arg(&venv);
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", DRGN]);
    for (label, command) in [("bench: making a venv", make), ("bench: installing drgn", install)] {
        let ended = Child::new(&project.logs, label, command).run()?;
        if !ended.success {
            println!("  {label} failed: {}", ended.output.lines().last().unwrap_or("no output"));
            return Ok(None);
        }
    }
    Ok(has_it(&python).then_some(python))
}

/// Runs a command that prints one line of JSON.
fn line(project: &Project, label: &str, command: Command) -> Result<Value> {
    let ended = Child::new(&project.logs, label, command).keep_stdout().check()?;
    let text = ended.last_line().with_context(|| format!("{label}: it printed nothing"))?;
    serde_json::from_str(text).with_context(|| format!("{label}: expected JSON, saw {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_middle_of_the_runs_and_its_unit() {
        let runs = [9.0, 1.0, 5.0].map(|time| json!({ "sample": { "best": 0.5, "median": time } }));
        assert_eq!(middle(&runs, "sample"), Some(5.0));
        assert_eq!(middle(&runs, "absent"), None);
        assert_eq!([12.0, 1_200.0, 1.2e7].map(nanoseconds), ["12 ns", "1.2 us", "12.0 ms"]);
    }
}
