//! `cargo ktstr verifier`: every declared scheduler, on every machine it is made for.

use super::{kernel, run_tests};
use crate::verifier::{MAX_CPUS, RAW, RESULT_DIR, SCHEDULER};
use anyhow::{Context, Result, bail};
use clap::Args;
use ktstr_machine::AccelChoice;
use ktstr_verifier::{Cell, Grid, Outcome};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// nextest's exit code when nothing matches.
const NO_TESTS: i32 = 4;

/// Arguments of `cargo ktstr verifier`.
#[derive(Args)]
pub(super) struct VerifierArgs {
    /// Only the scheduler of this declared name
    #[arg(long, value_name = "NAME")]
    scheduler: Option<String>,
    /// A kernel to sweep, as for `test`; may be given several times
    #[arg(long, value_name = "ID")]
    kernel: Vec<String>,
    /// The largest machine, in CPUs: larger ones take minutes each where code is emulated
    #[arg(long, value_name = "CPUS", default_value_t = 16)]
    max_cpus: u32,
    /// Show verifier logs as they came, not shortened
    #[arg(long)]
    raw: bool,
    /// The cargo profile that schedulers are built with
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// How guest code is executed: auto, kvm, tcg or deterministic
    #[arg(long, value_name = "MODE")]
    accel: Option<AccelChoice>,
    /// Where to write the result for programs [default: target/ktstr/verifier.json]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Passed on to `cargo nextest run`
    #[arg(last = true, value_name = "NEXTEST ARGS")]
    nextest: Vec<OsString>,
}

pub(super) fn run(args: &VerifierArgs) -> Result<ExitCode> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    run_tests::require_nextest(&cargo)?;
    let records = Records::new()?;
    let mut broken = false;
    // None: what is found, or what KTSTR_KERNEL says.
    let kernels: Vec<Option<&String>> =
        if args.kernel.is_empty() { vec![None] } else { args.kernel.iter().map(Some).collect() };
    for spec in kernels {
        let mut command = sweep(args, &cargo, &records.dir);
        if let Some(spec) = spec {
            let resolved = kernel::get(&kernel::request(spec)?, &crate::settings::Settings::from_env()?)?;
            let (name, value) = kernel::environment(&resolved);
            command.env_remove("KTSTR_TEST_KERNEL").env_remove("KTSTR_KERNEL").env(name, value);
        }
        let status = command.status().context("running cargo nextest")?;
        if status.code() == Some(NO_TESTS) {
            bail!(nothing_declared(args));
        }
        broken |= !status.success();
    }
    let grid = records.grid()?;
    let output = match &args.output {
        Some(path) => path.clone(),
        None => default_output(&cargo)?,
    };
    write(&output, &grid)?;
    println!("\n{}\nresult: {}", grid.render().trim_end(), output.display());
    let outcome = grid.outcome();
    if broken && outcome != Outcome::Fail && outcome != Outcome::Inconclusive {
        bail!("a cell failed without a word of its own: see nextest's output above");
    }
    Ok(ExitCode::from(match outcome {
        Outcome::Pass | Outcome::Skip => 0,
        Outcome::Fail => 1,
        Outcome::Inconclusive => 2,
    }))
}

fn nothing_declared(args: &VerifierArgs) -> String {
    match &args.scheduler {
        Some(name) => format!(
            "looking for scheduler {name:?}: none of the tests here declares one of that name with a program and a \
             machine of at most {} CPUs; see `declare_scheduler!`",
            args.max_cpus
        ),
        None => "looking for schedulers: none of the tests here declares one with a program; see `declare_scheduler!`"
            .to_string(),
    }
}

/// One pass of nextest over all cells.
fn sweep(args: &VerifierArgs, cargo: &OsString, records: &Path) -> Command {
    let mut command = Command::new(cargo);
    command.args(["nextest", "run", "--no-fail-fast", "--run-ignored", "all"]);
    command.args(["-E", "test(/^verifier\\//)"]);
    command.args(&args.nextest);
    command.env("KTSTR_ORCHESTRATED", "1").env(RESULT_DIR, records).env(MAX_CPUS, args.max_cpus.to_string());
    let optional = [
        (SCHEDULER, args.scheduler.as_deref()),
        ("KTSTR_SCHEDULER_PROFILE", args.profile.as_deref()),
        ("KTSTR_ACCEL", args.accel.map(AccelChoice::name)),
        (RAW, args.raw.then_some("1")),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command
}

/// What the cells of a sweep write; gone with the sweep.
struct Records {
    dir: PathBuf,
}

impl Records {
    fn new() -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("ktstr-verifier-{}", std::process::id()));
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        Ok(Self { dir })
    }

    fn grid(&self) -> Result<Grid> {
        let mut files: Vec<PathBuf> = std::fs::read_dir(&self.dir)
            .with_context(|| format!("listing {}", self.dir.display()))?
            .map(|entry| entry.map(|e| e.path()))
            .collect::<std::io::Result<_>>()?;
        files.sort();
        let mut grid = Grid::default();
        for file in files {
            let bytes = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
            let cell: Cell =
                serde_json::from_slice(&bytes).with_context(|| format!("reading {}", file.display()))?;
            grid.record(cell);
        }
        Ok(grid)
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        // What is left of it lies in the temporary directory.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn default_output(cargo: &OsString) -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("CARGO_TARGET_DIR").filter(|d| !d.is_empty()) {
        return Ok(PathBuf::from(dir).join("ktstr/verifier.json"));
    }
    let words = ["locate-project", "--workspace", "--message-format", "plain"];
    let output = Command::new(cargo).args(words).output().context("asking cargo for the workspace")?;
    let manifest = String::from_utf8_lossy(&output.stdout).trim().to_string();
    match Path::new(&manifest).parent() {
        Some(root) if output.status.success() => Ok(root.join("target/ktstr/verifier.json")),
        _ => bail!("asking cargo for the workspace: {}", String::from_utf8_lossy(&output.stderr).trim()),
    }
}

fn write(path: &Path, grid: &Grid) -> Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    let json = serde_json::to_vec_pretty(grid).context("writing the sweep as JSON")?;
    std::fs::write(path, json).with_context(|| format!("writing {}", path.display()))
}
