//! The QEMU process and the thread that serves it.
//!
//! The thread spawns the process (so that the parent-death signal is tied to a
//! thread that lives as long as the machine), drains everything it says without
//! delay, speaks QMP's handshake, reaps it and reports how it ended.

use crate::fds::Channels;
use crate::qmp::{self, Inbound, Shutdown};
use crate::turns;
use ktstr_machine::{MachineError, VmEvent, VmExit};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes that may wait for the test before the guest has to.
const MAX_QUEUED: usize = 64 << 20;
const MAX_STDERR: usize = 16 << 10;
const CHUNK: usize = 64 << 10;

/// What the machine's owner and the serving thread share.
#[derive(Default)]
pub(crate) struct Shared {
    /// Room that events take which were sent and not yet taken.
    pub(crate) queued: AtomicUsize,
    /// Set when we end the machine ourselves.
    pub(crate) stopping: AtomicBool,
    /// What the vCPUs were at when the guest had its machine reset: `info registers`, once that was.
    pub(crate) last_registers: Mutex<String>,
}

/// Everything the serving thread needs.
pub(crate) struct Service {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) channels: Channels,
    pub(crate) shared: Arc<Shared>,
    pub(crate) events: Sender<VmEvent>,
    pub(crate) replies: Sender<qmp::Reply>,
}

/// What the owner needs of a started process.
pub(crate) struct Started {
    pub(crate) pidfd: OwnedFd,
    pub(crate) qmp: UnixStream,
}

impl Service {
    /// Runs until the process has ended and all it said was passed on.
    pub(crate) fn run(self, ready: &SyncSender<Result<Started, MachineError>>) {
        let (mut child, pidfd, qmp_writer) = match self.spawn() {
            Ok(started) => started,
            Err(e) => {
                // The owner waits for exactly one message, so this arrives.
                let _ = ready.send(Err(e));
                return;
            }
        };
        let stderr = child.stderr.take();
        let ends = self.channels.close_child_ends();
        let (Ok(own_pidfd), Ok(own_writer)) = (pidfd.try_clone(), qmp_writer.try_clone()) else {
            let _ = child.kill();
            let _ = child.wait();
            let _ = ready.send(Err(MachineError::os("duplicating descriptors of QEMU")(
                std::io::Error::last_os_error(),
            )));
            return;
        };
        if ready.send(Ok(Started { pidfd, qmp: qmp_writer })).is_err() {
            let _ = child.kill();
        }
        let mut pump = Pump {
            console: Some(ends.console),
            last_words: Some(ends.last_words),
            data: Some(ends.data),
            stdio: Some(ends.stdio),
            stderr,
            qmp: Some(ends.qmp),
            pidfd: own_pidfd,
            qmp_writer: own_writer,
            qmp_lines: qmp::Lines::default(),
            shutdown: None,
            stop_asked: false,
            errors: Vec::new(),
            shared: self.shared,
            events: self.events,
            replies: self.replies,
        };
        pump.run();
        let status = child.wait();
        let exit = pump.exit(status);
        let _ = pump.events.send(VmEvent::Exited(exit));
    }

    fn spawn(&self) -> Result<(Child, OwnedFd, UnixStream), MachineError> {
        let doing = || format!("starting {}", self.program.display());
        let fds = self.channels.child_fds();
        let inherited: Vec<RawFd> = fds.all();
        let parent = std::process::id();
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        if let Some(library) = fds.turns {
            command.env("LD_PRELOAD", turns::preload(library));
        }
        // SAFETY: between fork and exec only async-signal-safe calls are made
        // (prctl, getppid, fcntl) on descriptors that the parent keeps open.
        unsafe {
            command.pre_exec(move || prepare_child(&inherited, parent));
        }
        let mut child = command.spawn().map_err(MachineError::os(doing()))?;
        let pidfd = open_pidfd(child.id());
        match (pidfd, self.channels.qmp.try_clone()) {
            (Ok(pidfd), Ok(writer)) => Ok((child, pidfd, writer)),
            (Err(e), _) | (_, Err(e)) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(MachineError::os(doing())(e))
            }
        }
    }
}

/// Ties the child's life to its parent's and lets it keep its descriptors.
fn prepare_child(inherited: &[RawFd], parent: u32) -> std::io::Result<()> {
    // SAFETY: plain system calls without pointers.
    unsafe {
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
            return Err(std::io::Error::last_os_error());
        }
        // The parent may have died before the call above.
        if libc::getppid() as u32 != parent {
            return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
        }
        for fd in inherited {
            if libc::fcntl(*fd, libc::F_SETFD, 0) != 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
    }
    Ok(())
}

fn open_pidfd(pid: u32) -> std::io::Result<OwnedFd> {
    // SAFETY: pidfd_open(2) takes no pointers; the result is checked before use.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Sends `SIGKILL` through a pidfd, which can't hit a later process.
pub(crate) fn kill(pidfd: &OwnedFd) -> std::io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: pidfd_send_signal(2) with a null siginfo, as it allows.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), libc::SIGKILL, none, 0) };
    let error = std::io::Error::last_os_error();
    if result == 0 || error.raw_os_error() == Some(libc::ESRCH) { Ok(()) } else { Err(error) }
}

struct Pump {
    console: Option<File>,
    last_words: Option<File>,
    data: Option<File>,
    stdio: Option<File>,
    stderr: Option<ChildStderr>,
    qmp: Option<UnixStream>,
    pidfd: OwnedFd,
    qmp_writer: UnixStream,
    qmp_lines: qmp::Lines,
    shutdown: Option<Shutdown>,
    /// The guest asked for a stop that has not happened yet.
    stop_asked: bool,
    errors: Vec<u8>,
    shared: Arc<Shared>,
    events: Sender<VmEvent>,
    replies: Sender<qmp::Reply>,
}

#[derive(Clone, Copy, PartialEq)]
enum Source {
    Console,
    LastWords,
    Data,
    Stdio,
    Stderr,
    Qmp,
    Process,
}

impl Pump {
    /// Serves all sources until the process is dead and every pipe is drained.
    fn run(&mut self) {
        let mut alive = true;
        while alive || self.open() {
            for source in self.wait(alive) {
                match source {
                    Source::Console | Source::LastWords | Source::Data | Source::Stdio => self.output(source),
                    Source::Stderr => self.stderr(),
                    Source::Qmp => self.qmp(),
                    Source::Process => alive = false,
                }
            }
        }
        self.qmp();
    }

    /// True while something may still be read of what the process said.
    fn open(&self) -> bool {
        let output = [&self.console, &self.last_words, &self.data, &self.stdio];
        output.into_iter().any(Option::is_some) || self.stderr.is_some()
    }

    /// Sources with something to read (or at their end).
    fn wait(&self, alive: bool) -> Vec<Source> {
        let mut sources = Vec::new();
        let mut fds = Vec::new();
        let mut add = |source, fd| {
            sources.push(source);
            fds.push(PollFd::new(fd, PollFlags::POLLIN));
        };
        // A test that does not take what its guest says makes the guest wait.
        let room = self.shared.queued.load(Ordering::Relaxed) < MAX_QUEUED
            || self.shared.stopping.load(Ordering::Relaxed);
        if room {
            if let Some(f) = &self.console {
                add(Source::Console, f.as_fd());
            }
            if let Some(f) = &self.last_words {
                add(Source::LastWords, f.as_fd());
            }
            if let Some(f) = &self.data {
                add(Source::Data, f.as_fd());
            }
            if let Some(f) = &self.stdio {
                add(Source::Stdio, f.as_fd());
            }
        }
        if let Some(f) = &self.stderr {
            add(Source::Stderr, f.as_fd());
        }
        if let Some(f) = &self.qmp {
            add(Source::Qmp, f.as_fd());
        }
        if alive {
            add(Source::Process, self.pidfd.as_fd());
        }
        let timeout = if room { PollTimeout::NONE } else { PollTimeout::from(10u8) };
        if poll(&mut fds, timeout).is_err() {
            // EINTR: look again.
            return Vec::new();
        }
        let ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|r| !r.is_empty());
        sources.into_iter().zip(&fds).filter(|(_, fd)| ready(fd)).map(|(s, _)| s).collect()
    }

    fn output(&mut self, source: Source) {
        let (slot, event): (_, fn(Vec<u8>) -> VmEvent) = match source {
            Source::Console => (&mut self.console, VmEvent::Console),
            Source::LastWords => (&mut self.last_words, VmEvent::LastWords),
            Source::Stdio => (&mut self.stdio, VmEvent::Output),
            _ => (&mut self.data, VmEvent::Data),
        };
        let Some(file) = slot else { return };
        let mut buffer = [0; CHUNK];
        match file.read(&mut buffer) {
            Ok(n) if n > 0 => {
                let event = event(buffer[..n].to_vec());
                self.shared.queued.fetch_add(event.room(), Ordering::Relaxed);
                // A gone owner wants nothing; the process is being killed.
                let _ = self.events.send(event);
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            _ => *slot = None,
        }
    }

    fn stderr(&mut self) {
        let Some(stderr) = &mut self.stderr else { return };
        let mut buffer = [0; 4096];
        match stderr.read(&mut buffer) {
            Ok(n) if n > 0 => {
                self.errors.extend_from_slice(&buffer[..n]);
                let excess = self.errors.len().saturating_sub(MAX_STDERR);
                self.errors.drain(..excess);
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            _ => self.stderr = None,
        }
    }

    fn qmp(&mut self) {
        let Some(socket) = &mut self.qmp else { return };
        if socket.set_nonblocking(true).is_err() {
            self.qmp = None;
            return;
        }
        let mut buffer = [0; 4096];
        loop {
            match socket.read(&mut buffer) {
                Ok(n) if n > 0 => self.qmp_lines.push(&buffer[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => break,
                _ => {
                    self.qmp = None;
                    break;
                }
            }
        }
        while let Some(message) = self.qmp_lines.next() {
            match message {
                Inbound::Greeting => {
                    // A machine that dies at once is seen by its exit.
                    let _ = self.qmp_writer.write_all(qmp::HANDSHAKE.as_bytes());
                }
                Inbound::Reply(reply) => {
                    let _ = self.replies.send(reply);
                }
                Inbound::Shutdown(shutdown) => {
                    // The first is the guest's own; what follows is our `quit`.
                    if self.shutdown.is_none() {
                        self.shutdown = Some(shutdown);
                        self.let_go(shutdown);
                    }
                }
                Inbound::LastRegisters(text) => {
                    *self.shared.last_registers.lock().unwrap_or_else(PoisonError::into_inner) = text;
                }
                Inbound::StopAsked => self.stop_asked = true,
                Inbound::Stopped => {
                    if std::mem::take(&mut self.stop_asked) {
                        // A gone owner wants nothing.
                        let _ = self.events.send(VmEvent::Paused);
                    }
                }
                Inbound::Other => {}
            }
        }
    }

    /// The guest has ended and its machine stands still: has QEMU end too, after a last look at
    /// the vCPUs of one that asked for a reset (which panics do).
    fn let_go(&mut self, shutdown: Shutdown) {
        let look = if shutdown == Shutdown::Reset { qmp::LAST_REGISTERS } else { "" };
        // One that hears nothing any more is ending already.
        let _ = self.qmp_writer.write_all(format!("{look}{}", qmp::QUIT).as_bytes());
    }

    fn exit(&self, status: std::io::Result<ExitStatus>) -> VmExit {
        let stderr = String::from_utf8_lossy(&self.errors).trim().to_string();
        if self.shared.stopping.load(Ordering::SeqCst) {
            return VmExit::Stopped;
        }
        let status = match status {
            Ok(status) => status,
            Err(e) => return VmExit::Failed { code: -1, stderr: format!("waiting for QEMU: {e}; {stderr}") },
        };
        if let Some(signal) = status.signal() {
            return VmExit::Killed { signal, stderr };
        }
        match (status.code(), self.shutdown) {
            (Some(0), Some(Shutdown::PowerOff)) => VmExit::PowerOff,
            (Some(0), Some(Shutdown::Reset)) => VmExit::Reset,
            (Some(0), Some(Shutdown::Host)) => VmExit::Killed { signal: libc::SIGTERM, stderr },
            (code, _) => VmExit::Failed { code: code.unwrap_or(-1), stderr },
        }
    }
}
