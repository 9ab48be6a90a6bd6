//! Logs as text for people.

use crate::{LineKind, ProgramLog, ProgramSummary, Verdict, VerifierLog, collapse, kind, without_registers};
use std::fmt::Write;

/// Lines at the end of a program's log that keep their registers: what the verifier knew
/// when it complained.
const WITH_REGISTERS: usize = 12;

/// How much of a log is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Register states dropped but at the end, rounds of loops collapsed.
    #[default]
    Readable,
    /// As it came.
    Raw,
}

/// The text of `log`, which is `text` parsed. A refusal comes with its log, an accepted
/// program with its summary.
pub fn render(text: &str, mode: Mode) -> String {
    if mode == Mode::Raw {
        return text.to_string();
    }
    let log = VerifierLog::parse(text);
    let mut out = String::new();
    for program in &log.programs {
        let _ = writeln!(out, "{}", render_summary(&program.summary()));
        if program.verdict != Verdict::Accepted {
            for line in render_program(program, mode).lines() {
                let _ = writeln!(out, "  {line}");
            }
        }
    }
    for line in log.others.iter().filter(|line| !line.trim().is_empty()) {
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

/// One program's log.
pub fn render_program(program: &ProgramLog, mode: Mode) -> String {
    let lines: Vec<&str> = program.lines.iter().map(String::as_str).collect();
    if mode == Mode::Raw {
        return joined(lines);
    }
    let is_code = |line: &&str| kind(line) == LineKind::Instruction;
    let whole_from = lines
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, line)| is_code(line))
        .nth(WITH_REGISTERS - 1)
        .map_or(0, |(at, _)| at);
    let shown: Vec<&str> = lines
        .iter()
        .enumerate()
        .filter(|(_, line)| kind(line) != LineKind::Backtrack)
        .filter_map(
            |(at, line)| if at < whole_from { without_registers(line) } else { Some(line.trim_end()) },
        )
        .collect();
    joined(collapse(&shown).lines)
}

/// `name verified_insns=N states=T/P stack=S accepted`, as far as it is known.
pub fn render_summary(summary: &ProgramSummary) -> String {
    let name = if summary.name.is_empty() { "(a program)" } else { &summary.name };
    let mut text = name.to_string();
    if let Some(insns) = summary.verified_insns {
        let _ = write!(text, " verified_insns={insns}");
    }
    if let Some(stats) = &summary.stats {
        let _ = write!(text, " states={}/{}", stats.total_states, stats.peak_states);
        if let Some(bytes) = stats.stack_bytes() {
            let _ = write!(text, " stack={bytes}");
        }
    }
    match &summary.verdict {
        Verdict::Accepted => text.push_str(" accepted"),
        Verdict::Unknown => text.push_str(" unknown: its log breaks off"),
        Verdict::Rejected { reason, source, errno } => {
            text.push_str(" rejected");
            if let Some(errno) = errno {
                let _ = write!(text, " ({errno})");
            }
            let _ = write!(text, ": {}", reason.as_deref().unwrap_or("no word of the verifier's"));
            if let Some(source) = source {
                let _ = write!(text, "\n  at {source}");
            }
        }
    }
    text
}

fn joined<T: AsRef<str>>(lines: Vec<T>) -> String {
    lines.into_iter().fold(String::new(), |text, line| text + line.as_ref() + "\n")
}

#[cfg(test)]
mod tests;
