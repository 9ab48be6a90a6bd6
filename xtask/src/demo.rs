//! `cargo xtask demo`: from a fresh clone to the verdict of a real scenario.

use crate::args::Args;
use crate::child::Child;
use crate::project::Project;
use crate::say;
use crate::setup::{self, Part};
use crate::suite::{Tally, is_cargo_progress};
use anyhow::Result;
use std::cell::Cell;
use std::time::{Duration, Instant};

pub(crate) const HELP: &str = "\
cargo xtask demo [--quick]

Runs a scheduler scenario in a virtual machine: first on the distribution's own
kernel, which takes minutes from nothing; then on a kernel with sched_ext, which
is built once and takes some minutes more, under a BPF scheduler: a sound one, and
one with a bug. Nothing has to be there but Rust, and the second time it takes
seconds.

  --quick   stop after the first kernel";

/// A kernel that scenes are shown on.
struct Half {
    spec: &'static str,
    getting: &'static str,
    scenes: &'static [Scene],
}

/// A test of cli/tests/demo.rs, and how it should end.
struct Scene {
    test: &'static str,
    showing: &'static str,
    /// What the line BUG SUMMARY of a failure must say, in this order: the reason, the task, the CPU. `None` means that
    /// it should pass.
    fails_with: Option<&'static [&'static str]>,
}

/// The planted bug: the reason, the task, the CPU.
const BUG: &[&str] = &["runnable task stall", ", task ", "] waited ", " on CPU 3, "];

const STOCK: Half = Half {
    spec: "image:6.12",
    getting: "A ready-made kernel from the distribution (unpacked, not installed)",
    scenes: &[Scene {
        test: "demo_two_groups",
        showing: "The scenario, under the kernel's own scheduler (EEVDF)",
        fails_with: None,
    }],
};

const SCHED_EXT: Half = Half {
    spec: "apt:6.12",
    getting: "A kernel with sched_ext (built once, about 8 minutes on two cores)",
    scenes: &[
        Scene {
            test: "demo_sound_scheduler",
            showing: "The same scenario, under a BPF scheduler (cli/scx-fixture)",
            fails_with: None,
        },
        Scene {
            test: "demo_forgotten_cpu",
            showing: "The same again, but the scheduler has a bug: it forgets who waits for CPU 3",
            fails_with: Some(BUG),
        },
    ],
};

/// What the demo has come to.
#[derive(Default)]
struct Demo {
    /// Time spent in runs of the scenario: starting a machine, running, judging.
    machines: Duration,
    shown: usize,
    failed: bool,
}

/// The command itself.
pub(crate) fn command(project: &Project, mut args: Args) -> Result<bool> {
    let quick = args.flag("--quick");
    args.finish()?;
    let started = Instant::now();
    println!("ktstr demo: a scheduler test, in a real kernel, in a small virtual machine.");

    say::heading("What this machine needs");
    let parts: &[Part] =
        if quick { &[Part::Machine] } else { &[Part::Machine, Part::KernelBuild, Part::Scheduler] };
    setup::ensure(project, parts)?;

    say::heading("Compiling ktstr and the scenario");
    build(project, quick)?;

    let mut demo = Demo::default();
    demo.half(project, &STOCK)?;
    if !quick {
        demo.half(project, &SCHED_EXT)?;
    }
    say::heading("Done");
    demo.finish(started.elapsed(), quick);
    Ok(demo.shown > 0 && !demo.failed)
}

fn build(project: &Project, quick: bool) -> Result<()> {
    // Each by itself, so that none is compiled behind a quiet `cargo run` or a running test.
    let mut all = vec![
        ("building ktstr", vec!["build", "-p", "ktstr", "--bins"]),
        ("building the scenario", vec!["test", "-p", "ktstr", "--test", "demo", "--no-run"]),
    ];
    if !quick {
        all.push(("building the scheduler", vec!["build", "-p", "scx-fixture", "--release"]));
    }
    let mut took = Duration::ZERO;
    for (label, words) in all {
        took += Child::new(&project.logs, label, project.cargo(words)).check()?.elapsed;
    }
    println!("  took {}", say::duration(took));
    Ok(())
}

impl Demo {
    /// Gets a kernel and shows the scenario on it. Without the kernel it says so
    /// and leaves the rest to the other half.
    fn half(&mut self, project: &Project, half: &Half) -> Result<()> {
        say::heading(half.getting);
        let command = project.ktstr(&["kernel", "build", half.spec]);
        let label = format!("demo: kernel {}", half.spec);
        let got = Child::new(&project.logs, &label, command)
            .keep_stdout()
            .show(|line| !line.trim().is_empty() && !is_cargo_progress(line))
            .run()?;
        let Some(key) = got.last_line().filter(|_| got.success) else {
            println!("  This kernel can't be had here, so the scenario isn't shown on it.");
            println!("  {}", got.ending());
            self.failed |= half.spec == SCHED_EXT.spec;
            return Ok(());
        };
        println!("  took {}", say::duration(got.elapsed));

        for scene in half.scenes {
            self.scene(project, scene, key)?;
        }
        Ok(())
    }

    fn scene(&mut self, project: &Project, scene: &Scene, kernel: &str) -> Result<()> {
        say::heading(scene.showing);
        let words = ["test", "--quiet", "-p", "ktstr", "--test", "demo", "--"];
        let mut command = project.cargo(words);
        command.args(["--ignored", "--nocapture", "--exact", scene.test]);
        command.env("KTSTR_KERNEL", kernel).env("KTSTR_LOG_PASSES", "1").env_remove("KTSTR_TEST_KERNEL");
        let label = format!("demo: {}", scene.test);
        let after_blank = Cell::new(true);
        let wanted = |line: &str| {
            let blank = line.trim().is_empty();
            is_report(line) && !(after_blank.replace(blank) && blank)
        };
        let ran = Child::new(&project.logs, &label, command).show(wanted).run()?;
        self.machines += ran.elapsed;
        let took = say::duration(ran.elapsed);
        let tally = Tally::of_libtest(&ran.output);
        match scene.fails_with {
            // A run of no scenario ends well, too, and shows nothing.
            None if ran.success && tally.passed > 0 => {
                self.shown += 1;
                println!("  passed, took {took}");
            }
            Some(words) if tally.failed > 0 && names_the_bug(&ran.output, words) => {
                self.shown += 1;
                println!(
                    "  The bug was found, as it should be, in {took}; the line BUG SUMMARY says it in one sentence."
                );
            }
            _ => {
                self.failed = true;
                println!("  Not as expected after {took}; {}", ran.ending());
            }
        }
        Ok(())
    }

    fn finish(&self, total: Duration, quick: bool) {
        let (total, machines) = (say::duration(total), say::duration(self.machines));
        println!("  {total} in all, of which {machines} in virtual machines.");
        if self.failed {
            println!("  Something failed: see above; all output is in target/xtask/.");
            println!("  Next: cargo run -q -p ktstr --bin ktstr -- doctor   says what works on this machine");
        } else if self.shown == 0 {
            println!("  Next: cargo xtask demo   builds a kernel where the distribution has none to offer");
            println!("        the log named above says why it has none");
        } else if quick {
            println!("  Next: cargo xtask demo   the same under a BPF scheduler, sound and broken");
            println!("        cli/tests/demo.rs  is the scenario: change it and run again");
        } else {
            println!("  Next: cargo xtask test   every test of the project");
            println!("        cli/tests/demo.rs  is the scenario: change it and run again");
        }
    }
}

/// Whether the one sentence on the bug has these parts, one after the other.
fn names_the_bug(output: &str, parts: &[&str]) -> bool {
    let summary = output.lines().find_map(|line| line.trim_start().strip_prefix("BUG SUMMARY: "));
    summary.is_some_and(|summary| {
        let mut rest = Some(summary);
        for part in parts {
            rest = rest.and_then(|text| text.split_once(part)).map(|(_, after)| after);
        }
        rest.is_some()
    })
}

/// The scenario's report, without the words of the program around it.
fn is_report(line: &str) -> bool {
    let words: Vec<_> = line.split_whitespace().collect();
    // In quiet mode a dot stands for each test.
    let dots = !words.is_empty() && line.trim_matches('.').is_empty();
    let of_runner = dots
        || matches!(words.as_slice(), ["running", _, "test" | "tests"])
        || line.starts_with("test result: ")
        || line.starts_with("error: test failed, to rerun");
    !of_runner && !is_cargo_progress(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bug_is_named_by_reason_task_and_cpu() {
        let said = "x\nBUG SUMMARY: fixture: runnable task stall (stall), task batch[83] waited 1.5 s on CPU 3, \
                    dispatch queue 0x57a11\n";
        assert!(names_the_bug(said, BUG));
        for other in [
            "",
            "BUG SUMMARY: fixture: its program ended with exit code 3",
            &said.replace("CPU 3", "CPU 1"),
            &said.replace(", task batch[83]", ""),
            &said.replace("runnable task stall", "runtime error"),
        ] {
            assert!(!names_the_bug(other, BUG), "{other}");
        }
    }

    #[test]
    fn the_report_is_shown_and_the_runners_words_are_not() {
        for line in
            [".", "running 1 test", "test result: ok. 1 passed; 0 failed", "    Finished `test` profile"]
        {
            assert!(!is_report(line), "{line}");
        }
        for line in ["PASS demo_two_cgroups", "", "  running 2 workers each", "test demo_two_cgroups ... ok"]
        {
            assert!(is_report(line), "{line}");
        }
    }
}
