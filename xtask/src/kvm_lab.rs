//! `cargo xtask kvm-lab`: what needs a KVM that runs Linux, run in an emulated machine
//! that has one. `vmm/LAB.md` says what that machine is and what it can't show.

mod clock;
mod console;
mod machine;
mod monitor;
mod parts;
mod qemu;
mod suites;

use crate::args::{Args, UsageError};
use crate::project::Project;
use crate::setup::{self, Part};
use crate::suite::Tally;
use anyhow::{Result, bail, ensure};
use machine::{Lab, Size};
use std::path::PathBuf;
use std::time::Duration;
pub(crate) use suites::{Extent, run};

pub(crate) const HELP: &str = "\
cargo xtask kvm-lab [--all | --suite NAME]… [[--cpus N] -- [NAME=VALUE]… PROGRAM [ARG]…]

Runs the tests of the mode kvm in an emulated machine that has a KVM which runs
Linux: nested AMD SVM under QEMU's software emulation. Nothing of the host's own
/dev/kvm is used, and no rights are needed. vmm/LAB.md says more.

  (nothing)     the quick part of it, about 2 minutes on two cores
  --all         all of it, about 15 minutes
  --suite NAME  this part only; may be repeated. A wrong name lists them all
  -- PROGRAM    this instead; the exit code is the program's. PROGRAM is linux,
                time, micro_guest, seeds, shapes, drills, must_fail, monitor, performance,
                schedulers, snapshots, scx-fixture, boot, boot_disks, probe or ktstr, or the path
                of a file of this machine that is linked statically.
                NAME=VALUE is put into its environment; KTSTR_ACCEL=kvm and the
                kernels are there already.

  --cpus N      the program finds N CPUs instead of one, and huge pages for a machine

A program is ended after 10 minutes. All output is kept in target/xtask/.

  cargo xtask kvm-lab -- linux large
  cargo xtask kvm-lab -- KTSTR_VERBOSE=1 seeds --exact ktstr/my_low_level_test";

/// A program that isn't done by then hangs.
const PROGRAM_LIMIT: Duration = Duration::from_secs(600);

/// The same for benchmarks.
const BENCH_LIMIT: Duration = Duration::from_secs(1800);

/// The command itself.
pub(crate) fn command(project: &Project, mut args: Args) -> Result<bool> {
    let program = args.after_dashes();
    let all = args.flag("--all");
    let named = args.values("--suite")?;
    let size = size(&args.values("--cpus")?)?;
    args.finish()?;
    if usize::from(program.is_some()) + usize::from(all) + usize::from(!named.is_empty()) > 1 {
        return Err(UsageError("--all, --suite and a program are different things to run".into()).into());
    }
    if size.is_some() && program.is_none() {
        return Err(UsageError("--cpus is for a program; suites say what they need".into()).into());
    }
    let extent = match (all, named.is_empty()) {
        (true, _) => Extent::All,
        (false, true) => Extent::Step,
        (false, false) => Extent::named(&named)?,
    };
    let invocation = program.map(Invocation::read).transpose()?;
    setup::ensure(project, &[Part::Machine, Part::KernelBuild, Part::Lab])?;
    let Some(invocation) = invocation else {
        let mut tally = Tally::default();
        let good = run(project, &extent, &mut tally)?;
        if tally.skipped > 0 {
            println!("\n{} skipped; the console says why", tally.skipped);
        }
        println!("\n{tally}");
        return Ok(good);
    };
    let known = invocation.known()?;
    let lab = Lab::prepare(project, known.as_slice())?;
    if known.is_none() {
        lab.take_along(&invocation.program)?;
    }
    let program = invocation.program.display().to_string();
    let size = size.unwrap_or(Size::USUAL);
    let report = lab.run("kvm-lab program", size, &[invocation], PROGRAM_LIMIT)?;
    match report.sections.into_iter().next().and_then(|section| section.end) {
        Some(end) if end.code == 0 => Ok(true),
        // The caller asked for this program and gets its answer. -1 is a signal's.
        Some(end) => {
            println!("  {program} ended with exit code {}", end.code);
            drop(lab);
            std::process::exit(u8::try_from(end.code).unwrap_or(1).into())
        }
        None => {
            println!("  {}", report.trouble);
            Ok(false)
        }
    }
}

/// The machine that `--cpus` asks for, if it does.
fn size(values: &[String]) -> Result<Option<Size>> {
    let count = |text: &String| text.parse().ok().filter(|cpus| (1..=64).contains(cpus));
    match values {
        [] => Ok(None),
        [text] => match count(text) {
            Some(cpus) => Ok(Some(Size { cpus, ..Size::PERFORMANCE })),
            None => Err(UsageError(format!("--cpus {text}: expected a number from 1 to 64")).into()),
        },
        _ => Err(UsageError("--cpus is given more than once".into()).into()),
    }
}

/// Runs the benchmark of the boot in the lab, where QEMU is taken along, and returns its lines.
///
/// `kernels` are names in the lab's folder of kernels, `options` are QEMU's; each kernel has its own output.
pub(crate) fn boot_bench(
    project: &Project,
    rounds: usize,
    kernels: &[&str],
    options: &[&str],
) -> Result<Vec<String>> {
    setup::ensure(project, &[Part::Machine, Part::KernelBuild, Part::Lab])?;
    let program = &parts::BOOT_BENCH;
    let lab = Lab::prepare(project, &[program])?;
    let qemu = lab.take_qemu_along()?.display().to_string();
    let run = |kernel: &&str| {
        let first = [program.name.to_owned(), rounds.to_string(), format!("/guest/{kernel}"), qemu.clone()];
        Invocation::read(first.into_iter().chain(options.iter().map(|&word| word.to_owned())).collect())
    };
    let commands = kernels.iter().map(run).collect::<Result<Vec<_>>>()?;
    let report = lab.run("kvm-lab boot bench", Size::USUAL, &commands, BENCH_LIMIT)?;
    ensure!(report.trouble.is_empty(), "{}", report.trouble);
    if let Some(bad) = report.sections.iter().find(|s| s.end.as_ref().is_none_or(|end| end.code != 0)) {
        bail!("the boot bench did not end well; its output:\n{}", bad.output);
    }
    Ok(report.sections.into_iter().map(|section| section.output).collect())
}

/// A program to be run in the lab.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Invocation {
    environment: Vec<String>,
    /// A name that the lab knows, or a path of this machine.
    program: PathBuf,
    arguments: Vec<String>,
}

impl Invocation {
    fn read(words: Vec<String>) -> Result<Self> {
        let is_name =
            |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if let Some(word) = words.iter().find(|word| word.contains('\n')) {
            return Err(UsageError(format!("{word:?}: the lab takes one word a line")).into());
        }
        let count = words
            .iter()
            .take_while(|word| word.split_once('=').is_some_and(|(name, _)| is_name(name)))
            .count();
        let (environment, words) = words.split_at(count);
        match words.split_first() {
            None => Err(UsageError("no program after --".into()).into()),
            Some((program, _)) if PathBuf::from(program).file_name().is_none() => {
                Err(UsageError(format!("{program:?} names no program")).into())
            }
            Some((program, arguments)) => Ok(Self {
                environment: environment.to_vec(),
                program: program.into(),
                arguments: arguments.to_vec(),
            }),
        }
    }

    /// The program that the lab knows under this name; `None` for a path.
    fn known(&self) -> Result<Option<&'static parts::Program>> {
        let is_path = self.program.components().count() > 1;
        let known = self.program.to_str().and_then(parts::known);
        if !is_path && known.is_none() {
            let names: Vec<_> = parts::PROGRAMS.iter().map(|program| program.name).collect();
            let text = format!(
                "the lab has no program {:?}; it has {}, and takes along what is given as a path",
                self.program,
                names.join(", ")
            );
            return Err(UsageError(text).into());
        }
        Ok(known)
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
        let seen = read(&["A_1=x=y", "B=with blanks", "linux", "C=z", ""]).unwrap();
        assert_eq!(seen.environment, ["A_1=x=y", "B=with blanks"]);
        assert_eq!((seen.program, seen.arguments), ("linux".into(), vec!["C=z".to_owned(), String::new()]));
        assert!(read(&["./a=b"]).unwrap().environment.is_empty());
    }

    #[test]
    fn a_program_may_have_more_cpus() {
        let of = |values: &[&str]| size(&values.iter().map(|&v| v.to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&[]).unwrap(), None);
        let three = of(&["3"]).unwrap().unwrap();
        assert!(three.cpus == 3 && three.huge_pages > 0);
        for values in [&["0"][..], &["65"], &["two"], &["2", "3"]] {
            assert!(of(values).unwrap_err().is::<UsageError>(), "{values:?}");
        }
    }

    #[test]
    fn what_the_lab_cannot_pass_on_is_a_usage_error() {
        for words in [&["A=b"][..], &[], &["linux", "a\nb"], &["/"]] {
            let error = read(words).unwrap_err();
            assert!(error.is::<UsageError>(), "{words:?}: {error}");
        }
    }

    #[test]
    fn a_name_must_be_known_and_a_path_need_not() {
        assert_eq!(read(&["linux"]).unwrap().known().unwrap().unwrap().name, "linux");
        assert!(read(&["./linux"]).unwrap().known().unwrap().is_none());
        let error = read(&["linus"]).unwrap().known().unwrap_err();
        assert!(
            error.is::<UsageError>() && error.to_string().contains("linux, time, micro_guest"),
            "{error}"
        );
    }
}
