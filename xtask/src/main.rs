//! The project's own commands, run as `cargo xtask COMMAND`.
//!
//! Each command drives what a user drives (cargo, nextest, `cargo ktstr`), says
//! what it does and for how long, and keeps the children's output in log files.

mod args;
mod bench;
mod child;
mod demo;
mod kvm_lab;
mod lint;
mod peers;
mod project;
mod say;
mod setup;
mod suite;

use anyhow::Result;
use args::{Args, UsageError};
use project::Project;
use std::process::ExitCode;

const HELP: &str = "\
The project's own commands.

  cargo xtask demo [--quick]    a scheduler scenario in a real VM, from nothing; start here
  cargo xtask test [--quick]    every check there is; what CI runs
  cargo xtask lint              format, clippy and the rules of the architecture
  cargo xtask bench NAME        how long things take, as ratios of one run
  cargo xtask kvm-lab           the tests that need a KVM that runs Linux, in an emulated machine
  cargo xtask peers             schedulers of the scx project, built and tested; fills docs/peers.md
  cargo xtask setup [--check]   install what the others need (they do it by themselves)

`cargo xtask COMMAND --help` says more.";

/// What a command comes to: `true` if all is well.
type Command = fn(&Project, Args) -> Result<bool>;

const COMMANDS: [(&str, &str, Command); 7] = [
    ("demo", demo::HELP, demo::command),
    ("test", suite::HELP, suite::command),
    ("lint", lint::HELP, lint::command),
    ("setup", setup::HELP, setup::command),
    ("bench", bench::HELP, bench::command),
    ("kvm-lab", kvm_lab::HELP, kvm_lab::command),
    ("peers", peers::HELP, peers::command),
];

fn main() -> ExitCode {
    match run(std::env::args().skip(1).collect()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(if error.is::<UsageError>() { 2 } else { 1 })
        }
    }
}

fn run(words: Vec<String>) -> Result<bool> {
    let Some((name, rest)) = words.split_first() else {
        println!("{HELP}");
        return Err(UsageError("no command given".into()).into());
    };
    if matches!(name.as_str(), "-h" | "--help" | "help") {
        println!("{HELP}");
        return Ok(true);
    }
    let Some((_, help, command)) = COMMANDS.iter().find(|(known, ..)| known == name) else {
        let known: Vec<_> = COMMANDS.iter().map(|(known, ..)| *known).collect();
        return Err(
            UsageError(format!("there is no command {name:?}; there are: {}", known.join(", "))).into()
        );
    };
    // What follows `--` is for another program.
    let mut ours = rest.iter().take_while(|word| *word != "--");
    if ours.any(|word| word == "-h" || word == "--help") {
        println!("{help}");
        return Ok(true);
    }
    command(&Project::find()?, Args::new(rest.to_vec()))
}
