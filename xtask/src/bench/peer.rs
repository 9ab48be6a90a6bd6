//! virtme-ng, another tool that boots a kernel to run a program in it: the same QEMU in
//! software emulation, the same kernel with what it needs added.

use crate::child::Child;
use crate::project::Project;
use anyhow::{Context, Result, bail};
use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const VERSION: &str = "1.42";
const KERNEL: &str = "apt:6.12";
/// It shares the host's root file system over 9p and puts an overlay above.
const OPTIONS: &str = "\
CONFIG_NETWORK_FILESYSTEMS=y
CONFIG_NETFS_SUPPORT=y
CONFIG_NET_9P=y
CONFIG_NET_9P_VIRTIO=y
CONFIG_9P_FS=y
CONFIG_9P_FS_POSIX_ACL=y
CONFIG_OVERLAY_FS=y
CONFIG_INOTIFY_USER=y
";
/// What the test prints in its first line, and in its last.
const FIRST_LINE: &str = "the test function begins";
const LAST_LINE: &str = "the test function ends";
const TEST: &str = "ktstr/quick_start_where_it_is";

/// The tool with its kernel.
pub(super) struct Peer {
    /// The Python environment that it is installed in.
    venv: PathBuf,
    image: PathBuf,
    /// The test binary with a quick-start test that runs on the machine it finds itself on.
    binary: PathBuf,
}

/// A run under it.
pub(super) struct Seen {
    pub(super) first_line: Duration,
    pub(super) whole: Duration,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "virtme-ng {VERSION} on the same kernel with 9p and overlayfs")
    }
}

impl Peer {
    /// Installs it into `dir`, builds its kernel there and runs it once.
    pub(super) fn set_up(project: &Project, dir: &Path, binary: PathBuf) -> Result<Self> {
        let venv = install(project, dir)?;
        let image = kernel(project, dir)?;
        let peer = Self { venv, image, binary };
        peer.run(Duration::from_secs(1))?;
        Ok(peer)
    }

    /// One whole run of the test.
    pub(super) fn run(&self, hold: Duration) -> Result<Seen> {
        let hold = hold.as_secs();
        let parent = "/sys/fs/cgroup/ktstr";
        let script = format!(
            "mkdir {parent}; echo '+cpuset +cpu' >{parent}/cgroup.subtree_control; NEXTEST=1 \
             KTSTR_SIDECAR_DIR=/run/ktstr-results KTSTR_HOST_CGROUP_PARENT={parent} KTSTR_DURATION_S={hold} \
             {} --exact {TEST} --nocapture",
            self.binary.display()
        );
        let begin = Instant::now();
        // The console is its standard error, a program's ports its standard output.
        let (said_by_it, writer) = std::io::pipe().context("making a pipe")?;
        let mut command = self.command(&script);
        command.stdout(writer.try_clone().context("duplicating a pipe")?).stderr(writer);
        let spawned = command.spawn();
        let mut child =
            spawned.with_context(|| format!("running {}", self.venv.join("bin/vng").display()))?;
        // It holds the pipe's writing end.
        drop(command);
        let (mut first_line, mut said) = (None, String::new());
        for line in BufReader::new(said_by_it).split(b'\n') {
            let line = String::from_utf8_lossy(&line.context("reading what it says")?).into_owned();
            if line.contains(FIRST_LINE) {
                first_line.get_or_insert(begin.elapsed());
            }
            said.push_str(line.trim_end());
            said.push('\n');
        }
        let status = child.wait().context("waiting for virtme-ng")?;
        let whole = begin.elapsed();
        // Without its ports it does not learn the program's exit code, and makes one up.
        match first_line.filter(|_| said.contains(LAST_LINE)) {
            Some(first_line) => Ok(Seen { first_line, whole }),
            None => bail!("a run of the test under virtme-ng ended with {status}: {}", said.trim()),
        }
    }

    /// What it needs of udev, its ports for a program's output, is missing on lean hosts; the
    /// console serves in that case, but only if it is verbose. The kernel is kept quiet.
    fn command(&self, script: &str) -> Command {
        let mut command = Command::new(self.venv.join("bin/vng"));
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .env("PATH", format!("{}:{path}", self.venv.join("bin").display()))
            .args(["--disable-kvm", "--force-9p", "--cpus", "2", "--memory", "512M", "--user", "root"])
            .args(["--verbose", "--append", "quiet", "--append", "loglevel=1"])
            .arg("--run")
            .arg(&self.image)
            .args(["--exec", script])
            .stdin(Stdio::null());
        command
    }
}

fn install(project: &Project, dir: &Path) -> Result<PathBuf> {
    let venv = dir.join(format!("virtme-ng-{VERSION}"));
    if !venv.join("bin/vng").exists() {
        let mut python = Command::new("python3");
        python.args(["-m", "venv"]).arg(&venv);
        Child::new(&project.logs, "bench: python environment", python).check()?;
        let mut pip = Command::new(venv.join("bin/pip"));
        pip.args(["install", "--quiet", &format!("virtme-ng=={VERSION}")]);
        Child::new(&project.logs, "bench: installing virtme-ng", pip).check()?;
    }
    Ok(venv)
}

/// In a cache of its own: no test is to find this kernel by chance.
fn kernel(project: &Project, dir: &Path) -> Result<PathBuf> {
    let options = dir.join("virtme-ng.kconfig");
    std::fs::write(&options, OPTIONS).with_context(|| format!("writing {}", options.display()))?;
    let options = options.display().to_string();
    let mut command = project.ktstr(&["kernel", "path", KERNEL, "--extra-kconfig", &options]);
    command.env("KTSTR_CACHE_DIR", dir.join("kernels"));
    let built = Child::new(&project.logs, "bench: kernel of virtme-ng", command).keep_stdout().check()?;
    built.last_line().map(PathBuf::from).context("building the kernel of virtme-ng: no path was printed")
}
