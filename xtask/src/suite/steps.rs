//! The steps of `cargo xtask test`. A new step is a row in [`STEPS`].

use super::Run;
use super::tally::Tally;
use crate::child::{Child, Ended};
use crate::kvm_lab;
use crate::lint;
use crate::setup::{self, Part};
use anyhow::{Context, Result};

/// One step.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) name: &'static str,
    /// A few words for the heading.
    pub(super) about: &'static str,
    /// It needs no kernel and takes a minute or two.
    pub(super) quick: bool,
    /// Steps that it is pointless without, if they are run at all.
    pub(super) needs: &'static [&'static str],
    /// True if all is well; an error is a failure with a text.
    pub(super) run: fn(&mut Run<'_>) -> Result<bool>,
}

/// In order; cheap ones first.
pub(super) const STEPS: [Step; 6] = [
    Step { name: "setup", about: "what this machine needs", quick: true, needs: &[], run: set_up },
    Step {
        name: "lint",
        about: "format, clippy, rules",
        quick: true,
        needs: &[],
        run: |run| lint::run(run.project, false),
    },
    Step { name: "unit", about: "tests that need no kernel", quick: true, needs: &[], run: unit },
    Step { name: "kernel", about: "the kernels to test on", quick: false, needs: &["setup"], run: kernel },
    Step {
        name: "e2e",
        about: "tests in virtual machines",
        quick: false,
        needs: &["setup", "kernel"],
        run: e2e,
    },
    Step {
        name: "kvm-lab",
        about: "the mode kvm, in an emulated machine",
        quick: false,
        needs: &["setup", "kernel"],
        run: |run| kvm_lab::run(run.project, &kvm_lab::Extent::Step, &mut run.tally),
    },
];

/// A distribution's kernel: no sched_ext, no build.
const STOCK_KERNEL: &str = "image:6.12";
/// Ours, from the distribution's source: with sched_ext.
const KERNEL: &str = "apt:6.12";

/// The test files of the facade and of the QEMU adapter boot machines; everything else is a
/// unit test.
const IN_MACHINES: &str =
    "((package(ktstr) & kind(test) & not binary(compile_fail)) | (package(ktstr-qemu) & kind(test)))";
/// Those of them that need nothing but the kernel's own scheduler, by name.
const ON_STOCK_KERNEL: &str = "((package(ktstr) & binary(seeds)) | (package(ktstr-qemu) & kind(test)))";

fn set_up(run: &mut Run<'_>) -> Result<bool> {
    setup::ensure(run.project, if run.quick { &[Part::Tests] } else { &Part::ALL })?;
    Ok(true)
}

fn unit(run: &mut Run<'_>) -> Result<bool> {
    let filter = format!("not {IN_MACHINES}");
    let words =
        ["nextest", "run", "--workspace", "--no-fail-fast", "--status-level", "fail", "-E", filter.as_str()];
    let log = run.project.logs.join("skipped-tests.log");
    std::fs::write(&log, "").with_context(|| format!("emptying {}", log.display()))?;
    let mut command = run.project.cargo(words);
    command.env("KTSTR_SKIP_LOG", &log);
    let tests = Child::new(&run.project.logs, "unit tests", command).show(worth_showing).run()?;
    run.count(&tests, Tally::of_nextest);
    let skipped = std::fs::read_to_string(&log).with_context(|| format!("reading {}", log.display()))?;
    skipped.lines().for_each(|line| println!("    skipped {line}"));
    run.tally.set_apart(skipped.lines().count() as u64);
    let words = ["test", "--doc", "--no-fail-fast", "-p", "ktstr"];
    let examples = Child::new(&run.project.logs, "documentation's examples", run.project.cargo(words))
        .show(worth_showing)
        .run()?;
    run.count(&examples, Tally::of_libtest);
    Ok(tests.success && examples.success)
}

fn kernel(run: &mut Run<'_>) -> Result<bool> {
    build_cli(run)?;
    let mut good = true;
    for spec in [STOCK_KERNEL, KERNEL] {
        let command = run.project.ktstr(&["kernel", "build", spec]);
        let ended = Child::new(&run.project.logs, &format!("kernel {spec}"), command).keep_stdout().run()?;
        match ended.last_line().filter(|_| ended.success) {
            Some(key) => println!("  {spec}: {key}"),
            None => {
                println!("  {}", ended.failure());
                good = false;
            }
        }
    }
    Ok(good)
}

fn e2e(run: &mut Run<'_>) -> Result<bool> {
    build_cli(run)?;
    let mut good = true;
    for (kernel, filter) in [(KERNEL, IN_MACHINES), (STOCK_KERNEL, ON_STOCK_KERNEL)] {
        println!("  on {kernel}");
        let words = [
            "test",
            "--kernel",
            kernel,
            "--",
            "-p",
            "ktstr",
            "-p",
            "ktstr-qemu",
            "--no-fail-fast",
            "-E",
            filter,
        ];
        let ended = Child::new(&run.project.logs, &format!("e2e on {kernel}"), run.project.ktstr(&words))
            .show(worth_showing)
            .run()?;
        run.count(&ended, Tally::of_nextest);
        good &= ended.success;
    }
    Ok(good)
}

/// Apart from its first use, so that a build isn't mistaken for a slow kernel.
fn build_cli(run: &Run<'_>) -> Result<()> {
    Child::new(&run.project.logs, "building ktstr", run.project.cargo(["build", "-p", "ktstr", "--bins"]))
        .check()?;
    Ok(())
}

impl Run<'_> {
    fn count(&mut self, ended: &Ended, read: fn(&str) -> Tally) {
        self.tally += read(&ended.output);
    }
}

fn worth_showing(line: &str) -> bool {
    !line.trim().is_empty() && !is_cargo_progress(line)
}

/// Cargo's indented lines about its own progress. They are in the log, and the
/// latest one shows in the sign of life.
pub(crate) fn is_cargo_progress(line: &str) -> bool {
    const VERBS: [&str; 14] = [
        "Adding",
        "Blocking",
        "Building",
        "Checking",
        "Compiling",
        "Dirty",
        "Doc-tests",
        "Downloaded",
        "Downloading",
        "Finished",
        "Fresh",
        "Locking",
        "Running",
        "Updating",
    ];
    line.starts_with(' ') && line.split_whitespace().next().is_some_and(|verb| VERBS.contains(&verb))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_progress_is_told_from_results() {
        for line in
            ["   Compiling syn v3.0.0", "    Finished `test` profile", "    Blocking waiting for file lock"]
        {
            assert!(is_cargo_progress(line), "{line}");
        }
        for line in [
            "        PASS [   0.004s] a b",
            "     Summary [ 1s] 1 test run: 1 passed",
            "error: Compiling",
            "",
        ] {
            assert!(!is_cargo_progress(line), "{line}");
        }
    }
}
