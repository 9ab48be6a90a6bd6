//! The emulated machine, and one run of a program in it.

use super::{console, parts};
use crate::child::Child;
use crate::project::Project;
use anyhow::{Context, Result, bail};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A lab that isn't done by then hangs.
const LIMIT: Duration = Duration::from_secs(600);

/// Kernels from the folder `/guest`, no cache, and reports in words.
const ENVIRONMENT: [&str; 8] = [
    "KTSTR_VMM_BZIMAGE=/guest/bzImage",
    "KTSTR_VMM_VMLINUX=/guest/vmlinux",
    "KTSTR_TEST_KERNEL=/guest/bzImage",
    "KTSTR_ACCEL=kvm",
    "KTSTR_LOG_PASSES=1",
    "KTSTR_SIDECAR_DIR=/tmp/results",
    "HOME=/tmp",
    "NEXTEST=1",
];

/// A root file system that is ready but for the command, and its kernel.
pub(super) struct Lab<'a> {
    project: &'a Project,
    qemu: PathBuf,
    kernel: PathBuf,
    root: PathBuf,
    /// Held while the folder is in use.
    _lock: File,
}

/// How a run ended.
#[derive(Debug)]
pub(super) struct Report {
    /// `None` if the lab died or was ended before its program came to an end.
    pub(super) code: Option<i32>,
    pub(super) output: String,
    pub(super) elapsed: Duration,
    /// What went wrong and the console's end; empty if nothing did.
    pub(super) trouble: String,
}

impl<'a> Lab<'a> {
    /// Gets the kernels, builds the programs and lays out the root file system.
    ///
    /// # Errors
    /// Whatever of these failed, or another run that uses the folder.
    pub(super) fn prepare(project: &'a Project) -> Result<Self> {
        let folder = project.logs.with_file_name("kvm-lab");
        let root = folder.join("root");
        std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let lock = lock(&folder.join("lock"))?;
        if root.exists() {
            std::fs::remove_dir_all(&root).with_context(|| format!("removing {}", root.display()))?;
        }
        println!("  the lab's kernels and programs");
        let kernel = parts::lay_out(project, &folder, &root)?;
        let qemu = std::env::var_os("KTSTR_QEMU").filter(|name| !name.is_empty());
        let qemu = qemu.unwrap_or_else(|| "qemu-system-x86_64".into()).into();
        Ok(Self { project, qemu, kernel, root, _lock: lock })
    }

    /// A command's words as the lab knows them: names are in `/bin`, and a file of the
    /// host is taken along.
    pub(super) fn admit(&self, words: &[String]) -> Result<Vec<String>> {
        let Some((program, rest)) = words.split_first() else {
            bail!("nothing to run in the lab");
        };
        let path = Path::new(program);
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            bail!("{program:?} names no program");
        };
        let inside = self.root.join("bin").join(name);
        if name != program {
            std::fs::copy(path, &inside).with_context(|| format!("taking {program} along into the lab"))?;
        } else if !inside.exists() {
            let known: Vec<_> = parts::PROGRAMS.iter().map(|program| program.name).collect();
            bail!(
                "the lab has no program {program:?}; it has {}, and takes along what is given as a path",
                known.join(", ")
            );
        }
        Ok(std::iter::once(format!("/bin/{name}")).chain(rest.iter().cloned()).collect())
    }

    /// Boots the lab for one command and shows its console.
    pub(super) fn run(&self, label: &str, words: &[String], environment: &[String]) -> Result<Report> {
        let command = self.root.join("command");
        std::fs::write(&command, words.join("\n"))
            .with_context(|| format!("writing {}", command.display()))?;
        let archive = self.root.with_extension("cpio");
        pack(&self.root, &archive)?;
        let mut words = vec!["console=ttyS0 rdinit=/init panic=-1 loglevel=3 mitigations=off nokaslr"];
        words.extend(ENVIRONMENT);
        words.extend(environment.iter().map(String::as_str));
        let ended = Child::new(&self.project.logs, label, self.command(&archive, &words.join(" ")))
            .show(|line| !line.trim().is_empty())
            .run()?;
        let code = console::exit_code(&ended.output).filter(|_| ended.success);
        let trouble = match code {
            Some(0) => String::new(),
            Some(_) => ended.failure(),
            None if ended.elapsed >= LIMIT => format!(
                "the lab was ended after {} s, while {}; {}",
                LIMIT.as_secs(),
                console::stage(&ended.output),
                ended.failure()
            ),
            None => format!("the lab died while {}; {}", console::stage(&ended.output), ended.failure()),
        };
        Ok(Report { code, elapsed: ended.elapsed, output: ended.output, trouble })
    }

    /// `timeout` in the foreground, so that an interrupt from the keyboard reaches QEMU.
    fn command(&self, archive: &Path, kernel_words: &str) -> Command {
        let mut command = Command::new("timeout");
        command
            .args(["--foreground", "--kill-after=10", &LIMIT.as_secs().to_string()])
            .arg(&self.qemu)
            .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-machine", "q35", "-smp", "1", "-m", "3G"])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"])
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(archive)
            .args(["-append", kernel_words]);
        command
    }
}

fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!(
                "another kvm-lab of this checkout is at work ({} is locked); wait for its end",
                path.display()
            )
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("locking {}", path.display())),
    }
}

/// Packs a folder as an initramfs. `cpio` wants the names on its standard input.
fn pack(root: &Path, archive: &Path) -> Result<()> {
    let doing = || format!("packing {} into {}", root.display(), archive.display());
    let (reader, writer) = std::io::pipe().with_context(doing)?;
    let into = File::create(archive).with_context(doing)?;
    let mut find =
        Command::new("find").arg(".").current_dir(root).stdout(writer).spawn().with_context(doing)?;
    let cpio = Command::new("cpio")
        .args(["-o", "-H", "newc", "--quiet"])
        .current_dir(root)
        .stdin(reader)
        .stdout(into)
        .stderr(Stdio::piped())
        .output()
        .with_context(doing)?;
    let found = find.wait().with_context(doing)?;
    if !found.success() || !cpio.status.success() {
        let said = String::from_utf8_lossy(&cpio.stderr);
        bail!("{}: find ended with {found}, cpio with {}: {}", doing(), cpio.status, said.trim());
    }
    Ok(())
}
