//! `cargo ktstr verifier`: every declared scheduler, on every machine it is made for.

use super::{kernel, run_tests};
use crate::settings::KTSTR_SCHEDULER_PROFILE_ENV;
use crate::sweep::{
    KERNEL, KERNEL_LIST, KTSTR_VERIFIER_RAW_ENV, KTSTR_VERIFIER_RESULT_DIR_ENV, KTSTR_VERIFIER_SCHEDULER_ENV,
    MAX_CPUS, OWN_KERNELS,
};
use anyhow::{Context, Result, bail};
use clap::Args;
use ktstr_machine::AccelChoice;
use ktstr_verifier::{Cell, Grid, Outcome};
use std::collections::BTreeSet;
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
    /// Compare the programs of this declared scheduler …
    #[arg(long, value_name = "NAME", requires = "b", conflicts_with = "scheduler")]
    a: Option<String>,
    /// … with those of this one: instructions verified, a less b, on each machine and kernel
    #[arg(long, value_name = "NAME", requires = "a")]
    b: Option<String>,
    /// Compare the sweep with the result file of an earlier one in the same way
    #[arg(long, value_name = "FILE", conflicts_with = "a")]
    against: Option<PathBuf>,
    /// A kernel to sweep, as for `test`; may be given several times. Without it each scheduler is swept on the
    /// `kernels` of its declaration, or on the one found
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
    // Before anything takes its time.
    let earlier = args.against.as_deref().map(read).transpose()?;
    let records = Records::new()?;
    let broken = sweep_all(args, &cargo, &records)?;
    let mut grid = records.grid()?;
    let compared = compare(args, earlier.as_ref(), &mut grid)?;
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
        Outcome::Fail => 1,
        _ if !compared => 2,
        Outcome::Pass | Outcome::Skip => 0,
        Outcome::Inconclusive => 2,
    }))
}

/// All passes of the sweep; whether one of them ended badly.
fn sweep_all(args: &VerifierArgs, cargo: &OsString, records: &Records) -> Result<bool> {
    let mut passes = Passes { args, cargo, records, ran: false, broken: false };
    if args.kernel.is_empty() {
        passes.run(None)?;
        for spec in records.kernels()? {
            passes.run(Some(&spec))?;
        }
    }
    for spec in &args.kernel {
        passes.run(Some(spec))?;
    }
    if !passes.ran {
        bail!(nothing_declared(args));
    }
    Ok(passes.broken)
}

/// Passes of nextest over the cells, one for each kernel.
struct Passes<'a> {
    args: &'a VerifierArgs,
    cargo: &'a OsString,
    records: &'a Records,
    /// A pass had cells.
    ran: bool,
    /// A pass ended badly.
    broken: bool,
}

impl Passes<'_> {
    /// `None`: on the kernel that is found, or that KTSTR_KERNEL says.
    fn run(&mut self, spec: Option<&str>) -> Result<()> {
        let mut command = sweep(self.args, self.cargo, &self.records.dir);
        if self.args.kernel.is_empty() {
            command.env(OWN_KERNELS, "1");
        }
        if let Some(spec) = spec {
            let resolved = kernel::get(&kernel::request(spec)?, &crate::settings::Settings::from_env()?)?;
            let (name, value) = kernel::environment(&resolved);
            command
                .env_remove("KTSTR_TEST_KERNEL")
                .env_remove("KTSTR_KERNEL")
                .env(name, value)
                .env(KERNEL, spec);
        }
        let status = command.status().context("running cargo nextest")?;
        if status.code() != Some(NO_TESTS) {
            self.ran = true;
            self.broken |= !status.success();
        }
        Ok(())
    }
}

/// Adds the comparison that was asked for; false if nothing could be compared.
fn compare(args: &VerifierArgs, earlier: Option<&Grid>, grid: &mut Grid) -> Result<bool> {
    if let (Some(a), Some(b)) = (&args.a, &args.b) {
        for name in [a, b] {
            if !grid.cells().iter().any(|cell| cell.scheduler == *name) {
                bail!(not_declared(name, args.max_cpus));
            }
        }
        grid.compare(a, b);
    } else if let (Some(path), Some(earlier)) = (&args.against, earlier) {
        grid.compare_with(earlier, &path.display().to_string());
    } else {
        return Ok(true);
    }
    Ok(grid.comparisons().iter().any(|comparison| comparison.lacks.is_none()))
}

fn nothing_declared(args: &VerifierArgs) -> String {
    match args.scheduler.as_ref().or(args.a.as_ref()) {
        Some(name) => not_declared(name, args.max_cpus),
        None => "looking for schedulers: none of the tests here declares one with a program; see `declare_scheduler!`"
            .to_string(),
    }
}

fn not_declared(name: &str, max_cpus: u32) -> String {
    format!(
        "looking for scheduler {name:?}: none of the tests here declares one of that name with a program and a machine of \
         at most {max_cpus} CPUs; see `declare_scheduler!`"
    )
}

/// One pass of nextest over all cells.
fn sweep(args: &VerifierArgs, cargo: &OsString, records: &Path) -> Command {
    let mut command = Command::new(cargo);
    command.args(["nextest", "run", "--no-fail-fast", "--run-ignored", "all"]);
    command.args(["-E", "test(/^verifier\\//)"]);
    command.args(&args.nextest);
    command
        .env("KTSTR_ORCHESTRATED", "1")
        .env(KTSTR_VERIFIER_RESULT_DIR_ENV, records)
        .env(MAX_CPUS, args.max_cpus.to_string());
    // A sweep's own variables mean nothing beyond it.
    for name in [KERNEL, OWN_KERNELS, KTSTR_VERIFIER_SCHEDULER_ENV] {
        command.env_remove(name);
    }
    let both = args.a.as_ref().zip(args.b.as_ref()).map(|(a, b)| format!("{a},{b}"));
    let optional = [
        (KTSTR_VERIFIER_SCHEDULER_ENV, args.scheduler.as_deref().or(both.as_deref())),
        (KTSTR_SCHEDULER_PROFILE_ENV, args.profile.as_deref()),
        ("KTSTR_ACCEL", args.accel.map(AccelChoice::name)),
        (KTSTR_VERIFIER_RAW_ENV, args.raw.then_some("1")),
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

    /// The files whose names end so, in order.
    fn files(&self, extension: &str) -> Result<Vec<PathBuf>> {
        let mut files: Vec<PathBuf> = std::fs::read_dir(&self.dir)
            .with_context(|| format!("listing {}", self.dir.display()))?
            .map(|entry| entry.map(|e| e.path()))
            .collect::<std::io::Result<_>>()?;
        files.retain(|file| file.extension().is_some_and(|it| it == extension));
        files.sort();
        Ok(files)
    }

    /// The kernels that the declarations name, each once.
    fn kernels(&self) -> Result<BTreeSet<String>> {
        let mut kernels = BTreeSet::new();
        for file in self.files(KERNEL_LIST)? {
            let text =
                std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            kernels.extend(text.lines().map(String::from));
        }
        Ok(kernels)
    }

    fn grid(&self) -> Result<Grid> {
        let mut grid = Grid::default();
        for file in self.files("json")? {
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

/// The result file of an earlier sweep.
fn read(path: &Path) -> Result<Grid> {
    let bytes =
        std::fs::read(path).with_context(|| format!("reading the earlier sweep {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| {
        format!("reading {}: it is no result file of `cargo ktstr verifier`", path.display())
    })
}

fn write(path: &Path, grid: &Grid) -> Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    let json = serde_json::to_vec_pretty(grid).context("writing the sweep as JSON")?;
    std::fs::write(path, json).with_context(|| format!("writing {}", path.display()))
}
