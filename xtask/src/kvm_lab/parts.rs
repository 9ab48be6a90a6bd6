//! What the lab is made of: two kernels, modules, and programs linked statically.

use crate::child::Child;
use crate::project::Project;
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The lab's own kernel: a distribution's, whose KVM is a module.
const HOST_KERNEL: &str = "image:6.12";
/// The kernel that is booted inside.
const GUEST_KERNEL: &str = "apt:6.12";
/// In the order in which they are loaded.
const MODULES: [&str; 3] = ["irqbypass", "kvm", "kvm-amd"];
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// A target of the workspace that the lab has in `/bin`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    package: &'static str,
    /// `--test`, `--example` or `--bin`.
    kind: &'static str,
    /// Built for speed: it is measured.
    optimized: bool,
}

const fn program(package: &'static str, kind: &'static str, name: &'static str) -> Program {
    Program { name, package, kind, optimized: false }
}

/// PID 1 of the lab, and not in `/bin`.
const INIT: Program = program("ktstr-vmm", "--example", "lab_init");

/// The benchmark of `cargo xtask bench boot`; it needs QEMU in the lab.
pub(super) const BOOT_BENCH: Program =
    Program { optimized: true, ..program("ktstr-vmm", "--example", "boot_bench") };

pub(super) const PROGRAMS: [Program; 16] = [
    program("ktstr-vmm", "--test", "linux"),
    program("ktstr-vmm", "--test", "time"),
    program("ktstr-vmm-vcpu", "--test", "micro_guest"),
    program("ktstr", "--test", "seeds"),
    program("ktstr", "--test", "shapes"),
    program("ktstr", "--test", "drills"),
    program("ktstr", "--test", "must_fail"),
    program("ktstr", "--test", "monitor"),
    program("ktstr", "--test", "performance"),
    program("ktstr", "--test", "schedulers"),
    program("ktstr", "--test", "snapshots"),
    program("scx-fixture", "--bin", "scx-fixture"),
    program("ktstr-vmm", "--example", "boot"),
    program("ktstr-vmm", "--example", "boot_disks"),
    program("ktstr-vmm", "--example", "probe"),
    program("ktstr", "--bin", "ktstr"),
];

/// A program of the lab by its name.
pub(super) fn known(name: &str) -> Option<&'static Program> {
    PROGRAMS.iter().find(|program| program.name == name)
}

/// Lays out the lab's root file system in the empty folder `root` and returns the
/// kernel to boot it with.
pub(super) fn lay_out(
    project: &Project,
    folder: &Path,
    root: &Path,
    programs: &[&Program],
) -> Result<PathBuf> {
    let host = kernel(project, HOST_KERNEL)?;
    let guest = kernel(project, GUEST_KERNEL)?;
    let wanted: Vec<&Program> = programs.iter().copied().chain([&INIT]).collect();
    let programs = build(project, folder, &wanted)?;
    for dir in ["bin", "guest", "modules"] {
        let dir = root.join(dir);
        std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    }
    modules(&beside(&host, "modules")?, &root.join("modules"))?;
    for (name, built) in &programs {
        let to = if name == INIT.name { root.join("init") } else { root.join("bin").join(name) };
        strip(project, built, &to, &[])?;
    }
    copy(&guest, &root.join("guest/bzImage"))?;
    strip(project, &beside(&guest, "vmlinux")?, &root.join("guest/vmlinux"), &["-g"])?;
    Ok(host)
}

/// A kernel's image, from the cache or fetched and built.
fn kernel(project: &Project, spec: &str) -> Result<PathBuf> {
    let label = format!("kvm-lab: kernel {spec}");
    let command = project.ktstr(&["kernel", "path", spec]);
    let ended = Child::new(&project.logs, &label, command).keep_stdout().check()?;
    match ended.last_line() {
        Some(path) => Ok(path.into()),
        None => bail!("`kernel path {spec}` printed no path; {}", ended.ending()),
    }
}

fn beside(image: &Path, name: &str) -> Result<PathBuf> {
    let path = image.with_file_name(name);
    if !path.exists() {
        bail!(
            "the lab needs {name} beside {}, and it isn't there; `cargo ktstr kernel list` shows what is cached",
            image.display()
        );
    }
    Ok(path)
}

/// Unpacks the modules under names that sort in the order of loading.
fn modules(from: &Path, to: &Path) -> Result<()> {
    let mut found = BTreeMap::new();
    find_modules(from, &mut found)?;
    for (at, name) in MODULES.iter().enumerate() {
        let Some(packed) = found.get(*name) else {
            bail!("looking for the module {name} of {HOST_KERNEL}: no {name}.ko.xz below {}", from.display());
        };
        let doing = || format!("unpacking {}", packed.display());
        let output = Command::new("xz").arg("-dc").arg(packed).output().with_context(doing)?;
        if !output.status.success() {
            bail!(
                "{}: xz ended with {}: {}",
                doing(),
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        let unpacked = to.join(format!("{}-{name}.ko", at + 1));
        std::fs::write(&unpacked, &output.stdout)
            .with_context(|| format!("writing {}", unpacked.display()))?;
    }
    Ok(())
}

fn find_modules(dir: &Path, found: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let reading = || format!("reading the folder {}", dir.display());
    for entry in std::fs::read_dir(dir).with_context(reading)? {
        let entry = entry.with_context(reading)?;
        let path = entry.path();
        if entry.file_type().with_context(reading)?.is_dir() {
            find_modules(&path, found)?;
        } else if let Some(name) =
            path.file_name().and_then(OsStr::to_str).and_then(|n| n.strip_suffix(".ko.xz"))
        {
            found.insert(name.to_owned(), path.clone());
        }
    }
    Ok(())
}

/// Builds the programs in a target folder of their own: with other flags in the usual
/// one, everything there would be built anew, time and again.
fn build(project: &Project, folder: &Path, wanted: &[&Program]) -> Result<BTreeMap<String, PathBuf>> {
    let mut built = BTreeMap::new();
    // `cargo test --example` would make a test of an example, without its `main`.
    const KINDS: [(bool, bool, &[&str]); 3] = [
        (true, false, &["test", "--no-run"]),
        (false, false, &["build"]),
        (false, true, &["build", "--release"]),
    ];
    for (tests, optimized, verb) in KINDS {
        let is_chosen = |p: &&&Program| (p.kind == "--test") == tests && p.optimized == optimized;
        let chosen: Vec<_> = wanted.iter().filter(is_chosen).collect();
        if chosen.is_empty() {
            continue;
        }
        let packages: BTreeSet<_> = chosen.iter().map(|program| program.package).collect();
        let mut command = project.cargo(verb);
        command
            .args(["--target", TARGET, "--message-format", "json-render-diagnostics"])
            .args(packages.iter().flat_map(|package| ["-p", package]))
            .args(chosen.iter().flat_map(|program| [program.kind, program.name]))
            .arg("--target-dir")
            .arg(folder.join("target"))
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        let label = format!("kvm-lab: cargo {}", verb[0]);
        let ended = Child::new(&project.logs, &label, command).keep_stdout().check()?;
        // A package's other programs come along with its tests.
        let is_wanted = |name: &str| wanted.iter().any(|program| program.name == name);
        built.extend(executables(&ended.stdout).into_iter().filter(|(name, _)| is_wanted(name)));
    }
    match wanted.iter().find(|program| !built.contains_key(program.name)) {
        Some(missing) => bail!("building the lab's programs: cargo told of no {}", missing.name),
        None => Ok(built),
    }
}

/// Names and paths of the programs among cargo's messages, one JSON value a line.
fn executables(messages: &str) -> BTreeMap<String, PathBuf> {
    messages
        .lines()
        .filter_map(|line| {
            let message: serde_json::Value = serde_json::from_str(line).ok()?;
            let path = message.get("executable")?.as_str()?;
            Some((message.get("target")?.get("name")?.as_str()?.to_owned(), path.into()))
        })
        .collect()
}

/// A copy without what only debuggers read.
pub(super) fn strip(project: &Project, from: &Path, to: &Path, options: &[&str]) -> Result<()> {
    let mut command = Command::new("strip");
    command.args(options).arg("-o").arg(to).arg(from);
    Child::new(&project.logs, "kvm-lab: strip", command).check()?;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_found_among_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"ktstr"},"executable":null}
not json
{"reason":"compiler-artifact","target":{"name":"linux"},"executable":"/t/deps/linux-1"}
{"reason":"build-finished","success":true}"#;
        let found: Vec<_> = executables(messages).into_iter().collect();
        assert_eq!(found, [("linux".to_owned(), PathBuf::from("/t/deps/linux-1"))]);
    }
}
