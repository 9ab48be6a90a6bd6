//! virtme-ng, another tool that boots a kernel to run a program in it: the same QEMU in
//! software emulation, the same kernel with what it needs added.

use crate::child::Child;
use crate::project::Project;
use anyhow::{Context, Result, ensure};
use std::fmt;
use std::io::{BufRead, BufReader, Read};
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
/// What the test prints in its first line.
const FIRST_LINE: &str = "the test function begins";
const TEST: &str = "ktstr/quick_start_where_it_is";

/// The tool with its kernel.
pub(super) struct Peer {
    vng: PathBuf,
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
        let vng = install(project, dir)?;
        let image = kernel(project, dir)?;
        let peer = Self { vng, image, binary };
        peer.run(Duration::from_secs(1))?;
        Ok(peer)
    }

    /// One whole run of the test.
    pub(super) fn run(&self, hold: Duration) -> Result<Seen> {
        let test = format!(
            "NEXTEST=1 KTSTR_SIDECAR_DIR=/tmp/ktstr-results KTSTR_DURATION_S={} {} --exact {TEST} --nocapture",
            hold.as_secs(),
            self.binary.display()
        );
        let begin = Instant::now();
        let mut child = Command::new(&self.vng)
            .args(["--disable-kvm", "--force-9p", "--cpus", "2", "--memory", "512M", "--user", "root"])
            .arg("--run")
            .arg(&self.image)
            .arg("--exec")
            .arg(test)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("running {}", self.vng.display()))?;
        let stderr = child.stderr.take().context("its standard error")?;
        let errors = std::thread::spawn(move || {
            let mut text = String::new();
            // What can't be read is missing from a message, no more.
            let _ = BufReader::new(stderr).read_to_string(&mut text);
            text
        });
        let mut first_line = None;
        for line in BufReader::new(child.stdout.take().context("its standard output")?).lines() {
            if line.context("reading what it says")?.contains(FIRST_LINE) {
                first_line.get_or_insert(begin.elapsed());
            }
        }
        let status = child.wait().context("waiting for virtme-ng")?;
        let whole = begin.elapsed();
        let errors = errors.join().unwrap_or_default();
        ensure!(status.success(), "it ended with {status}: {}", errors.trim());
        let first_line = first_line.with_context(|| format!("the test did not begin: {}", errors.trim()))?;
        Ok(Seen { first_line, whole })
    }
}

fn install(project: &Project, dir: &Path) -> Result<PathBuf> {
    let venv = dir.join(format!("virtme-ng-{VERSION}"));
    let vng = venv.join("bin/vng");
    if !vng.exists() {
        let mut python = Command::new("python3");
        python.args(["-m", "venv"]).arg(&venv);
        Child::new(&project.logs, "bench: python environment", python).check()?;
        let mut pip = Command::new(venv.join("bin/pip"));
        pip.args(["install", "--quiet", &format!("virtme-ng=={VERSION}")]);
        Child::new(&project.logs, "bench: installing virtme-ng", pip).check()?;
    }
    Ok(vng)
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
