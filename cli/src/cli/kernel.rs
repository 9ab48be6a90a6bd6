//! `kernel build | list | clean`.

use super::progress::Printer;
use crate::run::shares;
use crate::settings::Settings;
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use ktstr_kernel::ports::{BuildError, BuildJob, Built, KernelBuilder, KernelStore, SourceError};
use ktstr_kernel::{
    Arch, CleanPolicy, KernelError, KernelOrigin, KernelSpec, ListRow, Progress, Request, ResolvedKernel,
    age, list_rows, resolve,
};
use ktstr_kernel_build::MakeBuilder;
use ktstr_kernel_cache::KernelCache;
use ktstr_kernel_source::Sources;
use std::io::{IsTerminal, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// `kernel …`
#[derive(Subcommand)]
pub(super) enum KernelCommand {
    /// Get a kernel into the cache: build it, or download a prebuilt one
    Build(BuildArgs),
    /// Get a kernel as `build` does, and print where its image is
    Path(BuildArgs),
    /// The kernels in the cache, newest first
    List,
    /// Remove kernels from the cache
    Clean(CleanArgs),
}

/// Arguments of `kernel build`.
#[derive(Args)]
pub(super) struct BuildArgs {
    /// `apt:6.12` (the distribution's source package, built with our options), `image:6.12` (the
    /// distribution's own image: no build, no sched_ext), or a source tree such as `../linux`
    spec: String,
    /// A file of further options; they win over ours
    #[arg(long, value_name = "FILE")]
    extra_kconfig: Option<PathBuf>,
    /// Build again even if the cache has it
    #[arg(long)]
    force: bool,
    /// `make mrproper` first (source trees only)
    #[arg(long)]
    clean: bool,
    /// Build with N compilers at once, on N of the host's CPUs that no test has to itself
    #[arg(long, value_name = "N")]
    cpu_cap: Option<NonZeroUsize>,
}

/// Arguments of `kernel clean`.
#[derive(Args)]
pub(super) struct CleanArgs {
    /// Keep the newest N valid kernels
    #[arg(long, value_name = "N", conflicts_with = "corrupt_only")]
    keep: Option<usize>,
    /// Remove only what can't be used
    #[arg(long)]
    corrupt_only: bool,
    /// Don't ask
    #[arg(long)]
    force: bool,
}

pub(super) fn run(command: &KernelCommand) -> Result<ExitCode> {
    match command {
        KernelCommand::Build(args) => println!("{}", environment(&build(args)?).1),
        KernelCommand::Path(args) => println!("{}", build(args)?.image.display()),
        KernelCommand::List => list()?,
        KernelCommand::Clean(args) => clean(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds kernels on no more CPUs than the settings say.
struct Builder<'a> {
    make: MakeBuilder,
    settings: &'a Settings,
}

impl KernelBuilder for Builder<'_> {
    fn preflight(&self, arch: Arch) -> Result<(), BuildError> {
        self.make.preflight(arch)
    }

    fn build(&self, job: &BuildJob, progress: &mut dyn Progress) -> Result<Built, BuildError> {
        match shares::for_build(self.settings).map_err(|e| BuildError::Other(e.into()))? {
            None => self.make.build(job, progress),
            Some((cpus, _place)) => {
                let jobs = NonZeroUsize::new(cpus).unwrap_or(NonZeroUsize::MIN);
                self.make.clone().with_jobs(jobs).build(job, progress)
            }
        }
    }
}

/// The kernel that a user named, from the cache or fetched and built.
pub(super) fn get(request: &Request, settings: &Settings) -> Result<ResolvedKernel> {
    let cache = KernelCache::from_env()?;
    let builder = Builder { make: MakeBuilder::new(cache.log_dir()), settings };
    let sources = Sources::from_env();
    let attempt = || resolve(request, &cache, &sources, &builder, &mut Printer::new());
    let kernel = match attempt() {
        // Package lists that were never fetched know no package.
        Err(KernelError::Source(SourceError::PackageNotFound { .. }))
            if sources.refresh_package_lists().is_ok() =>
        {
            eprintln!("ktstr: the package lists were out of date; looking again");
            attempt()?
        }
        other => other?,
    };
    if let KernelOrigin::Hit { key, built_at } = &kernel.origin {
        eprintln!("ktstr: cache hit for {} ({key}, built {} ago)", request.spec, age(now(), *built_at));
    }
    Ok(kernel)
}

/// A request for what `--kernel` names.
pub(super) fn request(spec: &str) -> Result<Request> {
    let spec: KernelSpec = spec.parse().context("reading the kernel to use")?;
    Ok(Request::new(spec, Arch::host()?))
}

/// What `KTSTR_KERNEL` (or, for a tree built in place, `KTSTR_TEST_KERNEL`) must be for tests
/// to use this kernel: name of the variable and value.
pub(super) fn environment(kernel: &ResolvedKernel) -> (&'static str, String) {
    match &kernel.origin {
        KernelOrigin::Hit { key, .. } | KernelOrigin::Stored { key } => ("KTSTR_KERNEL", key.to_string()),
        KernelOrigin::InTree { .. } => ("KTSTR_TEST_KERNEL", kernel.image.display().to_string()),
    }
}

fn build(args: &BuildArgs) -> Result<ResolvedKernel> {
    let mut request = request(&args.spec)?;
    request.force = args.force;
    request.clean = args.clean;
    if let Some(path) = &args.extra_kconfig {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("reading the extra kernel options {}", path.display()))?;
        request.extra_kconfig = Some(text);
    }
    let settings = Settings::from_env()?.capped(args.cpu_cap)?;
    let kernel = get(&request, &settings)?;
    eprintln!("ktstr: kernel {} at {}", kernel.version, kernel.image.display());
    if let KernelOrigin::InTree { reason, .. } = &kernel.origin {
        eprintln!("ktstr: not kept in the cache: {reason}");
    }
    Ok(kernel)
}

fn list() -> Result<()> {
    let cache = KernelCache::from_env()?;
    let rows = list_rows(&cache.list()?, &ktstr_kconfig::kconfig_hash(), None);
    if rows.is_empty() {
        println!("no kernels in {}; {}", cache.root().display(), ktstr_kernel::KTSTR_KERNEL_HINT);
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["KEY", "VERSION", "SOURCE", "ARCH", "BUILT", ""]);
    for row in &rows {
        table.add_row(cells(row));
    }
    println!("{table}");
    Ok(())
}

fn cells(row: &ListRow) -> [String; 6] {
    let text = |value: Option<&str>| value.unwrap_or("-").to_string();
    let built = row.built_at.map_or_else(|| "-".to_string(), |at| format!("{} ago", age(now(), at)));
    [
        row.key.clone(),
        text(row.version.as_deref()),
        text(row.source),
        text(row.arch),
        built,
        row.remarks().join(" "),
    ]
}

fn clean(args: &CleanArgs) -> Result<()> {
    let cache = KernelCache::from_env()?;
    let policy =
        if args.corrupt_only { CleanPolicy::CorruptOnly } else { CleanPolicy::Keep(args.keep.unwrap_or(0)) };
    if !args.force && !confirmed(&cache)? {
        println!("nothing removed");
        return Ok(());
    }
    let removed = cache.clean(policy)?;
    for key in &removed {
        println!("removed {key}");
    }
    println!("{} removed from {}", removed.len(), cache.root().display());
    let stale = super::template::clean_stale()?;
    if stale > 0 {
        println!("{stale} saved machines removed with their kernels");
    }
    Ok(())
}

fn confirmed(cache: &KernelCache) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("removing kernels without a terminal to ask on: pass --force");
    }
    print!("remove kernels from {}? [y/N] ", cache.root().display());
    std::io::stdout().flush().context("asking")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("reading the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|d| d.as_secs()).unwrap_or_default()
}
