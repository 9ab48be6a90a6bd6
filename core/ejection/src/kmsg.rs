//! What the kernel's log says when a scheduler ends: `scx_ops_disable_workfn` in
//! kernel/sched/ext.c.

use crate::TaskName;
use serde::{Deserialize, Serialize};

/// What kind of end it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitKind {
    /// The kernel or the scheduler itself found an error.
    Error,
    /// The watchdog found a task that had waited too long, or did not get to run itself.
    Stall,
    /// User space closed the link, or the process that held it ended.
    Normal,
    /// Anything else: sysrq, a hotplugged CPU, a reason that is not known here.
    Other,
}

impl ExitKind {
    /// From the words of `scx_exit_reason`.
    pub fn of_reason(reason: &str) -> Self {
        match reason {
            "runtime error" | "scx_bpf_error" => Self::Error,
            "runnable task stall" => Self::Stall,
            "unregistered from user space" => Self::Normal,
            _ => Self::Other,
        }
    }
}

/// The end of a scheduler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ejection {
    /// `ops.name`.
    pub scheduler: String,
    /// What kind of end.
    pub kind: ExitKind,
    /// The kernel's words for the kind.
    pub reason: String,
    /// What happened. The kernel prints it for errors and stalls only.
    pub message: Option<String>,
    /// The task that the message names.
    pub task: Option<TaskName>,
    /// The CPU that the message names.
    pub cpu: Option<u32>,
    /// How long the task had waited, in milliseconds.
    pub waited_ms: Option<u64>,
    /// `symbol+offset/length`, innermost first. A stall's is the watchdog's own and tells
    /// nothing of the scheduler.
    pub stack: Vec<String>,
}

impl Ejection {
    /// All ends in a kernel log, in order. Lines may have time stamps as on a console, be
    /// records of `/dev/kmsg`, or be bare.
    pub fn all(log: &str) -> Vec<Self> {
        let mut found: Vec<Self> = Vec::new();
        // Whether the next line can still belong to the last end, and how that was stamped.
        let (mut open, mut stamped) = (false, false);
        for line in log.lines() {
            let (line, has_stamp) = bare(line);
            if let Some(ejection) = disabled(line) {
                found.push(ejection);
                (open, stamped) = (true, has_stamp);
                continue;
            }
            // User space prints to the same console, but without stamps.
            let Some(last) = found.last_mut().filter(|_| open && has_stamp == stamped) else { continue };
            if let Some(message) = message_of(line, &last.scheduler)
                && last.message.is_none()
            {
                last.tell(message);
            } else if let Some(symbol) = symbol(line) {
                last.stack.push(symbol.to_string());
            } else {
                open = false;
            }
        }
        found
    }

    /// Functions of the stack without offsets, as symbols are named.
    pub fn functions(&self) -> impl Iterator<Item = &str> {
        self.stack.iter().map(|frame| frame.split('+').next().unwrap_or(frame))
    }

    fn tell(&mut self, message: &str) {
        self.message = Some(message.to_string());
        if let Some((head, wait)) = message.split_once(" failed to run for ") {
            self.task = TaskName::head(head).map(|(task, _)| task);
            self.waited_ms = milliseconds(wait);
        } else if let Some(wait) = message.strip_prefix("watchdog failed to check in for ") {
            self.waited_ms = milliseconds(wait);
        } else {
            // `… target CPU 0 not allowed for comm[7]`, `… already direct-dispatched`.
            let named = message.split_once(" for ").or_else(|| message.split_once(" disabled "));
            self.task = named.and_then(|(_, rest)| TaskName::head(rest)).map(|(task, _)| task);
        }
        self.cpu = message.match_indices("CPU ").find_map(|(at, word)| {
            let digits: String =
                message[at + word.len()..].chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        });
    }
}

/// `sched_ext: BPF scheduler "NAME" disabled (REASON)`.
fn disabled(line: &str) -> Option<Ejection> {
    let rest = line.strip_prefix("sched_ext: BPF scheduler \"")?;
    let (scheduler, rest) = rest.split_once("\" disabled (")?;
    let reason = rest.trim_end().strip_suffix(')')?;
    Some(Ejection {
        scheduler: scheduler.to_string(),
        kind: ExitKind::of_reason(reason),
        reason: reason.to_string(),
        message: None,
        task: None,
        cpu: None,
        waited_ms: None,
        stack: vec![],
    })
}

/// `sched_ext: NAME: MESSAGE`.
fn message_of<'a>(line: &'a str, scheduler: &str) -> Option<&'a str> {
    let rest = line.strip_prefix("sched_ext: ")?.strip_prefix(scheduler)?;
    rest.strip_prefix(": ").map(str::trim_end)
}

/// A frame of a stack: blanks, then `symbol+0x12/0x34` and maybe a module.
pub(crate) fn symbol(line: &str) -> Option<&str> {
    let frame = line.strip_prefix("  ")?.trim();
    let place = frame.split(' ').next()?;
    let (name, offsets) = place.split_once('+')?;
    let (offset, length) = offsets.split_once('/')?;
    let fits = !name.is_empty() && offset.starts_with("0x") && length.starts_with("0x");
    fits.then_some(frame)
}

/// `2.496s` in milliseconds: the kernel prints three digits.
fn milliseconds(text: &str) -> Option<u64> {
    let (seconds, rest) = text.split_once('.')?;
    let fraction = rest.split('s').next().filter(|digits| digits.len() == 3)?;
    seconds.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(fraction.parse().ok()?)
}

/// The line less what the console (`[    5.3] `, `<6>[    5.3] `) or `/dev/kmsg`
/// (`6,123,456,-;`) puts before it, and whether it had that.
fn bare(line: &str) -> (&str, bool) {
    let line = line.trim_end_matches('\r');
    if let Some((head, rest)) = line.split_once(';')
        && head.split(',').count() >= 3
        && head.split(',').take(3).all(is_number)
    {
        return (rest, true);
    }
    let after_level = match line.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
        Some((level, rest)) if is_number(level) => rest,
        _ => line,
    };
    match after_level.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((stamp, rest)) if stamp.trim().split('.').all(is_number) => (rest, true),
        _ => (after_level, false),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests;
