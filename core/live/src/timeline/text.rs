//! Traces as text: `trace`, `trace_pipe`, and what other programs keep of them.

use super::render::flags_named;
use super::{Lost, TaskRef, Timeline, TimelineEvent, TimelineRecord, TracePoint};

impl Timeline {
    /// The records in a text such as tracefs's `trace` or `trace_pipe` holds: a line each,
    /// `comm-pid [cpu] flags seconds: event: fields`. Of a time the text has microseconds only, and addresses of locks
    /// are disguised in it unless the trace option `hash-ptr` is off. Other events and comments are passed over; a line of
    /// an event known here that can't be read is a problem.
    #[must_use]
    pub fn parse_text(text: &str) -> Self {
        let mut timeline = Self::default();
        for line in text.lines() {
            if let Some(lost) = lost(line) {
                timeline.lost.push(lost);
                continue;
            }
            let Some(head) = Head::parse(line) else { continue };
            let Some(point) = TracePoint::named(head.event) else { continue };
            match event(point, head.fields) {
                Some(event) => {
                    let Head { at_ns, cpu, pid, .. } = head;
                    timeline.records.push(TimelineRecord { at_ns, cpu, pid, event });
                }
                None => timeline.problems.push(format!("a line of {} can't be read: {line:?}", head.event)),
            }
        }
        timeline.sort();
        timeline
    }
}

/// `CPU:1 [LOST 123 EVENTS]`, or `[LOST EVENTS]` (`print_trace_line`, kernel/trace/trace.c).
fn lost(line: &str) -> Option<Lost> {
    let (cpu, rest) = line.trim().strip_prefix("CPU:")?.split_once(" [LOST ")?;
    let records = match rest.strip_suffix("EVENTS]")?.trim() {
        "" => None,
        number => Some(number.parse().ok()?),
    };
    let why = "they were overwritten before they were read".to_string();
    Some(Lost { cpu: cpu.trim().parse().ok()?, records, why })
}

/// What stands before an event's fields.
struct Head<'a> {
    pid: i32,
    cpu: u32,
    at_ns: u64,
    event: &'a str,
    fields: &'a str,
}

impl<'a> Head<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        // A task's name may hold anything, brackets too: the first place where all that follows fits is the CPU's.
        line.match_indices('[').find_map(|(at, _)| Self::at(&line[..at], &line[at + 1..]))
    }

    fn at(task: &str, rest: &'a str) -> Option<Self> {
        let (cpu, rest) = rest.split_once(']')?;
        let cpu = digits(cpu)?.parse().ok()?;
        // With the option `record-tgid` the process stands behind the thread, in parentheses.
        let task = task.trim_end();
        let task = match task.strip_suffix(')').and_then(|task| task.rsplit_once('(')) {
            Some((before, inside)) if digits(inside.trim()).is_some() || inside.contains("---") => {
                before.trim_end()
            }
            _ => task,
        };
        let pid = digits(task.rsplit_once('-')?.1)?.parse().ok()?;
        let mut words = rest.trim_start();
        let mut stamp = None;
        // Flags of interrupts and preemption, unless the option `irq-info` is off.
        for _ in 0..2 {
            let (word, after) = words.split_once(' ')?;
            words = after.trim_start();
            stamp = word.strip_suffix(':').and_then(time);
            if stamp.is_some() {
                break;
            }
        }
        let (event, fields) = words.split_once(':')?;
        let is_name = !event.is_empty() && event.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        is_name.then_some(Self { pid, cpu, at_ns: stamp?, event, fields: fields.trim_start() })
    }
}

/// Nothing but digits.
fn digits(text: &str) -> Option<&str> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(text)
}

/// `123.456789`, seconds, in nanoseconds.
fn time(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.')?;
    let scale = 10u64.checked_pow(9u32.checked_sub(u32::try_from(fraction.len()).ok()?)?)?;
    let whole: u64 = digits(whole)?.parse().ok()?;
    let fraction: u64 = digits(fraction)?.parse().ok()?;
    whole.checked_mul(1_000_000_000)?.checked_add(fraction * scale)
}

/// Fields are found from the end: what stands before them is a name, which may look like anything.
fn event(point: TracePoint, fields: &str) -> Option<TimelineEvent> {
    let fields = fields.trim_end();
    Some(match point {
        TracePoint::Switch => {
            let (before, next) = fields.rsplit_once(" ==> next_comm=")?;
            let (next, prio) = tail(next, " next_prio=")?;
            let (comm, pid) = tail(next, " next_pid=")?;
            let next = TaskRef { pid, comm: comm.to_string(), prio };
            let (before, state) = before.rsplit_once(" prev_state=")?;
            let (before, prio) = tail(before, " prev_prio=")?;
            let (comm, pid) = tail(before, " prev_pid=")?;
            let prev = TaskRef { pid, comm: comm.strip_prefix("prev_comm=")?.to_string(), prio };
            TimelineEvent::Switch { prev, prev_state: state.to_string(), next }
        }
        TracePoint::Migrate => {
            let (rest, to_cpu) = tail(fields, " dest_cpu=")?;
            let (rest, from_cpu) = tail(rest, " orig_cpu=")?;
            TimelineEvent::Migrate { task: task(rest, " prio=")?, from_cpu, to_cpu }
        }
        TracePoint::Wakeup | TracePoint::WakeupNew => {
            let (rest, target_cpu) = tail(fields, " target_cpu=")?;
            let new = point == TracePoint::WakeupNew;
            TimelineEvent::Wakeup { task: task(rest, " prio=")?, target_cpu, new }
        }
        TracePoint::PiBoost => {
            let (rest, new_prio) = tail(fields, " newprio=")?;
            TimelineEvent::PiBoost { task: task(rest, " oldprio=")?, new_prio }
        }
        TracePoint::LockBegin => {
            let (lock, flags) = fields.strip_suffix(')')?.split_once(" (flags=")?;
            TimelineEvent::LockBegin { lock: address(lock)?, flags: flags_named(flags)? }
        }
        TracePoint::LockEnd => {
            let (lock, result) = fields.strip_suffix(')')?.split_once(" (ret=")?;
            TimelineEvent::LockEnd { lock: address(lock)?, result: result.parse().ok()? }
        }
    })
}

/// `comm=… pid=…`, then the priority.
fn task(text: &str, prio: &str) -> Option<TaskRef> {
    let (rest, prio) = tail(text, prio)?;
    let (comm, pid) = tail(rest, " pid=")?;
    Some(TaskRef { pid, comm: comm.strip_prefix("comm=")?.to_string(), prio })
}

/// The number behind the last `name`, to the end, and what stands before it.
fn tail<'a, T: std::str::FromStr>(text: &'a str, name: &str) -> Option<(&'a str, T)> {
    let (before, number) = text.rsplit_once(name)?;
    Some((before, number.trim().parse().ok()?))
}

fn address(text: &str) -> Option<u64> {
    let text = text.trim();
    u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
}
