//! Lines of a trace, and which of them are about the task that triggered the end.

use super::functions::is_end;
use super::probe::{Part, Probe};
use crate::{ScxDump, ScxExit};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Events that are kept: the last ones.
const KEEP_EVENTS: usize = 400;
/// Bytes of them.
const KEEP_BYTES: usize = 256 << 10;
/// Calls without an exit so far; functions that never return must not fill the memory.
const OPEN: usize = 1024;

/// A task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its name.
    pub comm: String,
    /// Its pid.
    pub pid: u32,
}

impl Task {
    /// The task that the kernel's words are about: the one that starved, or the one that they end with (`… not
    /// allowed for w[53]`).
    pub fn named(exit: &ScxExit) -> Option<Self> {
        let stuck = exit.stuck.as_ref().map(|stuck| Self { comm: stuck.comm.clone(), pid: stuck.pid });
        stuck.or_else(|| Self::at_end_of(&exit.message))
    }

    /// The one that ran when the kernel wrote its dump: the one at fault or, as interrupts come late, the next.
    pub fn of_dump(dump: &ScxDump) -> Option<Self> {
        Self::in_brackets(dump.trigger.split_once(" triggered exit kind ")?.0)
    }

    /// `… for comm[pid]`.
    fn at_end_of(message: &str) -> Option<Self> {
        let (_, task) = message.rsplit_once(" for ")?;
        Self::in_brackets(task)
    }

    /// `comm[pid]`.
    fn in_brackets(text: &str) -> Option<Self> {
        let (comm, pid) = text.strip_suffix(']')?.rsplit_once('[')?;
        Some(Self { comm: comm.to_string(), pid: pid.parse().ok().filter(|pid| *pid > 0)? })
    }
}

/// How often a probe fired.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeHits {
    /// Entries of its function.
    pub entries: u64,
    /// Returns of it.
    pub exits: u64,
    /// How many of both the kernel had to let pass; `None` where it doesn't count that.
    pub missed: Option<u64>,
    /// Whether this is the kernel's own count since the probe was set; else the events that the trace still held.
    pub exact: bool,
}

/// The lines of `kprobe_profile` (`probes_profile_seq_show`, kernel/trace/trace_kprobe.c): events with how often each fired
/// and was missed. Its names are those of [`Probe::at_entry`] and [`Probe::at_exit`].
pub struct ProbeProfile<'a>(&'a str);

impl<'a> ProbeProfile<'a> {
    /// Of the file's text.
    pub const fn of(text: &'a str) -> Self {
        Self(text)
    }

    /// Of the probe of that number; `None` where it isn't listed.
    pub fn hits(&self, probe: usize) -> Option<ProbeHits> {
        let (entry, exit) = (format!("e{probe}"), format!("x{probe}"));
        let mut found: Option<ProbeHits> = None;
        for line in self.0.lines() {
            let mut words = line.split_whitespace();
            let (Some(name), Some(hits), Some(missed)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let (Ok(hits), Ok(missed)) = (hits.parse::<u64>(), missed.parse::<u64>()) else { continue };
            if name == entry || name == exit {
                let so_far =
                    found.get_or_insert(ProbeHits { exact: true, missed: Some(0), ..ProbeHits::default() });
                *(if name == entry { &mut so_far.entries } else { &mut so_far.exits }) += hits;
                so_far.missed = so_far.missed.map(|sum| sum.saturating_add(missed));
            }
        }
        found
    }
}

/// What the probes of a run saw of one task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeTrace {
    /// The probes, in the order of their numbers.
    pub probes: Vec<Probe>,
    /// How often each of them fired; none where the trace was not read.
    #[serde(default)]
    pub counts: Vec<ProbeHits>,
    /// Functions that the kernel would not have probed, with its reason.
    pub refused: Vec<(String, String)>,
    /// Why there is no trace, or not all of it.
    pub problems: Vec<String>,
    /// The task that it is about.
    pub task: Option<Task>,
    /// The task's last events, in time order, as the kernel printed them.
    pub lines: Vec<String>,
    /// Events of all tasks.
    pub seen: u64,
    /// Events of the task.
    pub of_task: u64,
    /// Older events that were overwritten.
    pub overwritten: u64,
}

/// An event of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) cpu: u32,
    /// Who ran.
    pub(super) pid: u32,
    /// Since the clock's start.
    pub(super) at_us: u64,
    /// The probe's number.
    pub(super) probe: usize,
    pub(super) exit: bool,
    /// What it fetched, by field number.
    pub(super) values: Vec<Option<String>>,
    pub(super) returned: Option<String>,
}

/// The first part of an event, which is cheap to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head<'a> {
    comm: &'a str,
    cpu: u32,
    pid: u32,
    time: &'a str,
    probe: usize,
    exit: bool,
    rest: &'a str,
}

impl<'a> Head<'a> {
    /// Reads `comm-pid [cpu] flags seconds.micros: e3: (…) a0=… a1=…`, where the name may hold anything; `None` for
    /// lines of another kind.
    fn parse(line: &'a str) -> Option<Self> {
        let (comm, pid, cpu, rest) = header(line)?;
        let (_flags, rest) = rest.trim_start().split_once(' ')?;
        let (time, rest) = rest.split_once(": ")?;
        let (name, rest) = rest.split_once(": ")?;
        // What a BPF program prints is an event's text of its own.
        let (name, rest) = if name == "bpf_trace_printk" { rest.split_once(": ")? } else { (name, rest) };
        let (kind, number) = name.split_at_checked(1)?;
        let exit = match kind {
            "e" => false,
            "x" => true,
            _ => return None,
        };
        Some(Self { comm, cpu, pid, time: time.trim(), probe: number.parse().ok()?, exit, rest })
    }
}

impl Event {
    /// Reads a line of a trace; `None` if it is of no probe.
    pub(super) fn parse(line: &str, probes: &[Probe]) -> Option<Self> {
        Self::of(&Head::parse(line)?, probes)
    }

    fn of(head: &Head<'_>, probes: &[Probe]) -> Option<Self> {
        let Head { cpu, pid, time, probe, exit, rest, .. } = *head;
        let (returned, values) = values(rest, probes.get(probe)?.fields.len(), exit);
        Some(Self { cpu, pid, at_us: micros(time)?, probe, exit, values, returned })
    }
}

/// Who ran, by name and pid, the CPU and what follows it.
fn header(line: &str) -> Option<(&str, u32, u32, &str)> {
    line.match_indices('[').find_map(|(at, _)| {
        let (cpu, rest) = line[at + 1..].split_once("] ")?;
        let cpu = cpu.parse().ok()?;
        let (comm, pid) = line[..at].trim_end().rsplit_once('-')?;
        Some((comm.trim_start(), pid.parse().ok()?, cpu, rest))
    })
}

fn micros(time: &str) -> Option<u64> {
    let (seconds, micros) = time.split_once('.')?;
    let micros = if micros.len() == 6 { micros.parse::<u64>().ok()? } else { return None };
    seconds.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(micros)
}

/// ` ret=… a0=… a2=…`: the names come in order, so that a text which looks like one of them misleads at most about
/// itself and what follows.
fn values(mut rest: &str, fields: usize, exit: bool) -> (Option<String>, Vec<Option<String>>) {
    let mut found: Vec<(usize, &str)> = Vec::new();
    let mut returned = None;
    if exit && let Some((_, after)) = rest.split_once(" ret=") {
        let end = after.find(' ').unwrap_or(after.len());
        returned = Some(after[..end].to_string());
        rest = &after[end..];
    }
    for number in 0..fields {
        if let Some((before, after)) = rest.split_once(&format!(" a{number}=")) {
            if let Some((_, text)) = found.last_mut() {
                *text = before;
            }
            found.push((number, after));
            rest = after;
        }
    }
    let mut values = vec![None; fields];
    for (number, text) in found {
        if let Some(value) = values.get_mut(number) {
            *value = Some(text.trim_end().to_string());
        }
    }
    (returned, values)
}

/// Finds the task that ran when the scheduler was ended, in a trace that is read line by line.
pub struct AtTheEnd<'a> {
    probes: &'a [Probe],
    last: Option<Task>,
}

impl<'a> AtTheEnd<'a> {
    /// In a trace of those probes.
    pub fn new(probes: &'a [Probe]) -> Self {
        Self { probes, last: None }
    }

    /// Takes the next line of the trace.
    pub fn push(&mut self, line: &str) {
        let Some(head) = Head::parse(line).filter(|head| !head.exit) else { return };
        if self.probes.get(head.probe).is_some_and(|probe| is_end(&probe.function)) {
            self.last = Some(Task { comm: head.comm.to_string(), pid: head.pid });
        }
    }

    /// The task; `None` if no probe saw the end.
    pub fn finish(self) -> Option<Task> {
        self.last
    }
}

/// Keeps the last events of one task out of a trace that is read line by line: calls that are given it, calls that it
/// makes of functions that are given no task, and the calls around the one by which it ends the scheduler.
pub struct Selection<'a> {
    probes: &'a [Probe],
    pid: u32,
    /// What a line holds that has its pid for a value.
    mark: String,
    /// Calls that wait for their exit.
    open: VecDeque<Open>,
    /// With their numbers, by which they are in order in the end.
    kept: VecDeque<(u64, String)>,
    bytes: usize,
    seen: u64,
    of_task: u64,
    counts: Vec<ProbeHits>,
}

/// A call that waits for its exit.
struct Open {
    probe: usize,
    cpu: u32,
    pid: u32,
    /// The entry's number and line, unless it was kept.
    entry: Option<(u64, String)>,
}

impl<'a> Selection<'a> {
    /// Of the task with that pid.
    pub fn new(probes: &'a [Probe], pid: u32) -> Self {
        let (open, kept) = (VecDeque::new(), VecDeque::new());
        let counts = vec![ProbeHits::default(); probes.len()];
        Self { probes, pid, mark: format!("={pid}"), open, kept, bytes: 0, seen: 0, of_task: 0, counts }
    }

    /// Takes the next line of the trace.
    pub fn push(&mut self, line: &str) {
        let Some(head) = Head::parse(line).filter(|head| head.probe < self.probes.len()) else { return };
        self.seen += 1;
        if let Some(count) = self.counts.get_mut(head.probe) {
            *(if head.exit { &mut count.exits } else { &mut count.entries }) += 1;
        }
        let line = (self.seen, line.trim().to_string());
        if head.exit {
            let same = |open: &Open| (open.probe, open.cpu, open.pid) == (head.probe, head.cpu, head.pid);
            let entry = self.open.iter().rposition(same).and_then(|at| self.open.remove(at));
            if entry.is_some_and(|open| open.entry.is_none()) {
                self.keep(line);
            }
            return;
        }
        if head.pid == self.pid && self.probes.get(head.probe).is_some_and(|probe| is_end(&probe.function)) {
            self.keep_around(&head);
        }
        let is_its = self.is_of_task(&head);
        let Head { probe, cpu, pid, .. } = head;
        let entry = if is_its {
            self.keep(line);
            None
        } else {
            Some(line)
        };
        self.open.push_back(Open { probe, cpu, pid, entry });
        if self.open.len() > OPEN {
            self.open.pop_front();
        }
    }

    /// Keeps the calls that this one is in.
    fn keep_around(&mut self, head: &Head<'_>) {
        let around = self.open.iter_mut().filter(|open| (open.cpu, open.pid) == (head.cpu, head.pid));
        let entries: Vec<_> = around.filter_map(|open| open.entry.take()).collect();
        for entry in entries {
            self.keep(entry);
        }
    }

    fn keep(&mut self, line: (u64, String)) {
        self.of_task += 1;
        self.bytes += line.1.len();
        self.kept.push_back(line);
        while self.kept.len() > KEEP_EVENTS || self.bytes > KEEP_BYTES {
            let Some((_, oldest)) = self.kept.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(oldest.len());
        }
    }

    fn is_of_task(&self, head: &Head<'_>) -> bool {
        let Some(probe) = self.probes.get(head.probe) else { return false };
        let is_pid = |number: usize| probe.fields.get(number).is_some_and(|field| field.part == Part::Pid);
        if !(0..probe.fields.len()).any(is_pid) {
            return head.pid == self.pid;
        }
        // Most lines are none of the task's: reading all their values would cost more than all else here.
        if !head.rest.contains(&self.mark) {
            return false;
        }
        let Some(event) = Event::of(head, self.probes) else { return false };
        let its = |value: &Option<String>| value.as_deref().and_then(|v| v.parse().ok()) == Some(self.pid);
        event.values.iter().enumerate().any(|(n, value)| is_pid(n) && its(value))
    }

    /// Puts what was kept into `trace`.
    pub fn finish(self, trace: &mut ProbeTrace) {
        let mut kept = Vec::from(self.kept);
        kept.sort_unstable_by_key(|(number, _)| *number);
        trace.lines = kept.into_iter().map(|(_, line)| line).collect();
        trace.seen = self.seen;
        trace.of_task = self.of_task;
        trace.counts = self.counts;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_task_of_an_end_is_found() {
        let named = |log: &str| {
            let task = Task::named(&ScxExit::last_in(log).unwrap())?;
            Some(format!("{}[{}]", task.comm, task.pid))
        };
        assert_eq!(named(include_str!("../../tests/logs/stall-cpu.log")).unwrap(), "w_cg_0_2[56]");
        assert_eq!(named(include_str!("../../tests/logs/ignore-affinity.log")).unwrap(), "w_cg_0_0[53]");
        let error = include_str!("../../tests/logs/scx-error.log");
        assert_eq!(named(error), None);
        let of_dump = Task::of_dump(&ScxDump::parse(error).unwrap()).unwrap();
        assert_eq!((of_dump.comm.as_str(), of_dump.pid), ("w_cg_0_0", 54));
    }

    #[test]
    fn a_profile_is_read_by_the_probes_numbers() {
        let text = "  e0                                                        12               1\n  \
                    x0                                                        11               2\n  \
                    e10                                                        7               0\n  e1 none 0\n";
        let profile = ProbeProfile::of(text);
        let hits = |entries, exits, missed| ProbeHits { entries, exits, missed: Some(missed), exact: true };
        assert_eq!(profile.hits(0), Some(hits(12, 11, 3)));
        assert_eq!(profile.hits(10), Some(hits(7, 0, 0)));
        assert_eq!(profile.hits(1), None);
    }

    #[test]
    fn who_ran_at_the_end_is_found() {
        let probe = |function: &str| Probe { function: function.to_string(), ..Probe::default() };
        let probes = [probe("balance_one"), probe("scx_ops_exit_kind")];
        let mut at_the_end = AtTheEnd::new(&probes);
        for line in [
            "  a b-7 [000] d..2. 1.000001: e0: (balance_one+0x0/0x1)",
            "  a b-7 [000] d..2. 1.000001: bpf_trace_printk: e0: (demo_dispatch) a0=1",
            "  a b-7 [000] d..2. 1.000001: bpf_trace_printk: e1",
            "  a b-7 [000] d..2. 1.000002: e1: (scx_ops_exit_kind+0x0/0x1)",
            "  c-8 [001] d..2. 1.000003: e0: (balance_one+0x0/0x1)",
        ] {
            at_the_end.push(line);
        }
        assert_eq!(at_the_end.finish(), Some(Task { comm: "a b".to_string(), pid: 7 }));
    }

    #[test]
    fn a_name_may_hold_anything() {
        let (comm, pid, cpu, rest) =
            header("  a [x] b-1-77   [003] d..2. 1.000001: e0: (f+0x0/0x1)").unwrap();
        assert_eq!((comm, pid, cpu), ("a [x] b-1", 77, 3));
        assert!(rest.starts_with("d..2."));
        assert_eq!(micros("12.000034"), Some(12_000_034));
        let (ret, found) = values("(f <- g) ret=-1 a0=0x1 a2=\"x y\" a3=4", 4, true);
        assert_eq!(ret.as_deref(), Some("-1"));
        let of = |text: &str| Some(text.to_string());
        assert_eq!(found, [of("0x1"), None, of("\"x y\""), of("4")]);
    }
}
