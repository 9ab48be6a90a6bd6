//! Events as records.

use super::format::{Format, PageLayout};
use super::ring::read_page;
use super::{Lost, TaskRef, Timeline, TimelineEvent, TimelineRecord, TracePoint};

/// States of a task by bit, as `sched_switch` prints them; bit 8 is its mark of a task that was preempted
/// (`TASK_REPORT_MAX`, since 4.14).
const STATES: [(i64, &str); 8] =
    [(1, "S"), (2, "D"), (4, "T"), (8, "t"), (0x10, "X"), (0x20, "Z"), (0x40, "P"), (0x80, "I")];
const PREEMPTED: i64 = 0x100;

/// Bytes of a trace could not be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecoderError {
    /// A file that says how events look can't be read.
    #[error(
        "reading the format of the event {event}: {what}; expected what a `format` file of tracefs holds"
    )]
    Format {
        /// The event, as far as it is known.
        event: String,
        /// What is wrong.
        what: String,
    },
    /// An event lacks a field.
    #[error("the event {event} of this kernel has no field {field}, or is cut short before it")]
    NoField {
        /// The event.
        event: String,
        /// The field.
        field: String,
    },
}

/// Makes records of what `trace_pipe_raw` gives.
#[derive(Debug, Clone)]
pub struct Decoder {
    page: PageLayout,
    formats: Vec<(TracePoint, Format)>,
}

impl Decoder {
    /// By the text of `events/header_page`, and of the `format` file of each kind of event.
    ///
    /// # Errors
    /// [`DecoderError::Format`]
    pub fn new<'a>(
        header_page: &str,
        formats: impl IntoIterator<Item = (TracePoint, &'a str)>,
    ) -> Result<Self, DecoderError> {
        let parsed = formats.into_iter().map(|(point, text)| Ok((point, Format::parse(text)?)));
        Ok(Self { page: PageLayout::parse(header_page)?, formats: parsed.collect::<Result<_, _>>()? })
    }

    /// What is in some pages of a CPU's buffer, each of `page_size` bytes; what can't be understood is told among the
    /// timeline's problems, once for each kind of trouble.
    ///
    /// # Panics
    /// Never: a size of 0 is taken for 1.
    #[must_use]
    pub fn pages(&self, cpu: u32, bytes: &[u8], page_size: usize) -> Timeline {
        let mut timeline = Timeline::default();
        for page in bytes.chunks(page_size.max(1)) {
            let found = read_page(self.page, page);
            if let Some(missed) = found.missed {
                lose(&mut timeline, cpu, missed);
            }
            for (at_ns, event) in found.events {
                match self.record(cpu, at_ns, event) {
                    Ok(Some(record)) => timeline.records.push(record),
                    Ok(None) => {}
                    Err(e) => tell(&mut timeline, e.to_string()),
                }
            }
            if let Some(at) = found.broken_at {
                let problem = format!("the trace of cpu{cpu}: a page makes no sense from byte {at} on");
                tell(&mut timeline, problem);
            }
        }
        timeline
    }

    /// `None` for an event of another kind.
    fn record(&self, cpu: u32, at_ns: u64, bytes: &[u8]) -> Result<Option<TimelineRecord>, DecoderError> {
        let Some(kind) = bytes.get(..2).map(|kind| u16::from_le_bytes([kind[0], kind[1]])) else {
            return Ok(None);
        };
        let Some((point, format)) = self.formats.iter().find(|(_, format)| format.id == kind) else {
            return Ok(None);
        };
        let fields = Fields { format, bytes };
        let (pid, event) = (fields.int("common_pid")?, fields.event(*point)?);
        Ok(Some(TimelineRecord { at_ns, cpu, pid, event }))
    }
}

fn lose(timeline: &mut Timeline, cpu: u32, records: Option<u64>) {
    let why = "they were overwritten before they were read".to_string();
    match timeline.lost.last_mut() {
        // One line a CPU.
        Some(lost) => lost.records = lost.records.zip(records).map(|(a, b)| a.saturating_add(b)),
        None => timeline.lost.push(Lost { cpu, records, why }),
    }
}

fn tell(timeline: &mut Timeline, problem: String) {
    if !timeline.problems.contains(&problem) {
        timeline.problems.push(problem);
    }
}

struct Fields<'a> {
    format: &'a Format,
    bytes: &'a [u8],
}

impl Fields<'_> {
    fn int(&self, name: &str) -> Result<i32, DecoderError> {
        // All are 32 bits or fewer in every kernel.
        Ok(self.format.number(name, self.bytes)? as i32)
    }

    fn cpu(&self, name: &str) -> Result<u32, DecoderError> {
        Ok(self.format.number(name, self.bytes)? as u32)
    }

    fn task(&self, prefix: &str, prio: &str) -> Result<TaskRef, DecoderError> {
        Ok(TaskRef {
            pid: self.int(&format!("{prefix}pid"))?,
            comm: self.format.text(&format!("{prefix}comm"), self.bytes)?,
            prio: self.int(prio)?,
        })
    }

    fn event(&self, point: TracePoint) -> Result<TimelineEvent, DecoderError> {
        let address = || Ok(self.format.number("lock_addr", self.bytes)? as u64);
        Ok(match point {
            TracePoint::Switch => TimelineEvent::Switch {
                prev: self.task("prev_", "prev_prio")?,
                prev_state: state(self.format.number("prev_state", self.bytes)?),
                next: self.task("next_", "next_prio")?,
            },
            TracePoint::Migrate => TimelineEvent::Migrate {
                task: self.task("", "prio")?,
                from_cpu: self.cpu("orig_cpu")?,
                to_cpu: self.cpu("dest_cpu")?,
            },
            TracePoint::Wakeup | TracePoint::WakeupNew => TimelineEvent::Wakeup {
                task: self.task("", "prio")?,
                target_cpu: self.cpu("target_cpu")?,
                new: point == TracePoint::WakeupNew,
            },
            TracePoint::PiBoost => {
                TimelineEvent::PiBoost { task: self.task("", "oldprio")?, new_prio: self.int("newprio")? }
            }
            TracePoint::LockBegin => TimelineEvent::LockBegin { lock: address()?, flags: self.cpu("flags")? },
            TracePoint::LockEnd => TimelineEvent::LockEnd { lock: address()?, result: self.int("ret")? },
        })
    }
}

/// As the kernel prints it: letters with `|` between, `R` without any, `+` behind when it was preempted.
fn state(bits: i64) -> String {
    let letters: Vec<&str> =
        STATES.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, letter)| *letter).collect();
    let letters = if letters.is_empty() { "R".to_string() } else { letters.join("|") };
    if bits & PREEMPTED != 0 { letters + "+" } else { letters }
}
