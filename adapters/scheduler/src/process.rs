//! A scheduler's program as a process of ours, and its log.

use crate::LogSink;
use ktstr_scheduler::{BoundedLog, NotAttached};
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of a log that go to the host as they are written; after that its end is kept.
const STREAMED: usize = 256 << 10;
const HEAD: usize = 32 << 10;
const TAIL: usize = 64 << 10;
/// Between two looks at a process that should end.
const LOOK: Duration = Duration::from_millis(5);

/// From the end of a program's log to its own.
const ENDS_AFTER_ITS_LOG: Duration = Duration::from_millis(500);

/// A running (or ended) program.
pub(crate) struct Process {
    child: Child,
    ended: Option<End>,
    log: Arc<Log>,
}

/// How a program ended.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// As its parent was told.
    Told(ExitStatus),
    /// Someone else in this process was told instead, so that only its end is known.
    Untold(String),
}

impl End {
    /// Whether it is known to have gone well.
    pub(crate) fn success(&self) -> bool {
        matches!(self, Self::Told(status) if status.success())
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Told(status) => f.write_str(&how(*status)),
            Self::Untold(why) => write!(f, "a status that is not known ({why})"),
        }
    }
}

struct Log {
    state: Mutex<LogState>,
    closed: Condvar,
}

struct LogState {
    kept: BoundedLog,
    /// What was not sent to the host as it was written.
    unsent: BoundedLog,
    sent: usize,
    closed: bool,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, LogState> {
        // A panic while pushing leaves a shorter log, not a broken one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    /// Starts a program in a process group of its own; what it prints is collected.
    pub(crate) fn start(path: &str, args: &[String], sink: &LogSink) -> Result<Self, NotAttached> {
        let failed = |e: std::io::Error| NotAttached::NotStarted {
            path: path.to_string(),
            errno: e.raw_os_error(),
            why: e.to_string(),
        };
        let (reader, writer) = std::io::pipe().map_err(failed)?;
        let mut command = Command::new(Path::new(path));
        command.args(args).current_dir("/").process_group(0).stdin(Stdio::null());
        command.stdout(writer.try_clone().map_err(failed)?).stderr(writer);
        let child = command.spawn().map_err(failed)?;
        // The pipe's end comes when the program's copies of it are closed: none must be here.
        drop(command);
        let state = LogState {
            kept: BoundedLog::new(HEAD, TAIL),
            unsent: BoundedLog::new(0, TAIL),
            sent: 0,
            closed: false,
        };
        let log = Arc::new(Log { state: Mutex::new(state), closed: Condvar::new() });
        let (pumped, sink) = (Arc::clone(&log), Arc::clone(sink));
        std::thread::Builder::new()
            .name("ktstr-sched-log".to_string())
            .spawn(move || pump(reader, &pumped, &sink))
            .map_err(failed)?;
        Ok(Self { child, ended: None, log })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<End> {
        if self.ended.is_none() {
            self.ended = match self.child.try_wait() {
                Ok(status) => status.map(End::Told),
                // It has ended too, but how is lost.
                Err(e) => Some(End::Untold(format!("waiting for process {}: {e}", self.child.id()))),
            };
        }
        self.ended.clone()
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self, within: Duration) -> Option<End> {
        let deadline = Instant::now() + within;
        while self.ended().is_none() && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
        self.ended.clone()
    }

    /// Waits for its end, or until it can't be heard any more.
    pub(crate) fn wait_for_last_words(&mut self, within: Duration) -> Option<End> {
        let deadline = Instant::now() + within;
        while self.ended().is_none() && Instant::now() < deadline {
            if self.log.lock().closed {
                // A program that ends closes its log first; one that goes on without a log has nothing to add.
                return self.wait(ENDS_AFTER_ITS_LOG.min(deadline.saturating_duration_since(Instant::now())));
            }
            std::thread::sleep(LOOK);
        }
        self.ended.clone()
    }

    /// Sends a signal to its process group.
    pub(crate) fn signal(&self, signal: i32) {
        // SAFETY: kill(2) of the group that this process made; one that is gone is no harm.
        unsafe { libc::kill(-(self.child.id() as i32), signal) };
    }

    /// Sends a signal to the program itself, whose end has not been taken note of.
    pub(crate) fn signal_alone(&self, signal: i32) {
        if self.ended.is_none() {
            // SAFETY: kill(2) of a child that was not waited for: its pid is no one else's.
            unsafe { libc::kill(self.child.id() as i32, signal) };
        }
    }

    /// Whether it has a handler for that signal (proc_pid_status(5), `SigCgt`): without one, most signals end it.
    pub(crate) fn catches(&self, signal: i32) -> std::io::Result<bool> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
        Ok(mask >> (signal - 1) & 1 == 1)
    }

    /// What it printed, beginning and end; waits a moment for what is still in the pipe of a
    /// program that has ended.
    pub(crate) fn log_text(&mut self) -> String {
        if self.ended().is_some() {
            self.drain();
        }
        self.log.lock().kept.text()
    }

    /// What did not go to the host as it was written.
    pub(crate) fn unsent_log(&mut self) -> String {
        if self.ended().is_some() {
            self.drain();
        }
        self.log.lock().unsent.text()
    }

    /// A child of the program may hold the pipe open for longer than anyone wants to wait.
    fn drain(&self) {
        let state = self.log.lock();
        let waited = self.log.closed.wait_timeout_while(state, Duration::from_secs(1), |s| !s.closed);
        drop(waited);
    }
}

fn pump(mut reader: impl Read, log: &Log, sink: &LogSink) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => &buffer[..read],
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let mut state = log.lock();
        state.kept.push(read);
        let room = STREAMED - state.sent;
        let (now, later) = read.split_at(read.len().min(room));
        state.sent += now.len();
        state.unsent.push(later);
        drop(state);
        if !now.is_empty() {
            sink(now);
        }
    }
    log.lock().closed = true;
    log.closed.notify_all();
}

/// An end in words.
pub(crate) fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no known status".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> (Process, Arc<Mutex<Vec<u8>>>) {
        let sent = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&sent);
        let sink: LogSink = Arc::new(move |bytes: &[u8]| to.lock().unwrap().extend_from_slice(bytes));
        (Process::start("/bin/sh", &["-c".to_string(), script.to_string()], &sink).unwrap(), sent)
    }

    #[test]
    fn both_streams_are_one_log() {
        let (mut process, sent) = sh("echo out; echo err >&2; exit 3");
        assert_eq!(process.wait(Duration::from_secs(20)).unwrap().to_string(), "exit code 3");
        assert_eq!(process.log_text(), "out\nerr\n");
        assert_eq!(*sent.lock().unwrap(), b"out\nerr\n");
        assert_eq!(process.unsent_log(), "");
    }

    #[test]
    fn a_flood_is_bounded() {
        let (mut process, sent) =
            sh("i=0; while [ $i -lt 4000 ]; do printf '%0200d\\n' $i; i=$((i+1)); done; echo last");
        process.wait(Duration::from_secs(60)).unwrap();
        let text = process.log_text();
        assert!(text.len() < HEAD + TAIL + 100 && text.ends_with("last\n"), "{} bytes", text.len());
        assert_eq!(sent.lock().unwrap().len(), STREAMED);
        assert!(process.unsent_log().ends_with("last\n"));
    }

    #[test]
    fn a_signal_reaches_the_whole_group() {
        let (mut process, _) = sh("sleep 1000 & echo ready; wait");
        let deadline = Instant::now() + Duration::from_secs(20);
        while !process.log_text().contains("ready") && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
        process.signal(libc::SIGKILL);
        assert_eq!(process.wait(Duration::from_secs(20)).unwrap().to_string(), "signal 9");
        // The pipe closes only when the sleeper is gone too.
        process.drain();
        assert!(process.log.lock().closed);
    }

    #[test]
    fn who_can_not_be_heard_is_not_waited_for() {
        let (mut process, _) = sh("echo gone; exec sleep 1000 >&- 2>&-");
        let started = Instant::now();
        assert!(process.wait_for_last_words(Duration::from_secs(60)).is_none(), "it goes on");
        assert!(started.elapsed() < Duration::from_secs(30));
        process.signal(libc::SIGKILL);
        assert_eq!(process.wait(Duration::from_secs(20)).unwrap().to_string(), "signal 9");
        assert_eq!(process.log_text(), "gone\n");
        let (mut process, _) = sh("echo last; exit 4");
        let end = process.wait_for_last_words(Duration::from_secs(60)).unwrap();
        assert_eq!((end.to_string().as_str(), process.log_text().as_str()), ("exit code 4", "last\n"));
    }

    #[test]
    fn a_program_that_someone_else_reaped_has_ended_in_an_unknown_way() {
        let (mut process, _) = sh("exit 0");
        let mut status = 0;
        // SAFETY: waits for a child of this process, into a number of ours.
        let reaped = unsafe { libc::waitpid(process.pid() as i32, &raw mut status, 0) };
        assert_eq!(reaped, process.pid() as i32);
        let end = process.wait(Duration::from_secs(20)).unwrap();
        assert!(!end.success(), "{end}");
        assert!(end.to_string().starts_with("a status that is not known (waiting for process"), "{end}");
    }

    #[test]
    fn only_a_handler_catches_a_signal() {
        let (mut process, _) =
            sh("trap 'echo caught; exit 5' USR2; echo ready; while :; do sleep 0.05; done");
        let deadline = Instant::now() + Duration::from_secs(20);
        while !process.log_text().contains("ready") && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
        assert!(process.catches(libc::SIGUSR2).unwrap() && !process.catches(libc::SIGUSR1).unwrap());
        process.signal_alone(libc::SIGUSR2);
        assert_eq!(process.wait(Duration::from_secs(20)).unwrap().to_string(), "exit code 5");
        assert!(process.log_text().contains("caught"));
        assert!(process.catches(libc::SIGUSR2).is_err());
        process.signal_alone(libc::SIGUSR2);
    }

    #[test]
    fn what_is_no_program_is_told_with_its_errno() {
        let sink: LogSink = Arc::new(|_: &[u8]| {});
        let of = |path: &str| match Process::start(path, &[], &sink) {
            Err(NotAttached::NotStarted { errno, .. }) => errno,
            _ => panic!("it started"),
        };
        assert_eq!(of("/no/such/program"), Some(libc::ENOENT));
        assert_eq!(of("/etc"), Some(libc::EACCES));
    }
}
