//! The emulated machine, and one run of commands in it.

use super::Invocation;
use super::clock;
use super::console::{self, Section};
use super::monitor::Monitor;
use super::parts::{self, Program};
use super::qemu;
use crate::child::Child;
use crate::project::Project;
use anyhow::{Context, Result, bail};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What every command finds in its environment: kernels from the folder `/guest`, no cache, and
/// reports in words.
const ENVIRONMENT: [&str; 9] = [
    "KTSTR_VMM_BZIMAGE=/guest/bzImage",
    "KTSTR_VMM_VMLINUX=/guest/vmlinux",
    "KTSTR_TEST_KERNEL=/guest/bzImage",
    "KTSTR_ACCEL=kvm",
    "KTSTR_LOG_PASSES=1",
    "KTSTR_SIDECAR_DIR=/tmp/results",
    "KTSTR_SKIP_LOG=/tmp/skipped",
    "HOME=/tmp",
    "NEXTEST=1",
];

/// The lab's own kernel has its timer interrupt come periodically, by its last two words. QEMU loses one now and then
/// (vmm/LAB.md says how that was found), and a kernel that asks for each anew then waits for ever.
const APPEND: &str =
    "console=ttyS0 rdinit=/init panic=-1 loglevel=3 mitigations=off nokaslr highres=off nohz=off";

/// How much the emulated machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) cpus: u32,
    /// Pages of 2 MiB that its kernel sets aside.
    pub(super) huge_pages: u32,
}

impl Size {
    /// What nearly all of it takes (vmm/LAB.md says why no more).
    pub(super) const USUAL: Self = Self { cpus: 1, huge_pages: 0 };
    /// A CPU for a vCPU and one for everything else, and RAM for a machine of one vCPU.
    pub(super) const PERFORMANCE: Self = Self { cpus: 2, huge_pages: 400 };
}

/// A root file system that is ready but for the commands, and its kernel.
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
    /// The commands that were started.
    pub(super) sections: Vec<Section>,
    pub(super) elapsed: Duration,
    /// Why not all of them came to their end, and the console's last lines; empty if they did.
    pub(super) trouble: String,
}

impl<'a> Lab<'a> {
    /// Gets the kernels, builds `programs` and lays out the root file system.
    ///
    /// # Errors
    /// Whatever of these failed, or another run that uses the folder.
    pub(super) fn prepare(project: &'a Project, programs: &[&Program]) -> Result<Self> {
        let folder = project.logs.with_file_name("kvm-lab");
        let root = folder.join("root");
        std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let lock = lock(&folder.join("lock"))?;
        if root.exists() {
            std::fs::remove_dir_all(&root).with_context(|| format!("removing {}", root.display()))?;
        }
        println!("  the lab's kernels and programs");
        let kernel = parts::lay_out(project, &folder, &root, programs)?;
        let qemu = std::env::var_os("KTSTR_QEMU").filter(|name| !name.is_empty());
        let qemu = qemu.unwrap_or_else(|| "qemu-system-x86_64".into()).into();
        Ok(Self { project, qemu, kernel, root, _lock: lock })
    }

    /// Takes a program of this machine along into the lab's `/bin`.
    pub(super) fn take_along(&self, program: &Path) -> Result<()> {
        let name = program.file_name().unwrap_or_default();
        let inside = self.root.join("bin").join(name);
        std::fs::copy(program, &inside)
            .with_context(|| format!("taking {} along into the lab", program.display()))?;
        Ok(())
    }

    /// Takes QEMU along, each file where it lies on this machine; the program's path.
    pub(super) fn take_qemu_along(&self) -> Result<PathBuf> {
        let files = qemu::files(self.project, &self.qemu)?;
        for file in &files {
            let inside = self.root.join(file.strip_prefix("/").unwrap_or(file));
            let doing = || format!("taking {} along into the lab", file.display());
            std::fs::create_dir_all(inside.parent().unwrap_or(&self.root)).with_context(doing)?;
            std::fs::copy(file, &inside).with_context(doing)?;
        }
        files.into_iter().next().context("QEMU has no files")
    }

    /// Boots the lab for these commands, one after the other, and shows its console. It is ended
    /// after `limit`.
    pub(super) fn run(
        &self,
        label: &str,
        size: Size,
        commands: &[Invocation],
        limit: Duration,
    ) -> Result<Report> {
        self.write(commands)?;
        let archive = self.root.with_extension("cpio");
        pack(&self.root, &archive)?;
        let monitor = Monitor::new();
        let command = self.command(size, &archive, &monitor, limit);
        let lab = Child::new(&self.project.logs, label, command).show(|line| {
            monitor.heard();
            !line.trim().is_empty()
        });
        let ended = std::thread::scope(|scope| {
            let (running, ended) = std::sync::mpsc::channel();
            let monitor = &monitor;
            scope.spawn(move || monitor.watch(&ended));
            let lab = lab.run();
            drop(running);
            lab
        })?;
        let sections = console::sections(&ended.output);
        let all_ended = sections.len() == commands.len() && sections.iter().all(|s| s.end.is_some());
        let stage = || console::stage(&ended.output);
        let trouble = if all_ended {
            String::new()
        } else if ended.elapsed >= limit {
            format!("the lab was ended after {} s, while {}; {}", limit.as_secs(), stage(), ended.failure())
        } else {
            format!("the lab died while {}; {}", stage(), ended.failure())
        };
        Ok(Report { sections, elapsed: ended.elapsed, trouble })
    }

    /// One file a command, one word a line; see vmm/vm/examples/lab_init.rs.
    fn write(&self, commands: &[Invocation]) -> Result<()> {
        let dir = self.root.join("commands");
        let doing = || format!("writing the lab's commands to {}", dir.display());
        if dir.exists() {
            std::fs::remove_dir_all(&dir).with_context(doing)?;
        }
        std::fs::create_dir(&dir).with_context(doing)?;
        for (at, command) in commands.iter().enumerate() {
            let program = Path::new("/bin").join(command.program.file_name().unwrap_or_default());
            let program = program.to_string_lossy();
            let settings = ENVIRONMENT.into_iter().chain(command.environment.iter().map(String::as_str));
            let words = settings.chain([&*program]).chain(command.arguments.iter().map(String::as_str));
            let text: Vec<&str> = words.collect();
            std::fs::write(dir.join(format!("{at:03}")), text.join("\n")).with_context(doing)?;
        }
        Ok(())
    }

    /// `timeout` in the foreground, so that an interrupt from the keyboard reaches QEMU.
    fn command(&self, size: Size, archive: &Path, monitor: &Monitor, limit: Duration) -> Command {
        let mut command = Command::new("timeout");
        command
            .args(["--foreground", "--kill-after=10", &limit.as_secs().to_string()])
            .arg(&self.qemu)
            .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-machine", "q35", "-m", "3G"])
            .args(["-smp", &size.cpus.to_string()])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"])
            .args(["-monitor", &monitor.option()])
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(archive)
            .arg("-append")
            .arg(command_line(size, clock::counter_khz()));
        command
    }
}

/// The lab's kernel is told how fast the time-stamp counter counts, where that is known.
fn command_line(size: Size, counter_khz: Option<u64>) -> String {
    let mut line = APPEND.to_owned();
    if size.huge_pages > 0 {
        line.push_str(&format!(" hugepages={}", size.huge_pages));
    }
    if size.cpus > 1 {
        // Its init brings up the others.
        line.push_str(" maxcpus=1");
    }
    if let Some(khz) = counter_khz {
        line.push_str(&format!(" tsc_early_khz={khz}"));
    }
    line
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
