//! What a loader printed, taken apart program by program.

use crate::{LineKind, Stats, kind};
use serde::{Deserialize, Serialize};

/// Around a program's log libbpf prints its name and these.
const BEGIN: &str = ": -- BEGIN PROG LOAD LOG --";
const END: &str = "-- END PROG LOAD LOG --";
/// Before and after a log that ends in a refusal.
const REFUSED: [&str; 2] = [": BPF program load failed: ", ": failed to load: "];

/// Around what a scheduler printed when it could not be loaded.
const OUTPUT: [&str; 2] = ["===SCHED_OUTPUT_START===", "===SCHED_OUTPUT_END==="];

/// The logs of all programs, in the order they were loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifierLog {
    /// One for each program.
    pub programs: Vec<ProgramLog>,
    /// Lines that belong to no program.
    pub others: Vec<String>,
}

/// What was said of one program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramLog {
    /// As in the object; empty if the log was not framed by libbpf.
    pub name: String,
    /// The verifier's lines.
    pub lines: Vec<String>,
    /// How it ended.
    pub verdict: Verdict,
    /// The totals, if the log got that far.
    pub stats: Option<Stats>,
}

/// How the verification of a program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The kernel took it.
    Accepted,
    /// It did not.
    Rejected {
        /// The verifier's last words, if it had any.
        reason: Option<String>,
        /// The source line that it was at, as the compiler recorded it.
        source: Option<String>,
        /// The error as libbpf names it: `-EACCES`, or in words.
        errno: Option<String>,
    },
    /// The log breaks off.
    Unknown,
}

/// A program in one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramSummary {
    /// As in the object.
    pub name: String,
    /// Instructions that the verifier looked at.
    pub verified_insns: Option<u64>,
    /// All totals.
    pub stats: Option<Stats>,
    /// How it ended.
    pub verdict: Verdict,
}

/// The part of `text` between the marks around a failed scheduler's output; to the end if
/// the second is missing. `None` without the first.
pub fn scheduler_output(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once(OUTPUT[0])?;
    let part = rest.split_once(OUTPUT[1]).map_or(rest, |(part, _)| part);
    Some(part.trim_matches(['\r', '\n']))
}

impl VerifierLog {
    /// Reads what libbpf printed, with whatever else is around it. A text without frames
    /// that has verifier's totals is the log of one program without a name.
    pub fn parse(text: &str) -> Self {
        let mut parser = Parser::default();
        for line in text.lines() {
            parser.line(line.trim_end_matches('\r'));
        }
        parser.close();
        let mut log = parser.log;
        if log.programs.is_empty() && log.others.iter().any(|line| kind(line) == LineKind::Statistics) {
            log.programs.push(unframed(std::mem::take(&mut log.others)));
        }
        log
    }

    /// The first program that the kernel refused.
    pub fn rejected(&self) -> Option<&ProgramLog> {
        self.programs.iter().find(|program| matches!(program.verdict, Verdict::Rejected { .. }))
    }
}

impl ProgramLog {
    fn named(name: &str) -> Self {
        Self { name: name.to_string(), lines: vec![], verdict: Verdict::Unknown, stats: None }
    }

    /// The program in one line.
    pub fn summary(&self) -> ProgramSummary {
        ProgramSummary {
            name: self.name.clone(),
            verified_insns: self.stats.as_ref().map(|stats| stats.processed),
            stats: self.stats.clone(),
            verdict: self.verdict.clone(),
        }
    }

    /// What the verifier complained of last, and at which source line.
    fn complaint(&self) -> (Option<String>, Option<String>) {
        let end = self.lines.iter().rposition(|line| {
            !line.trim().is_empty() && !matches!(kind(line), LineKind::Statistics | LineKind::Registers)
        });
        let Some(end) = end.filter(|&end| is_complaint(&self.lines[end])) else { return (None, None) };
        let source = self.lines[..end].iter().rev().find(|line| kind(line) == LineKind::Source);
        let source = source.map(|line| line.trim().trim_start_matches(';').trim().to_string());
        (Some(self.lines[end].trim().to_string()), source)
    }

    fn reject(&mut self, errno: Option<String>) {
        let (reason, source) = self.complaint();
        let errno = match &self.verdict {
            Verdict::Rejected { errno: Some(known), .. } => Some(known.clone()),
            _ => errno,
        };
        self.verdict = Verdict::Rejected { reason, source, errno };
    }
}

fn is_complaint(line: &str) -> bool {
    kind(line) == LineKind::Other && !line.trim_end().ends_with(": safe")
}

fn unframed(lines: Vec<String>) -> ProgramLog {
    let mut program = ProgramLog { lines, ..ProgramLog::named("") };
    program.stats = Stats::parse(program.lines.iter().map(String::as_str));
    match program.complaint() {
        (Some(_), _) => program.reject(None),
        (None, _) if program.stats.is_some() => program.verdict = Verdict::Accepted,
        _ => {}
    }
    program
}

#[derive(Default)]
struct Parser {
    log: VerifierLog,
    open: Option<ProgramLog>,
}

impl Parser {
    fn line(&mut self, line: &str) {
        if let Some(name) = framed(line, BEGIN) {
            self.close();
            // A refusal may have been announced before.
            let known = self.log.programs.pop_if(|last| last.name == name && last.lines.is_empty());
            self.open = Some(known.unwrap_or_else(|| ProgramLog::named(name)));
            return;
        }
        if let Some((name, errno)) = refusal(line) {
            self.refused(name, errno);
            return;
        }
        match &mut self.open {
            Some(program) => match line.find(END) {
                Some(at) => {
                    if !line[..at].trim().is_empty() {
                        program.lines.push(line[..at].to_string());
                    }
                    self.end();
                }
                None => program.lines.push(line.to_string()),
            },
            None => self.log.others.push(line.to_string()),
        }
    }

    fn refused(&mut self, name: &str, errno: &str) {
        self.close();
        let errno = Some(errno.to_string());
        match self.log.programs.last_mut().filter(|last| last.name == name) {
            Some(program) => program.reject(errno),
            None => {
                let mut program = ProgramLog::named(name);
                program.reject(errno);
                self.log.programs.push(program);
            }
        }
    }

    /// The log is whole.
    fn end(&mut self) {
        let Some(mut program) = self.open.take() else { return };
        program.stats = Stats::parse(program.lines.iter().map(String::as_str));
        match program.verdict {
            Verdict::Rejected { .. } => program.reject(None),
            _ if program.stats.is_some() => program.verdict = Verdict::Accepted,
            _ => {}
        }
        self.log.programs.push(program);
    }

    /// The log breaks off, or there is none.
    fn close(&mut self) {
        let Some(mut program) = self.open.take() else { return };
        program.stats = Stats::parse(program.lines.iter().map(String::as_str));
        if matches!(program.verdict, Verdict::Rejected { .. }) {
            program.reject(None);
        }
        self.log.programs.push(program);
    }
}

/// The name in `prog 'NAME'` before `mark`.
fn framed<'a>(line: &'a str, mark: &str) -> Option<&'a str> {
    let before = &line[..line.find(mark)?];
    let name = before.strip_suffix('\'')?.rsplit_once("prog '")?.1;
    (!name.is_empty()).then_some(name)
}

fn refusal(line: &str) -> Option<(&str, &str)> {
    REFUSED.into_iter().find_map(|mark| {
        let name = framed(line, mark)?;
        Some((name, line[line.find(mark)? + mark.len()..].trim()))
    })
}

#[cfg(test)]
mod tests;
