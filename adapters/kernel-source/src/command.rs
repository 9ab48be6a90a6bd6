//! Running other programs: quietly, in English, and never longer than us.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

/// How much of a failed program's messages goes into an error.
const TAIL_LINES: usize = 12;

/// Why a program's work was not done.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There is no such program.
    #[error("{doing}: the program {program} is not installed")]
    NotInstalled {
        /// What it was to do.
        doing: String,
        /// Its name.
        program: String,
    },
    /// It could not be run.
    #[error("{doing}: running {program}: {error}")]
    Spawn {
        /// What it was to do.
        doing: String,
        /// Its name.
        program: String,
        /// What the operating system said.
        #[source]
        error: io::Error,
    },
    /// It ran and failed.
    #[error("{doing}: `{command}` ended with {status}: {stderr}")]
    Failed {
        /// What it was to do.
        doing: String,
        /// The command line.
        command: String,
        /// Exit status or signal.
        status: String,
        /// The end of what it said.
        stderr: String,
    },
}

/// Makes commands that look for their program in one search path.
#[derive(Debug, Clone, Default)]
pub(crate) struct Commands {
    path: Option<OsString>,
}

impl Commands {
    pub(crate) fn searching(path: OsString) -> Self {
        Self { path: Some(path) }
    }

    /// A command without input, with untranslated messages, that is killed
    /// when the thread that starts it ends.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).env("LC_ALL", "C");
        if let Some(path) = &self.path {
            command.env("PATH", path);
        }
        die_with_parent(&mut command);
        command
    }

    /// Runs `program` to its end and returns what it printed.
    pub(crate) fn run<S: AsRef<OsStr>>(
        &self,
        doing: &str,
        program: &str,
        args: &[S],
    ) -> Result<String, CommandError> {
        let mut command = self.command(program);
        command.args(args);
        run(doing, &mut command)
    }
}

/// Runs `command` to its end and returns what it printed.
pub(crate) fn run(doing: &str, command: &mut Command) -> Result<String, CommandError> {
    let output = command.output().map_err(|e| spawn_error(doing, command, e))?;
    check(doing, command, &output)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Starts `command` with its messages captured, to be waited for with
/// [`finish`].
pub(crate) fn start(doing: &str, command: &mut Command) -> Result<Running, CommandError> {
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|e| spawn_error(doing, command, e))?;
    Ok(Running { child: Some(child) })
}

/// Waits for a started command.
pub(crate) fn finish(doing: &str, command: &Command, mut running: Running) -> Result<(), CommandError> {
    let Some(child) = running.child.take() else {
        return Ok(());
    };
    let output = child.wait_with_output().map_err(|e| spawn_error(doing, command, e))?;
    check(doing, command, &output)
}

/// A program at work; killed when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Option<Child>,
}

impl Running {
    /// Has it ended? A failure to ask counts as yes: waiting tells then.
    pub(crate) fn ended(&mut self) -> bool {
        match &mut self.child {
            Some(child) => !matches!(child.try_wait(), Ok(None)),
            None => true,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Both fail only if it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn check(doing: &str, command: &Command, output: &Output) -> Result<(), CommandError> {
    if output.status.success() {
        return Ok(());
    }
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
    Err(CommandError::Failed {
        doing: doing.to_owned(),
        command: words.join(" "),
        status: output.status.to_string(),
        stderr: tail(&String::from_utf8_lossy(&output.stderr)),
    })
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

fn spawn_error(doing: &str, command: &Command, error: io::Error) -> CommandError {
    let (doing, program) = (doing.to_owned(), command.get_program().to_string_lossy().into_owned());
    if error.kind() == io::ErrorKind::NotFound {
        CommandError::NotInstalled { doing, program }
    } else {
        CommandError::Spawn { doing, program, error }
    }
}

/// Has the kernel kill the child when the thread that starts it ends, however
/// it ends (prctl(2), `PR_SET_PDEATHSIG`).
fn die_with_parent(command: &mut Command) {
    let parent = Pid::this();
    let hook = move || {
        set_pdeathsig(Signal::SIGKILL)?;
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
