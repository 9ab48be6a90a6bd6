//! The kernel's log, cut to a window of time.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// `LOG_FACMASK` is what is above the three bits of the level (include/linux/printk.h, syslog(3)).
const LEVEL_BITS: u64 = 7;
/// Facilities by number, as dmesg(1) names them.
const FACILITIES: [&str; 12] =
    ["kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"];

/// How urgent a record is (`KERN_*` of include/linux/kern_levels.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KmsgLevel {
    /// The system is unusable.
    Emerg,
    /// Something must be done at once.
    Alert,
    /// Critical.
    Crit,
    /// An error.
    Err,
    /// A warning.
    Warn,
    /// Normal, but of note.
    Notice,
    /// Information.
    Info,
    /// For debugging.
    Debug,
}

impl KmsgLevel {
    const ALL: [Self; 8] =
        [Self::Emerg, Self::Alert, Self::Crit, Self::Err, Self::Warn, Self::Notice, Self::Info, Self::Debug];

    /// The name that dmesg(1) gives it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Emerg => "emerg",
            Self::Alert => "alert",
            Self::Crit => "crit",
            Self::Err => "err",
            Self::Warn => "warn",
            Self::Notice => "notice",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

impl fmt::Display for KmsgLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A record of the kernel's log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KmsgRecord {
    /// When it was made, since boot by the clock of printk (`local_clock()`), which is not quite that of
    /// `CLOCK_MONOTONIC`.
    pub at: Duration,
    /// How urgent it is, where the log tells.
    pub level: Option<KmsgLevel>,
    /// Who it is from, where the log tells: 0 is the kernel, 1 a program that wrote to `/dev/kmsg`.
    pub facility: Option<u8>,
    /// Its number, where the log tells: `/dev/kmsg` does.
    pub sequence: Option<u64>,
    /// The thread (`T12`) or CPU (`C3`) it is from, with `CONFIG_PRINTK_CALLER`.
    pub caller: Option<String>,
    /// Its text; several lines where it has several.
    pub text: String,
    /// What else it says of itself, such as `DEVICE`: only `/dev/kmsg` has that.
    pub fields: BTreeMap<String, String>,
}

impl fmt::Display for KmsgRecord {
    /// As dmesg(1) prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:5}.{:06}] {}", self.at.as_secs(), self.at.subsec_micros(), self.text)
    }
}

/// The records of a window.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KmsgWindow {
    /// Those in it, in the log's order.
    pub records: Vec<KmsgRecord>,
    /// How many there were before it.
    pub before: usize,
    /// How many there were after it.
    pub after: usize,
    /// Lines of which nobody can tell when they were written: without a time stamp, and behind no record that has one.
    pub undated: usize,
}

impl KmsgWindow {
    /// The text of its records, a line each or several.
    #[must_use]
    pub fn text(&self) -> String {
        let lines: Vec<&str> = self.records.iter().map(|record| record.text.as_str()).collect();
        lines.join("\n")
    }

    /// Those that hold a text.
    pub fn containing<'a>(&'a self, part: &'a str) -> impl Iterator<Item = &'a KmsgRecord> {
        self.records.iter().filter(move |record| record.text.contains(part))
    }
}

/// The records of a log that were made from `from` to `to`, both included, by the microseconds that a log tells.
///
/// Reads what `/dev/kmsg` gives (Documentation/ABI/testing/dev-kmsg), with the lines of fields behind a record, and what
/// dmesg(1) prints: plain, with `--raw`, with `--decode`, with callers. A line without a time belongs to the record before
/// it, as those of a dump of several lines do. Times of day (`dmesg --ctime`) are none since boot: such lines are
/// [`undated`](KmsgWindow::undated).
#[must_use]
pub fn parse_kmsg_window(text: &str, from: Duration, to: Duration) -> KmsgWindow {
    let (records, undated) = parse(text);
    let micros = |at: Duration| at.as_micros();
    let mut window = KmsgWindow { undated, ..KmsgWindow::default() };
    for record in records {
        match micros(record.at) {
            at if at < micros(from) => window.before += 1,
            at if at > micros(to) => window.after += 1,
            _ => window.records.push(record),
        }
    }
    window
}

/// What a line begins.
enum Line<'a> {
    Record(Box<KmsgRecord>, Form),
    /// A piece of the line that the record before it began.
    Piece(&'a str),
    /// No record of its own.
    Other(&'a str),
}

/// How a record was written, which tells what may follow it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Device,
    Printed,
}

/// All records, and how many lines belong to none.
fn parse(text: &str) -> (Vec<KmsgRecord>, usize) {
    let (mut records, mut undated): (Vec<KmsgRecord>, usize) = (Vec::new(), 0);
    let mut form = Form::Printed;
    for line in text.lines() {
        match (line_of(line), records.last_mut()) {
            (Line::Record(record, of), _) => {
                form = of;
                records.push(*record);
            }
            (Line::Piece(more), Some(last)) => last.text.push_str(&unescaped(more)),
            (Line::Other(line), Some(last)) => match field(line).filter(|_| form == Form::Device) {
                Some((name, value)) => drop(last.fields.insert(name.to_string(), unescaped(value))),
                None => {
                    last.text.push('\n');
                    last.text.push_str(line);
                }
            },
            (Line::Piece(_) | Line::Other(_), None) => undated += usize::from(!line.trim().is_empty()),
        }
    }
    (records, undated)
}

fn line_of(line: &str) -> Line<'_> {
    if let Some(found) = device_line(line) {
        return found;
    }
    match printed_line(line) {
        Some(record) => Line::Record(Box::new(record), Form::Printed),
        None => Line::Other(line),
    }
}

/// `priority,sequence,microseconds,flags[,name=value…];text`.
fn device_line(line: &str) -> Option<Line<'_>> {
    let (head, text) = line.split_once(';')?;
    let mut parts = head.split(',');
    let (priority, sequence) = (number(parts.next()?)?, number(parts.next()?)?);
    let (micros, flags) = (number(parts.next()?)?, parts.next()?);
    // Of a line printed in pieces `c` is the first, and on old kernels `+` those that follow (before 4.10).
    match flags {
        "+" => return Some(Line::Piece(text)),
        "-" | "c" => {}
        _ => return None,
    }
    let caller = parts.find_map(|part| part.strip_prefix("caller="));
    let (level, facility) = priority_of(priority)?;
    let record = KmsgRecord {
        at: Duration::from_micros(micros),
        level: Some(level),
        facility: Some(facility),
        sequence: Some(sequence),
        caller: caller.map(str::to_string),
        text: unescaped(text),
        fields: BTreeMap::new(),
    };
    Some(Line::Record(Box::new(record), Form::Device))
}

/// `[<priority>|facility:level:][seconds.micros][[caller]] text`.
fn printed_line(line: &str) -> Option<KmsgRecord> {
    let (level, facility, rest) = prefix(line);
    let (stamp, rest) = rest.strip_prefix('[')?.split_once(']')?;
    let at = seconds(stamp.trim())?;
    let (caller, rest) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((caller, after)) if is_caller(caller.trim()) => (Some(caller.trim().to_string()), after),
        _ => (None, rest),
    };
    let text = rest.strip_prefix(' ').unwrap_or(rest).to_string();
    Some(KmsgRecord { at, level, facility, caller, text, ..KmsgRecord::default() })
}

/// What stands before the time, as far as it is understood, and what follows.
fn prefix(line: &str) -> (Option<KmsgLevel>, Option<u8>, &str) {
    if let Some((inside, rest)) = line.strip_prefix('<').and_then(|rest| rest.split_once('>'))
        && let Some((level, facility)) = number(inside).and_then(priority_of)
    {
        return (Some(level), Some(facility), rest);
    }
    // `dmesg --decode`: `kern  :info  : [    1.000000] text`.
    let mut parts = line.splitn(3, ':');
    if let (Some(who), Some(how), Some(rest)) = (parts.next(), parts.next(), parts.next())
        && let Some(facility) = FACILITIES.iter().position(|name| *name == who.trim())
        && let Some(level) = KmsgLevel::ALL.into_iter().find(|level| level.name() == how.trim())
    {
        return (Some(level), u8::try_from(facility).ok(), rest.trim_start());
    }
    (None, None, line)
}

fn priority_of(priority: u64) -> Option<(KmsgLevel, u8)> {
    let level = KmsgLevel::ALL.get((priority & LEVEL_BITS) as usize)?;
    Some((*level, u8::try_from(priority >> LEVEL_BITS.count_ones()).ok()?))
}

/// `T12` or `C3` (`print_caller` of kernel/printk/printk.c).
fn is_caller(text: &str) -> bool {
    text.strip_prefix(['T', 'C']).is_some_and(|rest| number(rest).is_some())
}

/// `5.140900`, as exactly as it is written, down to nanoseconds.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.')?;
    if !(1..=9).contains(&fraction.len()) {
        return None;
    }
    let scale = 10u64.pow(9 - u32::try_from(fraction.len()).ok()?);
    let nanos = number(fraction)?.checked_mul(scale)?;
    Some(Duration::new(number(whole)?, u32::try_from(nanos).ok()?))
}

/// A number of digits only.
fn number(text: &str) -> Option<u64> {
    let all_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| text.parse().ok()).flatten()
}

/// ` NAME=value`, as it follows a record of `/dev/kmsg`.
fn field(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.strip_prefix(' ')?.split_once('=')?;
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name.then_some((name, value))
}

/// `/dev/kmsg` writes what is not printable ASCII, and the backslash, as `\x0a` (`msg_add_ext_text`).
fn unescaped(text: &str) -> String {
    if !text.contains("\\x") {
        return text.to_string();
    }
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(byte) = bytes.get(at) {
        let digits = bytes.get(at..at + 4).filter(|four| four.starts_with(b"\\x"));
        let value = digits.and_then(|four| std::str::from_utf8(&four[2..]).ok());
        match value.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) => {
                out.push(value);
                at += 4;
            }
            None => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests;
