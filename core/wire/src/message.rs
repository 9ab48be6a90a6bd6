//! What a guest tells its host.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Kind, PROTOCOL_VERSION, Request};

/// One message. The variants' numbers on the wire are in [`Kind`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The first message of a stream, and only that.
    Hello {
        /// The sender's [`PROTOCOL_VERSION`].
        version: u16,
        /// The build-id (`NT_GNU_BUILD_ID`) or another name of the sender's binary.
        build_id: String,
    },
    /// The guest reached a stage of its life.
    Stage(Stage),
    /// The scenario did something to the workload.
    Stimulus(Stimulus),
    /// The test's result, opaque here.
    Result(Vec<u8>),
    /// The exit code that the test binary would have on the host.
    ExitCode(i32),
    /// The test function panicked.
    Panic {
        /// The panic message.
        message: String,
        /// `file:line:column`, where known.
        location: Option<String>,
        /// The backtrace as text; empty when there is none.
        backtrace: String,
    },
    /// A thread of the test binary got a deadly signal, `SIGSEGV` for instance.
    FatalSignal {
        /// The signal's number (`si_signo`).
        signo: i32,
        /// The address that faulted (`si_addr`); 0 when the signal has none.
        address: u64,
        /// The instruction pointer at that moment.
        ip: u64,
        /// Name of the thread.
        thread: String,
    },
    /// Kernel log, raw bytes of `/dev/kmsg` or of the console.
    Kmsg(Vec<u8>),
    /// What the test wrote to standard output.
    Stdout(Vec<u8>),
    /// What the test wrote to standard error.
    Stderr(Vec<u8>),
    /// A line of the guest side's own log.
    Log {
        /// How serious it is.
        level: LogLevel,
        /// The line, without a newline.
        text: String,
    },
    /// The test function did not return in time; the guest's own watchdog speaks.
    TimedOut {
        /// How long it was given, in ms of guest time.
        after_ms: u64,
        /// Where the test function's thread was, as far as the kernel says.
        detail: String,
    },
    /// The guest asks for something and waits for the answer.
    Request(Request),
    /// What a scheduler under test wrote, as it wrote it.
    SchedulerLog(Vec<u8>),
    /// What became of the schedulers under test, opaque here.
    SchedulerReports(Vec<u8>),
    /// The guest has said everything and is about to power off.
    Goodbye,
}

impl Message {
    /// The greeting of this version.
    #[must_use]
    pub fn hello(build_id: impl Into<String>) -> Self {
        Self::Hello { version: PROTOCOL_VERSION, build_id: build_id.into() }
    }

    /// Which kind of message this is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Hello { .. } => Kind::Hello,
            Self::Stage(_) => Kind::Stage,
            Self::Stimulus(_) => Kind::Stimulus,
            Self::Result(_) => Kind::Result,
            Self::ExitCode(_) => Kind::ExitCode,
            Self::Panic { .. } => Kind::Panic,
            Self::FatalSignal { .. } => Kind::FatalSignal,
            Self::Kmsg(_) => Kind::Kmsg,
            Self::Stdout(_) => Kind::Stdout,
            Self::Stderr(_) => Kind::Stderr,
            Self::Log { .. } => Kind::Log,
            Self::TimedOut { .. } => Kind::TimedOut,
            Self::Request(_) => Kind::Request,
            Self::SchedulerLog(_) => Kind::SchedulerLog,
            Self::SchedulerReports(_) => Kind::SchedulerReports,
            Self::Goodbye => Kind::Goodbye,
        }
    }
}

/// The stages of a guest's life, in order. Its text says what the guest is at:
/// "the guest died while " + stage. Variants are numbered by position on the wire: add at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Stage {
    /// PID 1 runs.
    Init,
    /// File systems are being mounted.
    Mounts,
    /// The channel to the host is being opened.
    Transport,
    /// The machine is being looked at.
    Topology,
    /// The scheduler is being started.
    Scheduler,
    /// The test function is being called.
    TestStart,
    /// The test function has returned.
    TestEnd,
    /// The machine is being powered off.
    PowerOff,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Init => "starting as PID 1",
            Self::Mounts => "mounting file systems",
            Self::Transport => "opening the channel to the host",
            Self::Topology => "reading the CPU topology",
            Self::Scheduler => "starting the scheduler",
            Self::TestStart => "running the test",
            Self::TestEnd => "reporting the test's result",
            Self::PowerOff => "powering off",
        })
    }
}

/// Something that the scenario did to the workload, or the end of a step.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stimulus {
    /// Milliseconds since the scenario began.
    pub elapsed_ms: u64,
    /// Which step, from 0.
    pub step: u16,
    /// What was done, `SetCpuset` for instance.
    pub kind: String,
    /// What it was done to, a cgroup for instance.
    pub label: String,
    /// Its arguments, for people.
    pub detail: String,
    /// Iterations of all workers so far, where known.
    pub iterations: Option<u64>,
    /// Whether this is the end of its step.
    pub is_step_end: bool,
    /// Whether this is the last one.
    pub is_terminal: bool,
    /// Milliseconds since the test began, which is before the scenario does.
    pub since_test_ms: u64,
}

/// How serious a [`Message::Log`] is. Numbered by position on the wire: add at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// Something is odd.
    Warn,
    /// Something happened.
    Info,
    /// Something that only helps to find a bug.
    Debug,
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Error => "error",
            Self::Warn => "warning",
            Self::Info => "info",
            Self::Debug => "debug",
        })
    }
}
