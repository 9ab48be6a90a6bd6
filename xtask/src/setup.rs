//! `cargo xtask setup`: installs what the other commands need.

mod host;
mod needs;
mod space;

use crate::args::Args;
use crate::child::Child;
use crate::project::Project;
use crate::say;
use anyhow::{Context, Result, bail};
use host::Host;
pub(crate) use needs::Part;
use needs::{NEEDS, Need, Plan};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

pub(crate) const HELP: &str = "\
cargo xtask setup [--check]

Installs what is missing on Debian and Ubuntu: QEMU, what a kernel build needs,
and for the tests cargo-nextest, clang 19 and the headers that libbpf needs. Elsewhere it says what to install. `demo` and `test` do this
by themselves. As another user than root it uses sudo if that asks no password.

  --check   only say what is there; exit code 1 if something is missing";

/// The release of the test runner that the project is tested with. Pinned,
/// since a newer one may want a newer compiler than rust-toolchain.toml names.
const NEXTEST: &str = "0.9.143";

/// Packages that kernels come from; the package lists should know them.
const KERNEL_PACKAGES: [&str; 2] = ["linux-image-6.12", "linux-source-6.12"];

/// The package lists are renewed at most this often in search of kernels: where
/// the distribution has none, every run would otherwise ask again.
const RENEW_LISTS_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Something is missing that this user may not or can not install; no other
/// work was done.
#[derive(Debug)]
pub(crate) struct Stopped(String);

#[cfg(test)]
impl Stopped {
    pub(crate) fn because(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Stopped {}

/// The command itself.
pub(crate) fn command(project: &Project, mut args: Args) -> Result<bool> {
    let check = args.flag("--check");
    args.finish()?;
    let host = Host::look();
    let found = look(&Part::ALL);
    println!("{}", describe(&found));
    if check {
        return Ok(found.iter().all(|(_, present)| *present));
    }
    install(project, &host, &found, &Part::ALL)?;
    println!("Everything is here. Next: cargo xtask demo");
    Ok(true)
}

/// Sees to it that `parts` can work, saying little if they can already.
///
/// # Errors
/// [`Stopped`] if a person has to install something first.
pub(crate) fn ensure(project: &Project, parts: &[Part]) -> Result<()> {
    let found = look(parts);
    if found.iter().any(|(_, present)| !present) {
        println!("{}", describe(&found));
    } else {
        let names: Vec<_> = found.iter().map(|(need, _)| need.name).collect();
        println!("  found: {}", names.join(", "));
    }
    if let Some(warning) = space::warning(project.target()) {
        println!("  note: {warning}");
    }
    install(project, &Host::look(), &found, parts)
}

fn look(parts: &[Part]) -> Vec<(&'static Need, bool)> {
    NEEDS.iter().filter(|need| parts.contains(&need.part)).map(|need| (need, need.probe.present())).collect()
}

fn describe(found: &[(&Need, bool)]) -> String {
    let rows: Vec<_> = found
        .iter()
        .map(|(need, present)| {
            let state = if *present { "found" } else { "missing" };
            [need.name.to_owned(), state.to_owned(), need.what.to_owned()]
        })
        .collect();
    say::table(&rows)
}

fn install(project: &Project, host: &Host, found: &[(&'static Need, bool)], parts: &[Part]) -> Result<()> {
    let missing: Vec<_> = found.iter().filter(|(_, present)| !present).map(|(need, _)| *need).collect();
    let (packages, nextest) = match needs::plan(&missing, host.distribution, host.rights) {
        Plan::Stop(text) => return Err(Stopped(text).into()),
        Plan::Install { packages, nextest } => (packages, nextest),
    };
    let kernels = parts.iter().any(|part| matches!(part, Part::Machine | Part::KernelBuild));
    renew_lists(project, host, &packages, kernels)?;
    if !packages.is_empty() {
        install_packages(project, host, &packages)?;
    }
    if nextest {
        install_nextest(project)?;
    }
    let absent: Vec<_> = missing.iter().filter(|need| !need.probe.present()).map(|need| need.name).collect();
    if !absent.is_empty() {
        bail!(
            "installing went well, yet {} can't be found; expected in PATH or the compiler's include path; \
             the logs are in {}",
            absent.join(", "),
            project.shown(&project.logs)
        );
    }
    Ok(())
}

/// `apt-get update`, if the lists lack a package that is wanted now, or (once a
/// day) the kernels that are wanted later.
fn renew_lists(project: &Project, host: &Host, packages: &[&str], kernels: bool) -> Result<()> {
    if !host.can_install() {
        return Ok(());
    }
    let unknown = packages.iter().any(|package| !host::apt_knows(package));
    let stamp = project.logs.join("package-lists-renewed");
    let no_kernels = kernels && KERNEL_PACKAGES.iter().any(|prefix| !host::apt_knows_any(prefix));
    if !unknown && (!no_kernels || renewed_lately(&stamp)) {
        return Ok(());
    }
    let ended = timed("renewing the package lists", || {
        Child::new(&project.logs, "apt-get update", host.as_root("apt-get", &["update"])).run()
    })?;
    if !ended.success {
        // Old lists may do; what can't be had is named by the step that wants it.
        println!("  {}\n  going on with the package lists there are", ended.failure());
    }
    std::fs::write(&stamp, "").with_context(|| format!("writing {}", stamp.display()))
}

fn renewed_lately(stamp: &PathBuf) -> bool {
    let age = std::fs::metadata(stamp)
        .and_then(|data| data.modified())
        .map(|then| SystemTime::now().duration_since(then).unwrap_or_default());
    age.is_ok_and(|age| age < RENEW_LISTS_AFTER)
}

fn install_packages(project: &Project, host: &Host, packages: &[&str]) -> Result<()> {
    let words: Vec<_> = needs::INSTALL_WORDS.iter().chain(packages).copied().collect();
    let run = || Child::new(&project.logs, "apt-get install", host.as_root("apt-get", &words)).run();
    let ended = timed(&format!("installing {}", packages.join(" ")), run)?;
    if ended.success {
        return Ok(());
    }
    // Lists older than the mirror name files that are gone.
    println!("  {}", ended.failure());
    timed("renewing the package lists, to try once more", || {
        Child::new(&project.logs, "apt-get update", host.as_root("apt-get", &["update"])).check()
    })?;
    timed("installing again", || {
        Child::new(&project.logs, "apt-get install", host.as_root("apt-get", &words)).check()
    })?;
    Ok(())
}

fn install_nextest(project: &Project) -> Result<()> {
    let what = format!("building cargo-nextest {NEXTEST}, the test runner, once");
    timed(&what, || {
        let command = project.cargo(["install", "cargo-nextest", "--locked", "--version", NEXTEST]);
        Child::new(&project.logs, "cargo install cargo-nextest", command).check()
    })?;
    Ok(())
}

fn timed<T>(what: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("  {what}");
    let started = Instant::now();
    let result = run()?;
    println!("    took {}", say::duration(started.elapsed()));
    Ok(result)
}

impl Host {
    fn can_install(&self) -> bool {
        self.distribution == needs::Distribution::Debian && self.rights != needs::Rights::None
    }

    /// A command with root's rights, that asks nothing.
    fn as_root(&self, program: &str, words: &[&str]) -> Command {
        const QUIET: &str = "DEBIAN_FRONTEND=noninteractive";
        let mut command = if self.rights == needs::Rights::Root {
            Command::new("env")
        } else {
            let mut sudo = Command::new("sudo");
            sudo.args(["-n", "env"]);
            sudo
        };
        // Another apt may be at work, for instance a machine's own upgrades.
        command.args([QUIET, program, "-o", "DPkg::Lock::Timeout=120"]).args(words);
        command
    }
}
