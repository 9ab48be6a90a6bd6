//! Running a child: output to a log file, a sign of life while it runs, the
//! log's end when it fails.

#[cfg(test)]
mod tests;

use crate::say;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{PipeReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child as Process, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// How long nothing may be shown before a line says what runs.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How often the child is asked whether it ended.
const POLL: Duration = Duration::from_millis(50);
/// How long output is waited for after the child's end: a grandchild may hold
/// the pipe open for ever.
const DRAIN: Duration = Duration::from_secs(2);

/// A child to be run.
pub(crate) struct Child<'a> {
    command: Command,
    label: &'a str,
    log: PathBuf,
    show: Box<dyn Fn(&str) -> bool + 'a>,
    keep_stdout: bool,
    heartbeat: Duration,
}

/// A child that ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) success: bool,
    pub(crate) elapsed: Duration,
    /// Standard output, if it was asked for.
    pub(crate) stdout: String,
    /// All it printed, as in the log file.
    pub(crate) output: String,
    label: String,
    status: ExitStatus,
    log: PathBuf,
}

impl<'a> Child<'a> {
    /// A child whose output goes to `LOGS/LABEL.log`, blanks as dashes.
    pub(crate) fn new(logs: &Path, label: &'a str, command: Command) -> Self {
        Self {
            command,
            label,
            log: logs.join(format!("{}.log", label.replace([' ', '/', ':'], "-"))),
            show: Box::new(|_| false),
            keep_stdout: false,
            heartbeat: HEARTBEAT,
        }
    }

    /// Also shows the lines of output that `wanted` says yes to, as they come.
    pub(crate) fn show(mut self, wanted: impl Fn(&str) -> bool + 'a) -> Self {
        self.show = Box::new(wanted);
        self
    }

    /// Keeps standard output apart, for the caller to read.
    pub(crate) fn keep_stdout(mut self) -> Self {
        self.keep_stdout = true;
        self
    }

    /// Runs it to its end. It gets no standard input.
    ///
    /// An error means that it could not be run; how it ended is in [`Ended`].
    pub(crate) fn run(mut self) -> Result<Ended> {
        let started = Instant::now();
        let program = self.command.get_program().to_owned();
        let doing = || format!("running {}", program.display());
        let mut log = File::create(&self.log).with_context(|| format!("creating {}", self.log.display()))?;
        writeln!(log, "$ {:?}", self.command)?;
        let (lines, process) = start(&mut self.command, self.keep_stdout).with_context(doing)?;
        let mut reading = Reading {
            log,
            show: &self.show,
            label: self.label,
            started,
            heartbeat: self.heartbeat,
            shown: started,
            last: String::new(),
            stdout: String::new(),
            output: String::new(),
        };
        let status = reading.follow(process, &lines).with_context(doing)?;
        Ok(Ended {
            success: status.success(),
            elapsed: started.elapsed(),
            stdout: reading.stdout,
            output: reading.output,
            label: self.label.to_owned(),
            status,
            log: self.log,
        })
    }

    /// Runs it; an end other than success is an error that shows the log's end.
    pub(crate) fn check(self) -> Result<Ended> {
        let ended = self.run()?;
        if ended.success {
            return Ok(ended);
        }
        bail!("{}", ended.failure());
    }
}

impl Ended {
    /// The last line of standard output that says something.
    pub(crate) fn last_line(&self) -> Option<&str> {
        self.stdout.lines().map(str::trim).rfind(|line| !line.is_empty())
    }

    /// How it ended and where its output is.
    pub(crate) fn ending(&self) -> String {
        format!("{} ended with {}; its output is in {}", self.label, self.status, self.log.display())
    }

    /// What happened, the log's last lines and where the rest is.
    pub(crate) fn failure(&self) -> String {
        const LINES: usize = 40;
        let lines: Vec<_> = self.output.lines().collect();
        let tail = lines[lines.len().saturating_sub(LINES)..].join("\n    | ");
        format!(
            "{} ended with {} after {}; the end of {}:\n    | {tail}",
            self.label,
            self.status,
            say::duration(self.elapsed),
            self.log.display()
        )
    }
}

/// A line of output, and whether it is from the kept standard output.
struct Line {
    text: String,
    kept: bool,
}

/// The lines arrive over a channel, so that their reader can also tell the time.
fn start(command: &mut Command, keep_stdout: bool) -> Result<(Receiver<Line>, Process)> {
    let (sender, receiver) = channel();
    let (reader, writer) = std::io::pipe()?;
    command.stdin(Stdio::null()).stderr(writer.try_clone()?);
    let kept = if keep_stdout {
        let (kept, kept_writer) = std::io::pipe()?;
        command.stdout(kept_writer);
        Some(kept)
    } else {
        command.stdout(writer);
        None
    };
    let process = command.spawn()?;
    // Our copies of the write ends would keep the pipes open for ever.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    forward(reader, false, sender.clone());
    if let Some(kept) = kept {
        forward(kept, true, sender);
    }
    Ok((receiver, process))
}

fn forward(mut pipe: PipeReader, kept: bool, sender: Sender<Line>) {
    std::thread::spawn(move || {
        let (mut buffer, mut pending, mut returned) = ([0; 8192], Vec::new(), false);
        loop {
            let count = match pipe.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    pending.extend_from_slice(format!("(reading its output: {error})").as_bytes());
                    break;
                }
            };
            for &byte in &buffer[..count] {
                // A carriage return redraws a progress line: one more line here,
                // unless a line feed follows.
                let ends = byte == b'\r' || (byte == b'\n' && !returned);
                if ends {
                    let text = String::from_utf8_lossy(&pending).into_owned();
                    pending.clear();
                    if sender.send(Line { text, kept }).is_err() {
                        return;
                    }
                } else if byte != b'\n' {
                    pending.push(byte);
                }
                returned = byte == b'\r';
            }
        }
        if !pending.is_empty() {
            // Nobody listens any more if the child ended long ago.
            let _ = sender.send(Line { text: String::from_utf8_lossy(&pending).into_owned(), kept });
        }
    });
}

/// What is known while the child runs.
struct Reading<'a> {
    log: File,
    show: &'a dyn Fn(&str) -> bool,
    label: &'a str,
    started: Instant,
    heartbeat: Duration,
    shown: Instant,
    last: String,
    stdout: String,
    output: String,
}

impl Reading<'_> {
    fn follow(&mut self, mut process: Process, lines: &Receiver<Line>) -> Result<ExitStatus> {
        let mut ended: Option<(ExitStatus, Instant)> = None;
        loop {
            match lines.recv_timeout(POLL) {
                Ok(line) => self.take(&line)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(process.wait()?),
            }
            match ended {
                Some((status, at)) if at.elapsed() > DRAIN => return Ok(status),
                Some(_) => {}
                None => {
                    ended = process.try_wait()?.map(|status| (status, Instant::now()));
                    self.beat();
                }
            }
        }
    }

    fn take(&mut self, line: &Line) -> Result<()> {
        let text = line.text.trim_end();
        writeln!(self.log, "{text}").context("writing its log")?;
        self.output.push_str(text);
        self.output.push('\n');
        if line.kept {
            self.stdout.push_str(text);
            self.stdout.push('\n');
        }
        if (self.show)(text) {
            println!("    {text}");
            self.shown = Instant::now();
        }
        if !text.trim().is_empty() {
            self.last = text.trim().to_owned();
        }
        Ok(())
    }

    fn beat(&mut self) {
        if self.shown.elapsed() < self.heartbeat {
            return;
        }
        self.shown = Instant::now();
        let last: String = self.last.chars().take(80).collect();
        let since = say::duration(self.started.elapsed());
        println!("    … {}, {since} so far: {last}", self.label);
    }
}
