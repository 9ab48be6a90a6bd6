//! `cargo xtask test`: every check there is, step by step.

mod steps;
mod tally;

use crate::args::{Args, UsageError};
use crate::project::Project;
use crate::say;
use crate::setup::Stopped;
use anyhow::Result;
use std::time::{Duration, Instant};
use steps::STEPS;
pub(crate) use steps::is_cargo_progress;
pub(crate) use tally::Tally;

pub(crate) const HELP: &str = "\
cargo xtask test [--quick] [--only STEP]… [--skip STEP]…

Runs, in this order:
  setup    installs what is missing (see `cargo xtask setup --help`)
  lint     format, clippy, the rules of the architecture
  unit     tests that need no kernel, and the examples in the documentation
  kernel   a prebuilt kernel and one with sched_ext: cached, else fetched and built
  e2e      tests in virtual machines, on both kernels
  kvm-lab  tests of the mode kvm, in an emulated machine that has a KVM

A failing step doesn't stop later ones that can still run. All output is kept in
target/xtask/. Tests that this machine can't show anything with skip themselves;
they are listed, and counted before the end. The last line is `N passed, N failed`;
the exit code is 1 if anything failed.

  --quick        only the steps that need no kernel: setup, lint, unit
  --only STEP    only this step; may be repeated
  --skip STEP    not this step; may be repeated";

/// What a step works with.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    project: &'a Project,
    quick: bool,
    tally: Tally,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Ok,
    Failed,
    /// A step that it builds on failed.
    NotRun,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Failed => "FAILED",
            Self::NotRun => "not run",
        })
    }
}

/// The command itself.
pub(crate) fn command(project: &Project, mut args: Args) -> Result<bool> {
    let quick = args.flag("--quick");
    let (only, skip) = (args.values("--only")?, args.values("--skip")?);
    args.finish()?;
    let chosen = choose(quick, &only, &skip)?;
    let mut run = Run { project, quick, tally: Tally::default() };
    let mut ended: Vec<(&str, Outcome, Duration)> = Vec::new();
    for (number, step) in chosen.iter().enumerate() {
        say::heading(&format!("{} of {}: {} ({})", number + 1, chosen.len(), step.name, step.about));
        let started = Instant::now();
        let missing =
            ended.iter().find(|(name, outcome, _)| step.needs.contains(name) && *outcome != Outcome::Ok);
        let outcome = match missing {
            Some((name, ..)) => {
                println!("  not run: it needs the step {name}");
                Outcome::NotRun
            }
            None => perform(step, &mut run)?,
        };
        let took = started.elapsed();
        println!("  {}: {outcome} ({})", step.name, say::duration(took));
        ended.push((step.name, outcome, took));
    }
    Ok(finish(&ended, run.tally))
}

/// Runs one step. Only what forbids all work is an error.
fn perform(step: &steps::Step, run: &mut Run<'_>) -> Result<Outcome> {
    let before = run.tally;
    let good = match (step.run)(run) {
        Ok(good) => good,
        Err(error) if error.is::<Stopped>() => return Err(error),
        Err(error) => {
            println!("  {error:#}");
            false
        }
    };
    if !good && run.tally.failed == before.failed {
        // No test failed, the step itself did; red must not read `0 failed`.
        run.tally.failed += 1;
    }
    Ok(if good { Outcome::Ok } else { Outcome::Failed })
}

fn finish(ended: &[(&str, Outcome, Duration)], tally: Tally) -> bool {
    say::heading("result");
    let rows: Vec<_> = ended
        .iter()
        .map(|(name, outcome, took)| [(*name).to_owned(), outcome.to_string(), say::duration(*took)])
        .collect();
    println!("{}\n", say::table(&rows));
    if tally.skipped > 0 {
        println!(
            "{} skipped, as this machine can't show what they are for; the steps say why",
            tally.skipped
        );
    }
    println!("{tally}");
    ended.iter().all(|(_, outcome, _)| *outcome == Outcome::Ok)
}

fn choose(quick: bool, only: &[String], skip: &[String]) -> Result<Vec<&'static steps::Step>> {
    let known: Vec<_> = STEPS.iter().map(|step| step.name).collect();
    if let Some(name) = only.iter().chain(skip).find(|name| !known.contains(&name.as_str())) {
        let text = format!("there is no step {name:?}; there are: {}", known.join(", "));
        return Err(UsageError(text).into());
    }
    let named = |list: &[String], step: &steps::Step| list.iter().any(|name| name == step.name);
    let chosen: Vec<_> = STEPS
        .iter()
        .filter(|step| match only {
            [] => step.quick || !quick,
            _ => named(only, step),
        })
        .filter(|step| !named(skip, step))
        .collect();
    if chosen.is_empty() {
        return Err(UsageError("no step is left to run".into()).into());
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(quick: bool, only: &[&str], skip: &[&str]) -> Vec<&'static str> {
        let owned = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        choose(quick, &owned(only), &owned(skip)).unwrap().iter().map(|step| step.name).collect()
    }

    #[test]
    fn steps_are_chosen_in_their_order() {
        assert_eq!(chosen(false, &[], &[]), ["setup", "lint", "unit", "kernel", "e2e", "kvm-lab"]);
        assert_eq!(chosen(false, &["kvm-lab"], &[]), ["kvm-lab"]);
        assert_eq!(chosen(true, &[], &[]), ["setup", "lint", "unit"]);
        assert_eq!(chosen(false, &["e2e", "lint"], &[]), ["lint", "e2e"]);
        assert_eq!(chosen(true, &["e2e"], &[]), ["e2e"]);
        assert_eq!(chosen(false, &[], &["setup", "e2e"]), ["lint", "unit", "kernel", "kvm-lab"]);
    }

    #[test]
    fn unknown_and_empty_choices_are_usage_errors() {
        for (only, skip) in [(vec!["lnit".to_owned()], vec![]), (vec![], vec!["e2".to_owned()])] {
            let error = choose(false, &only, &skip).unwrap_err();
            assert!(error.is::<UsageError>() && error.to_string().contains("setup, lint"), "{error}");
        }
        assert!(choose(false, &["lint".into()], &["lint".into()]).is_err());
    }

    #[test]
    fn every_step_needs_only_earlier_ones() {
        for (at, step) in STEPS.iter().enumerate() {
            for need in step.needs {
                assert!(STEPS[..at].iter().any(|it| it.name == *need), "{} needs {need}", step.name);
            }
        }
    }

    fn run_of(step: steps::Step) -> (Result<Outcome>, Tally) {
        let project = Project { root: "".into(), logs: "".into() };
        let mut run = Run { project: &project, quick: true, tally: Tally::default() };
        (perform(&step, &mut run), run.tally)
    }

    fn step(run: fn(&mut Run<'_>) -> Result<bool>) -> steps::Step {
        steps::Step { name: "x", about: "x", quick: true, needs: &[], run }
    }

    #[test]
    fn a_step_that_fails_without_a_failing_test_counts_as_one() {
        let (outcome, tally) = run_of(step(|_| anyhow::bail!("no compiler")));
        assert_eq!((outcome.unwrap(), tally), (Outcome::Failed, Tally { passed: 0, failed: 1, skipped: 0 }));
        let (outcome, tally) = run_of(step(|run| {
            run.tally.failed += 3;
            Ok(false)
        }));
        assert_eq!((outcome.unwrap(), tally.failed), (Outcome::Failed, 3));
        let (outcome, tally) = run_of(step(|_| Ok(true)));
        assert_eq!((outcome.unwrap(), tally), (Outcome::Ok, Tally::default()));
    }

    #[test]
    fn what_forbids_all_work_ends_the_run() {
        let (outcome, _) = run_of(step(|_| Err(Stopped::because("a package is missing").into())));
        assert!(outcome.unwrap_err().is::<Stopped>());
    }
}
