//! The descriptors that a machine's process inherits.

use crate::args::ChildFds;
use crate::bell::Bell;
use crate::turns;
use ktstr_machine::{Accel, Blob, MachineError, MachineSpec};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// Room for a burst of guest output while we are not scheduled; best effort, an
/// unprivileged user's limit is 1 MiB as well (`/proc/sys/fs/pipe-max-size`).
const PIPE_BYTES: i32 = 1 << 20;

/// Our ends and the child's ends of everything a machine is connected to.
pub(crate) struct Channels {
    pub(crate) console: File,
    pub(crate) last_words: File,
    pub(crate) data: File,
    pub(crate) stdio: File,
    pub(crate) qmp: UnixStream,
    pub(crate) bell: Option<Bell>,
    /// RAM of each NUMA node.
    pub(crate) ram: Vec<NodeRam>,
    child: ChildEnds,
}

/// RAM of a NUMA node.
#[derive(Debug, Clone)]
pub(crate) struct NodeRam {
    pub(crate) file: Arc<File>,
    pub(crate) bytes: u64,
}

/// What is left to us once the child has its ends.
pub(crate) struct OurEnds {
    pub(crate) console: File,
    pub(crate) last_words: File,
    pub(crate) data: File,
    pub(crate) stdio: File,
    pub(crate) qmp: UnixStream,
}

struct ChildEnds {
    initramfs: File,
    console: OwnedFd,
    last_words: OwnedFd,
    data: OwnedFd,
    stdio: OwnedFd,
    qmp: UnixStream,
    bell: Option<OwnedFd>,
    /// What QEMU loads, in deterministic mode.
    turns: Option<File>,
}

impl Channels {
    /// Creates all of them; every descriptor is close-on-exec until the child
    /// clears the flag for its own.
    pub(crate) fn create(spec: &MachineSpec, initramfs: &[Blob]) -> Result<Self, MachineError> {
        let mut ram = Vec::new();
        for (node, mib) in spec.topology.node_memory_mib(spec.memory_mib)?.into_iter().enumerate() {
            let bytes = mib << 20;
            ram.push(NodeRam { file: Arc::new(sized_memfd(&format!("ktstr-ram{node}"), bytes)?), bytes });
        }
        let initramfs = initramfs_file(initramfs)?;
        let (console, child_console) = pipe("console")?;
        let (last_words, child_last_words) = pipe("second serial port")?;
        let (data, child_data) = pipe("data port")?;
        let (stdio, child_stdio) = pipe("standard output")?;
        let (qmp, child_qmp) =
            UnixStream::pair().map_err(MachineError::os("making a socket pair for QMP"))?;
        let (bell, child_bell, turns) = match spec.accel {
            Accel::Deterministic => {
                let (bell, end) = Bell::pair()?;
                (Some(bell), Some(end), Some(turns::library()?))
            }
            _ => (None, None, None),
        };
        let child = ChildEnds {
            initramfs,
            console: child_console,
            last_words: child_last_words,
            data: child_data,
            stdio: child_stdio,
            qmp: child_qmp,
            bell: child_bell,
            turns,
        };
        Ok(Self { console, last_words, data, stdio, qmp, bell, ram, child })
    }

    /// The numbers that the child sees.
    pub(crate) fn child_fds(&self) -> ChildFds {
        ChildFds {
            ram: self.ram.iter().map(|n| n.file.as_raw_fd()).collect(),
            initramfs: self.child.initramfs.as_raw_fd(),
            console: self.child.console.as_raw_fd(),
            last_words: self.child.last_words.as_raw_fd(),
            data: self.child.data.as_raw_fd(),
            stdio: self.child.stdio.as_raw_fd(),
            qmp: self.child.qmp.as_raw_fd(),
            bell: self.child.bell.as_ref().map(AsRawFd::as_raw_fd),
            turns: self.child.turns.as_ref().map(AsRawFd::as_raw_fd),
        }
    }

    /// Closes the child's ends here, so that our ends see its death.
    pub(crate) fn close_child_ends(self) -> OurEnds {
        let Self { console, last_words, data, stdio, qmp, .. } = self;
        OurEnds { console, last_words, data, stdio, qmp }
    }
}

impl ChildFds {
    /// All numbers, for clearing close-on-exec.
    pub(crate) fn all(&self) -> Vec<RawFd> {
        let mut all = self.ram.clone();
        all.extend([self.initramfs, self.console, self.last_words, self.data, self.stdio, self.qmp]);
        all.extend(self.bell);
        all.extend(self.turns);
        all
    }
}

fn sized_memfd(name: &str, bytes: u64) -> Result<File, MachineError> {
    let doing = || format!("reserving {} MiB for {name}", bytes >> 20);
    let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC).map_err(|e| MachineError::os(doing())(e.into()))?;
    let file = File::from(fd);
    file.set_len(bytes).map_err(MachineError::os(doing()))?;
    Ok(file)
}

fn initramfs_file(parts: &[Blob]) -> Result<File, MachineError> {
    let mut file = sized_memfd("ktstr-initramfs", 0)?;
    for part in parts {
        let doing = || format!("copying {part} into the initramfs");
        let copied = content(part).and_then(|mut source| io::copy(&mut source, &mut file));
        copied.map_err(MachineError::os(doing()))?;
    }
    Ok(file)
}

/// What a part holds.
pub(crate) fn content(part: &Blob) -> io::Result<Box<dyn Read + '_>> {
    Ok(match part {
        Blob::Bytes(bytes) => Box::new(bytes.as_slice()),
        Blob::File(path) => Box::new(File::open(path)?),
        Blob::Range { path, from, bytes } => {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(*from))?;
            Box::new(file.take(*bytes))
        }
    })
}

/// `(our reading end, the child's writing end)`.
fn pipe(what: &str) -> Result<(File, OwnedFd), MachineError> {
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)
        .map_err(|e| MachineError::os(format!("making a pipe for the {what}"))(e.into()))?;
    // A smaller pipe works too; the guest then waits for us more often.
    let _ = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
    Ok((File::from(reader), writer))
}
