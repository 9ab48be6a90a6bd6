//! `cargo xtask kvm-lab`: what needs a KVM that runs Linux, run in an emulated machine
//! that has one. `vmm/LAB.md` says what that machine is and what it can't show.

mod console;
mod machine;
mod parts;

use crate::args::{Args, UsageError};
use crate::project::Project;
use crate::say;
use crate::setup::{self, Part};
use crate::suite::Tally;
use anyhow::Result;
use machine::Lab;
use std::path::Path;

pub(crate) const HELP: &str = "\
cargo xtask kvm-lab [--all] [-- [NAME=VALUE]… PROGRAM [ARG]…]

Runs the tests of the mode kvm in an emulated machine that has a KVM which runs
Linux: nested AMD SVM under QEMU's software emulation. Nothing of the host's own
/dev/kvm is used, and no rights are needed. vmm/LAB.md says more.

  (nothing)    what `cargo xtask test` runs of it, about 2 minutes on two cores
  --all        all of it
  -- PROGRAM   this instead; the exit code is the program's. PROGRAM is linux,
               micro_guest, seeds, boot, probe or ktstr, or the path of a file of
               this machine that is linked statically. NAME=VALUE is put into its
               environment; KTSTR_ACCEL=kvm and the kernels are there already.

A run is ended after 10 minutes. All output is kept in target/xtask/.

  cargo xtask kvm-lab -- linux large
  cargo xtask kvm-lab -- KTSTR_VERBOSE=1 seeds --exact ktstr/my_low_level_test";

/// How much is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// What is quick and has never failed without a reason.
    Step,
    All,
}

/// One run of a program in the lab.
#[derive(Debug, Clone, Copy)]
struct Suite {
    name: &'static str,
    /// Program and arguments.
    words: &'static [&'static str],
    extent: Extent,
    /// What its output must show, beside an exit code of 0.
    count: fn(&str) -> Tally,
}

const fn suite(name: &'static str, words: &'static [&'static str], extent: Extent) -> Suite {
    Suite { name, words, extent, count: console::count_tests }
}

const fn scenario(name: &'static str, words: &'static [&'static str], extent: Extent) -> Suite {
    Suite { name, words, extent, count: console::count_scenarios }
}

/// `Extent::All` rows are run by `--all` only: they are slow, or have failed on a loaded
/// machine (vmm/LAB.md says how). The parts of names are those of vmm/vm/tests/linux.
const SUITES: [Suite; 7] = [
    suite(
        "the monitor",
        &["linux", "the_probe", "bytes_go", "a_vmlinux", "a_busy", "is_a_reset", "dropped"],
        Extent::Step,
    ),
    suite("the monitor, shapes", &["linux", "_shapes_"], Extent::All),
    suite("hand-made guests", &["micro_guest"], Extent::All),
    scenario("a scenario", &["seeds", "--exact", "ktstr/my_scheduler_test"], Extent::All),
    scenario("a scenario of steps", &["seeds", "--exact", "ktstr/my_dynamic_test"], Extent::All),
    scenario("a scenario by hand", &["seeds", "--exact", "ktstr/my_low_level_test"], Extent::All),
    scenario("a scenario on four CPUs", &["seeds", "--exact", "ktstr/my_phases_test"], Extent::All),
];

/// The command itself.
pub(crate) fn command(project: &Project, mut args: Args) -> Result<bool> {
    let program = args.after_dashes();
    let all = args.flag("--all");
    args.finish()?;
    if program.is_some() && all {
        return Err(UsageError("--all and a program are two different things to run".into()).into());
    }
    let invocation = program.map(Invocation::read).transpose()?;
    setup::ensure(project, &[Part::Machine, Part::KernelBuild, Part::Lab])?;
    let Some(invocation) = invocation else {
        let mut tally = Tally::default();
        let good = run(project, if all { Extent::All } else { Extent::Step }, &mut tally)?;
        println!("\n{tally}");
        return Ok(good);
    };
    let lab = Lab::prepare(project)?;
    let words = lab.admit(&invocation.words)?;
    let report = lab.run("kvm-lab program", &words, &invocation.environment)?;
    match report.code {
        Some(0) => Ok(true),
        // The caller asked for this program and gets its answer. -1 is a signal's.
        Some(code) => {
            println!("  {} ended with exit code {code}", words[0]);
            drop(lab);
            std::process::exit(u8::try_from(code).unwrap_or(1).into())
        }
        None => {
            println!("  {}", report.trouble);
            Ok(false)
        }
    }
}

/// Runs the suites of `extent` and adds their tests to `tally`; true if all is well.
pub(crate) fn run(project: &Project, extent: Extent, tally: &mut Tally) -> Result<bool> {
    let lab = Lab::prepare(project)?;
    let mut good = true;
    for suite in SUITES.iter().filter(|suite| extent == Extent::All || suite.extent == Extent::Step) {
        println!("  {}: {}", suite.name, suite.words.join(" "));
        let words: Vec<_> = suite.words.iter().map(|&word| word.to_owned()).collect();
        let report = lab.run(&format!("kvm-lab {}", suite.name), &lab.admit(&words)?, &[])?;
        let mut counted = (suite.count)(&report.output);
        if report.code != Some(0) && counted.failed == 0 {
            counted.failed = 1;
        }
        if counted == Tally::default() {
            println!(
                "    it ended well without running a test: is one of the names in {:?} gone?",
                suite.words
            );
            counted.failed = 1;
        }
        println!("    {counted} ({})", say::duration(report.elapsed));
        if counted.failed > 0 && !report.trouble.is_empty() {
            println!("  {}", report.trouble);
        }
        good &= counted.failed == 0;
        *tally += counted;
    }
    Ok(good)
}

/// What a user wants to be run.
#[derive(Debug, PartialEq, Eq)]
struct Invocation {
    environment: Vec<String>,
    words: Vec<String>,
}

impl Invocation {
    /// The kernel's command line carries the environment, so what would be more
    /// than a word there can't be had.
    fn read(words: Vec<String>) -> Result<Self> {
        let is_name =
            |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let count = words
            .iter()
            .take_while(|word| word.split_once('=').is_some_and(|(name, _)| is_name(name)))
            .count();
        let (environment, words) = words.split_at(count);
        if let Some(word) = environment.iter().find(|w| w.contains(|c: char| c == '"' || c.is_whitespace())) {
            let text = format!("{word:?} goes through a kernel's command line: no blanks and no quotes");
            return Err(UsageError(text).into());
        }
        match words.first() {
            None => return Err(UsageError("no program after --".into()).into()),
            Some(first) if Path::new(first).file_name().is_none() => {
                return Err(UsageError(format!("{first:?} names no program")).into());
            }
            Some(_) => {}
        }
        if let Some(word) = words.iter().find(|word| word.contains('\n')) {
            return Err(UsageError(format!("{word:?}: the lab takes one argument a line")).into());
        }
        Ok(Self { environment: environment.to_vec(), words: words.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Invocation> {
        Invocation::read(words.iter().map(|&word| word.to_owned()).collect())
    }

    #[test]
    fn the_environment_comes_before_the_program() {
        let seen = read(&["A_1=x=y", "B=", "linux", "C=z"]).unwrap();
        assert_eq!(seen.environment, ["A_1=x=y", "B="]);
        assert_eq!(seen.words, ["linux", "C=z"]);
        assert!(read(&["./a=b"]).unwrap().environment.is_empty());
    }

    #[test]
    fn what_the_lab_cannot_pass_on_is_a_usage_error() {
        for words in [&["A=b c", "linux"][..], &["A=\"", "linux"], &["A=b"], &[], &["linux", "a\nb"], &["/"]]
        {
            let error = read(words).unwrap_err();
            assert!(error.is::<UsageError>(), "{words:?}: {error}");
        }
    }

    #[test]
    fn every_suite_runs_a_program_of_the_lab() {
        for suite in SUITES {
            assert!(parts::PROGRAMS.iter().any(|program| program.name == suite.words[0]), "{}", suite.name);
        }
    }
}
