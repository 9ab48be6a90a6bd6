//! What the lab is made of: two kernels, modules, and programs linked statically.

use crate::child::Child;
use crate::project::Project;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
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
/// PID 1 of the lab.
const INIT: &str = "lab_init";

/// A target of the workspace that the lab has in `/bin`.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) name: &'static str,
    /// `--test`, `--example` or `--bin`.
    kind: &'static str,
}

const fn program(kind: &'static str, name: &'static str) -> Program {
    Program { name, kind }
}

/// The last row is the lab's init, and not in `/bin`.
pub(super) const PROGRAMS: [Program; 7] = [
    program("--test", "linux"),
    program("--test", "micro_guest"),
    program("--test", "seeds"),
    program("--example", "boot"),
    program("--example", "probe"),
    program("--bin", "ktstr"),
    program("--example", INIT),
];
const PACKAGES: [&str; 3] = ["ktstr-vmm", "ktstr-vmm-vcpu", "ktstr"];

/// Lays out the lab's root file system in the empty folder `root` and returns the
/// kernel to boot it with.
pub(super) fn lay_out(project: &Project, folder: &Path, root: &Path) -> Result<PathBuf> {
    let host = kernel(project, HOST_KERNEL)?;
    let guest = kernel(project, GUEST_KERNEL)?;
    let programs = build(project, folder)?;
    for dir in ["bin", "guest", "modules"] {
        let dir = root.join(dir);
        std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    }
    modules(&beside(&host, "modules")?, &root.join("modules"))?;
    for (name, built) in &programs {
        let to = if name == INIT { root.join("init") } else { root.join("bin").join(name) };
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
fn build(project: &Project, folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut built = BTreeMap::new();
    // `cargo test --example` would make a test of an example, without its `main`.
    for (tests, verb) in [(true, &["test", "--no-run"][..]), (false, &["build"])] {
        let chosen = PROGRAMS.iter().filter(|program| (program.kind == "--test") == tests);
        let mut command = project.cargo(verb);
        command
            .args(["--target", TARGET, "--message-format", "json-render-diagnostics"])
            .args(PACKAGES.iter().flat_map(|package| ["-p", package]))
            .args(chosen.flat_map(|program| [program.kind, program.name]))
            .arg("--target-dir")
            .arg(folder.join("target"))
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        let label = format!("kvm-lab: cargo {}", verb[0]);
        let ended = Child::new(&project.logs, &label, command).keep_stdout().check()?;
        // A package's other programs come along with its tests.
        let wanted = |name: &str| PROGRAMS.iter().any(|program| program.name == name);
        built.extend(executables(&ended.stdout).into_iter().filter(|(name, _)| wanted(name)));
    }
    match PROGRAMS.iter().find(|program| !built.contains_key(program.name)) {
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
