//! A timeline as people read it.

use super::{Timeline, TimelineEvent, TimelineRecord};
use std::fmt;

/// `LCB_F_*` of include/trace/events/lock.h.
const LOCK_FLAGS: [(u32, &str); 6] =
    [(1, "spin"), (2, "read"), (4, "write"), (8, "rt"), (16, "percpu"), (32, "mutex")];

impl fmt::Display for Timeline {
    /// A line a record, with milliseconds since the first; before them what is missing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |ns: u64| format!("{}.{:06}", ns / 1_000_000, ns % 1_000_000);
        writeln!(f, "{} records in {} ms", self.records.len(), ms(self.span_ns()))?;
        for lost in &self.lost {
            let many = lost.records.map_or_else(|| "some".to_string(), |n| n.to_string());
            writeln!(f, "lost on cpu{}: {many} records ({})", lost.cpu, lost.why)?;
        }
        if self.left_out > 0 {
            writeln!(f, "left out: the {} oldest records", self.left_out)?;
        }
        self.problems.iter().try_for_each(|problem| writeln!(f, "{problem}"))?;
        let begin = self.records.first().map_or(0, |first| first.at_ns);
        for record in &self.records {
            writeln!(f, "{:>14} cpu{:<3} {record}", ms(record.at_ns - begin), record.cpu)?;
        }
        Ok(())
    }
}

impl fmt::Display for TimelineRecord {
    /// What happened, without when and where.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.event {
            TimelineEvent::Switch { prev, prev_state, next } => write!(
                f,
                "switch  {}[{}] prio {} {prev_state} -> {}[{}] prio {}",
                prev.comm, prev.pid, prev.prio, next.comm, next.pid, next.prio
            ),
            TimelineEvent::Migrate { task, from_cpu, to_cpu } => {
                write!(f, "migrate {}[{}] cpu{from_cpu} -> cpu{to_cpu}", task.comm, task.pid)
            }
            TimelineEvent::Wakeup { task, target_cpu, new } => {
                let first = if *new { " for the first time" } else { "" };
                write!(f, "wakeup  {}[{}] on cpu{target_cpu}{first}, by [{}]", task.comm, task.pid, self.pid)
            }
            TimelineEvent::PiBoost { task, new_prio } => {
                write!(f, "boost   {}[{}] prio {} -> {new_prio}", task.comm, task.pid, task.prio)
            }
            TimelineEvent::LockBegin { lock, flags } => {
                write!(f, "waits   [{}] for lock {lock:#x}{}", self.pid, lock_flags(*flags))
            }
            TimelineEvent::LockEnd { lock, result: 0 } => write!(f, "has     [{}] lock {lock:#x}", self.pid),
            TimelineEvent::LockEnd { lock, result } => {
                write!(f, "gave up [{}] lock {lock:#x}: error {result}", self.pid)
            }
        }
    }
}

fn lock_flags(flags: u32) -> String {
    let names: Vec<&str> =
        LOCK_FLAGS.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name).collect();
    if names.is_empty() { String::new() } else { format!(" ({})", names.join(" ")) }
}

/// The flags whose names these are, with `|` between them as the kernel writes them: `SPIN|READ`.
pub(super) fn flags_named(text: &str) -> Option<u32> {
    let one = |name: &str| {
        let found = LOCK_FLAGS.iter().find(|(_, known)| known.eq_ignore_ascii_case(name));
        found.map(|(bit, _)| *bit).or_else(|| u32::from_str_radix(name.strip_prefix("0x")?, 16).ok())
    };
    text.split('|').filter(|name| !name.is_empty()).try_fold(0, |flags, name| Some(flags | one(name)?))
}
