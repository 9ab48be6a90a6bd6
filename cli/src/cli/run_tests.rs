//! `cargo ktstr test`: resolve the kernel once, then let nextest run the tests.

use super::kernel;
use crate::run::shares;
use crate::settings::{BYPASS_LLC_LOCKS, Settings};
use anyhow::{Context, Result, bail};
use clap::Args;
use ktstr_machine::AccelChoice;
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::process::{Command, ExitCode};

/// Arguments of `cargo ktstr test`.
#[derive(Args)]
pub(super) struct TestArgs {
    /// The kernel: `apt:6.12`, `image:6.12`, a source tree (`../linux`), a version or a cache key;
    /// without it, what KTSTR_KERNEL says or what is found
    #[arg(long, value_name = "ID")]
    kernel: Vec<String>,
    /// How guest code is executed: auto, kvm, tcg or deterministic
    #[arg(long, value_name = "MODE")]
    accel: Option<AccelChoice>,
    /// What everything random in a test is derived from
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Boot every machine afresh instead of resuming a saved one
    #[arg(long)]
    no_template: bool,
    /// The cargo profile that schedulers under test are built with
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Count skipped tests as failures
    #[arg(long)]
    no_skip_mode: bool,
    /// Skip tests that want the host's CPUs to themselves, and run the others on a part of it (30 % of its CPUs)
    #[arg(long)]
    no_perf_mode: bool,
    /// That part of the host, in CPUs: of a machine, and of a kernel's build
    #[arg(long, value_name = "N", requires = "no_perf_mode")]
    cpu_cap: Option<NonZeroUsize>,
    /// Neither take nor look at locks on the host's CPUs
    #[arg(long)]
    bypass_llc_locks: bool,
    /// Build the tests in release mode: stricter default checks
    #[arg(long)]
    release: bool,
    /// Profile of nextest's own configuration
    #[arg(long, value_name = "NAME")]
    nextest_profile: Option<String>,
    /// Passed on to `cargo nextest run`
    #[arg(last = true, value_name = "NEXTEST ARGS")]
    nextest: Vec<OsString>,
}

pub(super) fn run(args: &TestArgs) -> Result<ExitCode> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    require_nextest(&cargo)?;
    let mut command = Command::new(&cargo);
    command.args(["nextest", "run"]);
    if args.release {
        command.arg("--release");
    }
    if let Some(profile) = &args.nextest_profile {
        command.args(["--profile", profile]);
    }
    command.args(&args.nextest);
    command.env("KTSTR_ORCHESTRATED", "1");
    let settings = check_cap(args)?;
    if let Some(cap) = args.cpu_cap {
        command.env("KTSTR_CPU_CAP", cap.to_string());
    }
    if args.bypass_llc_locks {
        command.env(BYPASS_LLC_LOCKS, "1");
    }
    if args.no_skip_mode {
        command.env("KTSTR_NO_SKIP_MODE", "1");
    }
    if args.no_perf_mode {
        command.env("KTSTR_NO_PERF_MODE", "1");
    }
    if let Some(profile) = &args.profile {
        command.env("KTSTR_SCHEDULER_PROFILE", profile);
    }
    if args.no_template {
        command.env("KTSTR_NO_TEMPLATE", "1");
    }
    if let Some(seed) = args.seed {
        command.env("KTSTR_SEED", seed.to_string());
    }
    if let Some(accel) = args.accel {
        command.env("KTSTR_ACCEL", accel.name());
    }
    choose_kernel(args, &settings, &mut command)?;
    let status = command.status().context("running cargo nextest")?;
    let code = status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1);
    Ok(ExitCode::from(code))
}

/// Before any test: one that can't be kept to would fail them all.
fn check_cap(args: &TestArgs) -> Result<Settings> {
    let mut settings = Settings::from_env()?;
    settings.bypass_llc_locks |= args.bypass_llc_locks;
    let settings = settings.capped(args.cpu_cap)?;
    if settings.cpu_cap.is_some() {
        shares::capped(&settings)?;
    }
    Ok(settings)
}

fn choose_kernel(args: &TestArgs, settings: &Settings, command: &mut Command) -> Result<()> {
    match args.kernel.as_slice() {
        [] => Ok(()),
        [spec] => {
            let resolved = kernel::get(&kernel::request(spec)?, settings)?;
            let (name, value) = kernel::environment(&resolved);
            for other in ["KTSTR_TEST_KERNEL", "KTSTR_KERNEL"] {
                command.env_remove(other);
            }
            command.env(name, value);
            Ok(())
        }
        several => bail!("{} kernels given with --kernel: this version runs one at a time", several.len()),
    }
}

pub(super) fn require_nextest(cargo: &OsString) -> Result<()> {
    let output = Command::new(cargo).args(["nextest", "--version"]).output().context("running cargo")?;
    if output.status.success() {
        return Ok(());
    }
    bail!(
        "cargo-nextest is not installed; install it with `cargo install --locked cargo-nextest`, \
         or run `cargo test`, which needs no nextest"
    )
}
