//! The kernel's debug dump of a scheduler that failed: `scx_dump_state` in
//! kernel/sched/ext.c.

use crate::TaskName;
use crate::kmsg::symbol;
use serde::{Deserialize, Serialize};

/// Before each line of the dump in a trace.
const EVENT: &str = "sched_ext_dump: ";
/// The kernel's mark for a dump that was longer than its buffer.
const CUT: &str = "~~~~ TRUNCATED ~~~~";

/// All CPUs that were not idle, and the tasks that wanted to run there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dump {
    /// Who found the error: the task that ran at that moment.
    pub found_by: Option<TaskName>,
    /// `enum scx_exit_kind`.
    pub kind: Option<u32>,
    /// Reason and message, `runnable task stall (…)`.
    pub cause: Option<String>,
    /// Where it was found, innermost first.
    pub stack: Vec<String>,
    /// In the order of their numbers.
    pub cpus: Vec<DumpCpu>,
    /// The kernel's buffer was too small for all of it.
    pub cut: bool,
}

/// A CPU in the dump.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpCpu {
    /// Its number.
    pub cpu: u32,
    /// Runnable tasks of the scheduler's, `rq->scx.nr_running`.
    pub nr_running: u32,
    /// The task that it runs.
    pub current: Option<TaskName>,
    /// That task's class, `ext_sched_class` for instance.
    pub class: String,
    /// The current task if it is the scheduler's, then those that wait.
    pub tasks: Vec<DumpTask>,
}

/// A runnable task in the dump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpTask {
    /// Which.
    pub name: TaskName,
    /// It has the CPU.
    pub running: bool,
    /// Since when it wants to run, in milliseconds before the dump.
    pub waited_ms: i64,
    /// The dispatch queue that it is in; `None` if it is in none.
    pub dsq: Option<u64>,
    /// `p->scx.dsq_vtime`.
    pub vtime: Option<u64>,
    /// CPUs that it may use, as the kernel prints a mask: hexadecimal, in groups.
    pub cpus: String,
    /// Where it is in the kernel, innermost first.
    pub stack: Vec<String>,
}

impl Dump {
    /// Reads a dump out of a text: the dump itself, a trace that has it in events, or
    /// whatever has it somewhere. `None` if there is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut dump = None;
        for line in text.lines().map(of_event) {
            if let Some(head) = Self::head(line) {
                // A second one replaces the first: it is the later one.
                dump = Some(head);
            } else if let Some(dump) = &mut dump {
                dump.line(line);
            }
        }
        dump
    }

    /// Tasks that want to run and don't, the longest wait first, with the CPU whose
    /// queue they count in.
    pub fn waiting(&self) -> Vec<(u32, &DumpTask)> {
        let all = self.cpus.iter().flat_map(|cpu| cpu.tasks.iter().map(|task| (cpu.cpu, task)));
        let mut waiting: Vec<_> = all.filter(|(_, task)| !task.running).collect();
        waiting.sort_by_key(|(_, task)| std::cmp::Reverse(task.waited_ms));
        waiting
    }

    /// `comm[pid] triggered exit kind 1026:`
    fn head(line: &str) -> Option<Self> {
        let (task, rest) = TaskName::head(line.trim_start())?;
        let kind = rest.strip_prefix(" triggered exit kind ")?.trim_end().strip_suffix(':')?;
        Some(Self { found_by: Some(task), kind: kind.parse().ok(), ..Self::default() })
    }

    fn line(&mut self, line: &str) {
        if let Some(frame) = symbol(line) {
            self.frame(frame);
        } else if let Some(cpu) = cpu(line) {
            self.cpus.push(cpu);
        } else if line.trim() == CUT {
            self.cut = true;
        } else if let Some(cpu) = self.cpus.last_mut() {
            cpu.line(line);
        } else if self.cause.is_none() && line.starts_with("  ") {
            self.cause = Some(line.trim().to_string());
        }
    }

    fn frame(&mut self, frame: &str) {
        let stack = match self.cpus.last_mut() {
            None => &mut self.stack,
            Some(cpu) => match cpu.tasks.last_mut() {
                Some(task) => &mut task.stack,
                None => return,
            },
        };
        stack.push(frame.to_string());
    }
}

impl DumpCpu {
    fn line(&mut self, line: &str) {
        if let Some(rest) = line.trim_start().strip_prefix("curr=")
            && let Some((task, rest)) = TaskName::head(rest)
        {
            self.current = Some(task);
            self.class = value(rest, "class=").unwrap_or_default().to_string();
        } else if let Some(task) = task(line) {
            self.tasks.push(task);
        } else if let Some(task) = self.tasks.last_mut() {
            if let Some(dsq) = value(line, "dsq_id=0x") {
                task.dsq = u64::from_str_radix(dsq, 16).ok();
            }
            if let Some(vtime) = value(line, "dsq_vtime=") {
                task.vtime = vtime.parse().ok();
            }
            if let Some(cpus) = line.strip_prefix("      cpus=") {
                task.cpus = cpus.trim_end().to_string();
            }
        }
    }
}

/// `CPU 1   : nr_run=6 flags=0x1 cpu_rel=0 pnt_seq=79`
fn cpu(line: &str) -> Option<DumpCpu> {
    let (number, rest) = line.strip_prefix("CPU ")?.split_once(':')?;
    let nr_running = value(rest, "nr_run=")?.parse().ok()?;
    Some(DumpCpu { cpu: number.trim_end().parse().ok()?, nr_running, ..DumpCpu::default() })
}

/// ` *R comm[7] -2496ms`: a star if it runs, its state, its wait as a negative number.
fn task(line: &str) -> Option<DumpTask> {
    let mut rest = line.strip_prefix(' ')?.chars();
    let running = match rest.next()? {
        '*' => true,
        ' ' => false,
        _ => return None,
    };
    let _state = rest.next().filter(char::is_ascii_alphabetic)?;
    let (name, rest) = TaskName::head(rest.as_str().strip_prefix(' ')?)?;
    let since: i64 = rest.trim().strip_suffix("ms")?.parse().ok()?;
    Some(DumpTask {
        name,
        running,
        waited_ms: since.checked_neg()?,
        dsq: None,
        vtime: None,
        cpus: String::new(),
        stack: vec![],
    })
}

/// What follows `key`, up to a blank.
fn value<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(key)?;
    rest.split_whitespace().next()
}

/// The line less what a trace puts before it.
fn of_event(line: &str) -> &str {
    line.split_once(EVENT).map_or(line, |(_, rest)| rest).trim_end_matches('\r')
}

#[cfg(test)]
mod tests;
