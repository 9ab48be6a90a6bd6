//! One run of make: its output in the log, its lines counted, and no process
//! of it left behind.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, PipeReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use ktstr_kernel::ports::BuildError;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getppid};

use crate::MakeError;

/// How many of the last lines an error shows.
const TAIL_LINES: usize = 30;
/// How many of the first complaints an error shows: with several compilers at
/// work the cause scrolls far up before make gives in.
const COMPLAINTS: usize = 10;
/// How long make may take to end its children when it is told to stop.
const GRACE: Duration = Duration::from_secs(3);

/// The log of one build and the steps that write to it.
pub(crate) struct Steps {
    tree: PathBuf,
    log_path: PathBuf,
    log: File,
}

impl Steps {
    /// Begins a new log.
    pub(crate) fn new(tree: &Path, log_path: PathBuf) -> Result<Self, MakeError> {
        let log = File::create(&log_path).map_err(MakeError::io("writing", &log_path))?;
        Ok(Self { tree: tree.to_owned(), log_path, log })
    }

    pub(crate) fn log_path(&self) -> &Path {
        &self.log_path
    }

    /// Runs `command` to its end. `on_line` gets the number of lines printed so
    /// far, after each. Returns the number of lines.
    pub(crate) fn run(
        &mut self,
        mut command: Command,
        on_line: &mut dyn FnMut(u64),
    ) -> Result<u64, BuildError> {
        let step = command_line(&command);
        self.note(&format!("+ {step}"))?;
        let program = PathBuf::from(command.get_program());
        let (mut group, output) = Group::start(&mut command).map_err(MakeError::io("starting", &program))?;
        // Its ends of the pipe, which would keep the output open.
        drop(command);
        let mut excerpt = Excerpt::default();
        let mut count = 0;
        let mut reader = BufReader::new(output);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = reader
                .read_until(b'\n', &mut line)
                .map_err(MakeError::io("reading the output of", &program))?;
            if read == 0 {
                break;
            }
            self.log.write_all(&line).map_err(MakeError::io("writing", &self.log_path))?;
            excerpt.add(String::from_utf8_lossy(&line).trim_end());
            count += 1;
            on_line(count);
        }
        let status = group.wait().map_err(MakeError::io("waiting for", &program))?;
        if status.success() {
            return Ok(count);
        }
        Err(BuildError::StepFailed {
            tree: self.tree.clone(),
            step,
            status: status.to_string(),
            tail: excerpt.text(),
            log: self.log_path.clone(),
        })
    }

    fn note(&mut self, text: &str) -> Result<(), MakeError> {
        writeln!(self.log, "{text}").map_err(MakeError::io("writing", &self.log_path))
    }
}

fn command_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

/// The lines of a long output that explain a failure.
#[derive(Default)]
struct Excerpt {
    complaints: Vec<String>,
    tail: VecDeque<String>,
}

impl Excerpt {
    fn add(&mut self, line: &str) {
        self.tail.push_back(line.to_owned());
        if self.tail.len() <= TAIL_LINES {
            return;
        }
        // Only what has left the tail, so that nothing is shown twice.
        if let Some(left) = self.tail.pop_front()
            && self.complaints.len() < COMPLAINTS
            && (left.contains("error:") || left.contains("*** "))
        {
            self.complaints.push(left);
        }
    }

    fn text(self) -> String {
        let mut lines = self.complaints;
        if !lines.is_empty() {
            lines.push("...".to_owned());
        }
        lines.extend(self.tail);
        lines.join("\n")
    }
}

/// A process group that is ended when this is dropped.
struct Group {
    child: Child,
    ended: bool,
}

impl Group {
    /// Starts `command` as the leader of a new group, with both its outputs in
    /// one pipe.
    fn start(command: &mut Command) -> io::Result<(Self, PipeReader)> {
        let (reader, writer) = io::pipe()?;
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
        stop_with_parent(command);
        let child = command.spawn()?;
        Ok((Self { child, ended: false }, reader))
    }

    fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait()?;
        self.ended = true;
        Ok(status)
    }

    fn ended_within(&mut self, limit: Duration) -> bool {
        let start = Instant::now();
        while start.elapsed() < limit {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(20)),
                Ok(Some(_)) | Err(_) => return true,
            }
        }
        false
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let Ok(pid) = i32::try_from(self.child.id()) else {
            return;
        };
        let group = Pid::from_raw(pid);
        // Asked to stop, make deletes the half-written file it was at. These
        // calls fail only when there is nothing left to signal or reap.
        let _ = killpg(group, Signal::SIGTERM);
        if !self.ended_within(GRACE) {
            let _ = killpg(group, Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

/// Has the kernel tell make to stop when the thread that started it ends,
/// however it ends (prctl(2), `PR_SET_PDEATHSIG`). SIGTERM, because make hands
/// that on to its children, which SIGKILL would leave at work.
fn stop_with_parent(command: &mut Command) {
    let parent = Pid::this();
    let hook = move || {
        set_pdeathsig(Signal::SIGTERM)?;
        // The parent may have died before that took effect.
        if getppid() == parent { Ok(()) } else { Err(io::Error::other("the starting process has ended")) }
    };
    // SAFETY: the hook runs between fork and exec, where only calls that are
    // async-signal-safe are allowed: prctl and getppid are plain system calls,
    // and nothing is allocated unless the child is about to give up.
    unsafe {
        command.pre_exec(hook);
    }
}

#[cfg(test)]
mod tests;
