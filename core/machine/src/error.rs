//! What can go wrong with a machine.

use crate::{Accel, ConsoleTail, VmExit};
use std::path::PathBuf;
use std::time::Duration;

/// Lines of the console in an error.
const SHOWN_LINES: usize = 12;

/// A machine that could not be started, asked or stopped.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The hypervisor program is not installed.
    #[error("looking for {program}: not found{searched}; install it: {remedy}")]
    Missing {
        /// Such as `qemu-system-x86_64`.
        program: String,
        /// Empty, or ` in …`.
        searched: String,
        /// The one command that installs it.
        remedy: String,
    },
    /// The kernel image can't be read or is none.
    #[error("opening kernel image {path}: {why}; {remedy}")]
    Kernel {
        /// The image.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// What to do.
        remedy: String,
    },
    /// A machine that this hypervisor can't make.
    #[error("making a machine under {accel}: {what}")]
    Unsupported {
        /// The mode.
        accel: Accel,
        /// What it can't do and what to do instead.
        what: String,
    },
    /// The topology makes no sense.
    #[error(transparent)]
    Topology(#[from] ktstr_topology::TopologyError),
    /// The kernel command line makes no sense.
    #[error(transparent)]
    CommandLine(#[from] crate::CommandLineError),
    /// An operating system call failed.
    #[error("{doing}: {source}")]
    Os {
        /// What was being done, with what.
        doing: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The hypervisor gave an answer that makes no sense, or refused.
    #[error("{doing}: the hypervisor answered {answer}")]
    Refused {
        /// What was being done.
        doing: String,
        /// Its answer.
        answer: String,
    },
    /// The hypervisor did not answer in time.
    #[error("{doing}: no answer from the hypervisor within {after:?}")]
    NoAnswer {
        /// What was being done.
        doing: String,
        /// How long we waited.
        after: Duration,
    },
    /// A machine that was booted to be saved and did not get there.
    #[error(
        "saving a booted machine: {why}; its console ended with {console:?}; tests boot afresh \
         until that is mended, KTSTR_NO_TEMPLATE=1 has them do so without trying"
    )]
    NotReady {
        /// What happened instead.
        why: String,
        /// The last lines of its console.
        console: String,
        /// Its emulator broke it: [`ConsoleTail::shows_lost_code_patch`].
        lost_code_patch: bool,
    },
    /// Somebody else ended the hypervisor.
    #[error(
        "{doing}: the hypervisor was killed by signal {signal}; it was not ktstr: look for the OOM killer \
         (`dmesg`) or another process"
    )]
    Killed {
        /// What was being done.
        doing: String,
        /// Signal number.
        signal: i32,
    },
    /// A saved machine that is not as it should be.
    #[error("reading the saved machine in {dir}: {why}")]
    Template {
        /// Where it is kept.
        dir: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The machine is gone already.
    #[error("{doing}: the machine has ended already")]
    Gone {
        /// What was being done.
        doing: String,
    },
}

impl MachineError {
    /// An [`Os`](Self::Os) error, for `map_err`.
    pub fn os(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Os { doing, source }
    }

    /// A [`NotReady`](Self::NotReady) of a machine that printed this.
    pub fn not_ready(why: impl Into<String>, console: &ConsoleTail) -> Self {
        Self::NotReady {
            why: why.into(),
            console: console.last(SHOWN_LINES).join(" | "),
            lost_code_patch: console.shows_lost_code_patch(),
        }
    }

    /// The same of a machine that ended.
    pub fn ended_before_ready(exit: &VmExit, console: &ConsoleTail) -> Self {
        let why = match exit {
            VmExit::PowerOff => "it powered off before it was ready".to_string(),
            VmExit::Reset => "it panicked or reset itself before it was ready".to_string(),
            other => format!("its hypervisor ended before it was ready: {other:?}"),
        };
        Self::not_ready(why, console)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_its_emulator_broke_is_told_from_one_that_panicked() {
        let lost = |line: &str| {
            let mut console = ConsoleTail::new(400);
            console.push(format!("{line}\n").as_bytes());
            (0..60).for_each(|n| console.push(format!("[    1.9] register {n}\n").as_bytes()));
            match MachineError::ended_before_ready(&VmExit::Reset, &console) {
                MachineError::NotReady { lost_code_patch, console, .. } => {
                    assert!(console.ends_with("register 59") && !console.contains(line), "{console}");
                    lost_code_patch
                }
                other => panic!("{other:?}"),
            }
        };
        assert!(lost("[    1.9] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI"));
        assert!(!lost("[    1.9] Oops: general protection fault: 0000 [#1] SMP"));
    }
}
