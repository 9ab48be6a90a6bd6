//! What the programs `ktstr` and `cargo-ktstr` are made of.
//!
//! Arguments are declared here, each command has a module of its own, and the
//! programs themselves only call [`cargo_ktstr`] or [`ktstr`].

mod doctor;
mod inspect;
mod kernel;
mod progress;
mod run_tests;
mod template;
mod topo;
mod verifier;

use clap::{Parser, Subcommand};
use inspect::InspectArgs;
use kernel::KernelCommand;
use run_tests::TestArgs;
use std::ffi::OsString;
use std::process::ExitCode;
use template::TemplateCommand;
use verifier::VerifierArgs;

/// Exit code of a command that could not do its work (a usage error is 2, by clap).
const FAILED: u8 = 1;

#[derive(Parser)]
#[command(name = "cargo ktstr", bin_name = "cargo ktstr", version, about = "Test Linux schedulers like code")]
struct CargoKtstr {
    #[command(subcommand)]
    command: CargoCommand,
}

#[derive(Subcommand)]
enum CargoCommand {
    /// Resolve the kernel, then run the tests with cargo-nextest
    #[command(visible_alias = "nextest")]
    Test(TestArgs),
    /// Load every declared scheduler on machines of many shapes: does it verify, attach, schedule?
    Verifier(VerifierArgs),
    /// Build, list and remove guest kernels
    #[command(subcommand)]
    Kernel(KernelCommand),
    /// List and remove saved machines
    #[command(subcommand)]
    Template(TemplateCommand),
    /// Which modes, kernels and tools work here, and what to do about the others
    Doctor,
}

#[derive(Parser)]
#[command(name = "ktstr", version, about = "Test Linux schedulers like code: what needs no cargo")]
struct Ktstr {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// This machine's CPUs, LLCs and NUMA nodes
    Topo,
    /// Build, list and remove guest kernels
    #[command(subcommand)]
    Kernel(KernelCommand),
    /// List and remove saved machines
    #[command(subcommand)]
    Template(TemplateCommand),
    /// Print the scheduler state in an ELF core, of a running machine or of this one: tasks, runqueues, any variable
    Inspect(InspectArgs),
    /// Which modes, kernels and tools work here, and what to do about the others
    Doctor,
}

/// `cargo ktstr …`: cargo passes its own subcommand's name as the first argument.
pub fn cargo_ktstr() -> ExitCode {
    let args = without_subcommand(std::env::args_os());
    done(match CargoKtstr::parse_from(args).command {
        CargoCommand::Test(args) => run_tests::run(&args),
        CargoCommand::Verifier(args) => verifier::run(&args),
        CargoCommand::Kernel(command) => kernel::run(&command),
        CargoCommand::Template(command) => template::run(&command),
        CargoCommand::Doctor => doctor::run(),
    })
}

/// `ktstr …`
pub fn ktstr() -> ExitCode {
    done(match Ktstr::parse().command {
        Command::Topo => topo::run(),
        Command::Kernel(command) => kernel::run(&command),
        Command::Template(command) => template::run(&command),
        Command::Inspect(args) => inspect::run(&args),
        Command::Doctor => doctor::run(),
    })
}

fn without_subcommand(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.collect();
    if args.get(1).is_some_and(|a| a == "ktstr") {
        args.remove(1);
    }
    args
}

fn done(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|e| {
        eprintln!("ktstr: {e:#}");
        ExitCode::from(FAILED)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_declared_arguments_are_consistent() {
        CargoKtstr::command().debug_assert();
        Ktstr::command().debug_assert();
    }

    #[test]
    fn cargo_passes_the_subcommand_first() {
        let args = |list: &[&str]| without_subcommand(list.iter().map(OsString::from));
        assert_eq!(args(&["cargo-ktstr", "ktstr", "test"]), args(&["cargo-ktstr", "test"]));
    }
}
