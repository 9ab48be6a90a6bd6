//! What libbpf says, and what is printed to test a reader's patience.

use crate::error::FixtureError;
use libbpf_rs::{PrintLevel, set_print};
use std::io::Write;
use std::sync::{Mutex, PoisonError};

/// Around the log of a load that failed, for a reader to find.
const START: &str = "===SCHED_OUTPUT_START===";
const END: &str = "===SCHED_OUTPUT_END===";

/// libbpf begins the message that carries a program's log with its name and this.
const PROGRAM_LOG: &str = "-- BEGIN PROG LOAD LOG --";

static SAID: Mutex<String> = Mutex::new(String::new());

/// Prints to standard error in one go, so that what others print stays outside. That
/// nobody listens is no reason not to schedule.
pub(crate) fn say(text: &str) {
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Takes libbpf's messages instead of letting them go to standard error.
pub(crate) struct LibbpfLog {
    all_programs: bool,
}

impl LibbpfLog {
    /// From now on. With `all_programs`, logs of accepted programs count too; libbpf
    /// has them among its debug messages.
    pub(crate) fn capture(all_programs: bool) -> Self {
        let level = if all_programs { PrintLevel::Debug } else { PrintLevel::Warn };
        set_print(Some((level, keep)));
        Self { all_programs }
    }

    /// Prints what was said, between the marks, if the load failed or it was asked for.
    pub(crate) fn print(self, failed: bool) {
        let said = std::mem::take(&mut *SAID.lock().unwrap_or_else(PoisonError::into_inner));
        if failed || self.all_programs {
            say(&format!("{START}\n{}\n{END}", said.trim_end()));
        }
    }
}

fn keep(level: PrintLevel, message: String) {
    if matches!(level, PrintLevel::Warn) || message.contains(PROGRAM_LOG) {
        SAID.lock().unwrap_or_else(PoisonError::into_inner).push_str(&message);
    }
}

/// Prints so many MiB of numbered lines to standard error; true if `stop` ended it.
pub(crate) fn spam(mib: u64, stop: impl Fn() -> bool) -> Result<bool, FixtureError> {
    const LINE: usize = 128;
    let mut out = std::io::stderr().lock();
    for number in 0..mib * (1 << 20) / LINE as u64 {
        if number % 64 == 0 && stop() {
            return Ok(true);
        }
        let line = format!("spam {number:>12} {:.<width$}\n", "", width = LINE - 19);
        out.write_all(line.as_bytes())
            .map_err(|source| FixtureError::System { doing: "printing to standard error", source })?;
    }
    Ok(false)
}
