//! What kinds of lines a verifier log has: kernel/bpf/verifier.c and kernel/bpf/log.c.

/// What a line of a verifier log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LineKind {
    /// The program's source, `; text @ file:line`.
    Source,
    /// A BPF instruction, `12: (85) call bpf_loop#181`, and maybe registers after it.
    Instruction,
    /// Where an explored path begins, `from 12 to 15: R0=0 …`.
    Path,
    /// Registers and nothing else, `3: R1=ctx() R10=fp0`.
    Registers,
    /// How the verifier traced a number back, `mark_precise: frame0: …`.
    Backtrack,
    /// The totals at the end, `processed 42 insns …`.
    Statistics,
    /// Anything else: a complaint, for instance.
    Other,
}

const BACKTRACK: [&str; 6] =
    ["mark_precise:", "parent state regs=", "parent didn't have regs=", "last_idx ", "regs=", "propagating "];

const STATISTICS: [&str; 3] = ["processed ", "verification time ", "stack depth "];

/// Tells a line by its beginning.
pub fn kind(line: &str) -> LineKind {
    let line = line.trim();
    if line.starts_with(';') {
        return LineKind::Source;
    }
    if let Some(rest) = after_number(line) {
        return match rest {
            _ if is_opcode(rest) => LineKind::Instruction,
            _ if are_registers(rest) => LineKind::Registers,
            _ => LineKind::Other,
        };
    }
    if path_head(line).is_some() {
        return LineKind::Path;
    }
    if are_registers(line) || line.starts_with("cur state:") || line.starts_with("old state:") {
        return LineKind::Registers;
    }
    let begins_with = |heads: &[&str]| heads.iter().any(|head| line.starts_with(head));
    if begins_with(&BACKTRACK) {
        LineKind::Backtrack
    } else if begins_with(&STATISTICS) {
        LineKind::Statistics
    } else {
        LineKind::Other
    }
}

/// The line less the state of registers and stack; `None` if that was all. The source's
/// comments stay.
pub fn without_registers(line: &str) -> Option<&str> {
    match kind(line) {
        LineKind::Registers => None,
        LineKind::Path => path_head(line).map(str::trim_end),
        LineKind::Instruction => {
            let state = |rest: &str| rest.is_empty() || are_registers(rest);
            let end = line.match_indices(';').find(|(at, _)| state(line[at + 1..].trim()));
            Some(end.map_or(line, |(at, _)| &line[..at]).trim_end())
        }
        _ => Some(line.trim_end()),
    }
}

/// What follows `12: `.
fn after_number(line: &str) -> Option<&str> {
    let (number, rest) = line.split_once(": ")?;
    (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())).then(|| rest.trim_start())
}

/// `(85) …`: two hexadecimal digits.
fn is_opcode(text: &str) -> bool {
    matches!(text.as_bytes(), [b'(', high, low, b')', ..]
        if high.is_ascii_hexdigit() && low.is_ascii_hexdigit())
}

/// `R1=…`, `R1_w=…`, `fp-8=…`, `frame1: R1=…`.
fn are_registers(text: &str) -> bool {
    let text = match text.strip_prefix("frame").and_then(after_number) {
        Some(rest) => rest,
        None => text,
    };
    let name = text.split('=').next().unwrap_or_default();
    if name.len() == text.len() {
        return false;
    }
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // `_w`, `_rw` and the like say how the register was used.
    let name = name.split('_').next().unwrap_or_default();
    name.strip_prefix('R').is_some_and(digits) || name.strip_prefix("fp-").is_some_and(digits)
}

/// `from 12 to 15: ` with registers after it, up to the colon.
fn path_head(line: &str) -> Option<&str> {
    let colon = line.find(": ")?;
    let head = line[..colon].trim_start();
    let mut words = head.split(' ');
    let is_number = |word: Option<&str>| word.is_some_and(|word| word.parse::<u32>().is_ok());
    let fits = words.next() == Some("from")
        && is_number(words.next())
        && words.next() == Some("to")
        && is_number(words.next());
    (fits && are_registers(line[colon + 2..].trim_start())).then(|| &line[..=colon])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_by_their_form() {
        for (line, expected) in [
            ("; data_of(p)->picked_at = 1; @ fixture.bpf.c:407", LineKind::Source),
            ("7: (7b) *(u64 *)(r0 +0) = r6", LineKind::Instruction),
            ("1: R1=ctx() R2_w=trusted_ptr_task_struct()", LineKind::Registers),
            (" R0=inv(id=0) R1=ctx(id=0,off=0,imm=0) fp-8=mmmmmmmm", LineKind::Registers),
            ("24: frame1: R1=1 R10=fp0", LineKind::Registers),
            ("12: fp-8=0", LineKind::Registers),
            ("from 5 to 22: R1=map_value(map=x) R10=fp0", LineKind::Path),
            ("from 5 to 22 (speculative execution): R1=1", LineKind::Path),
            ("from 5 to 22: safe", LineKind::Other),
            ("22: safe", LineKind::Other),
            ("mark_precise: frame0: last_idx 8 first_idx 6 subseq_idx -1", LineKind::Backtrack),
            ("processed 7 insns (limit 1000000) max_states_per_insn 0", LineKind::Statistics),
            ("stack depth 8+0", LineKind::Statistics),
            ("func#0 @0", LineKind::Other),
            ("R0 invalid mem access 'map_value_or_null'", LineKind::Other),
            ("", LineKind::Other),
        ] {
            assert_eq!(kind(line), expected, "{line:?}");
        }
    }

    #[test]
    fn registers_go_and_source_comments_stay() {
        for (line, left) in [
            ("18: (07) r2 += 1                      ; R2_w=1", Some("18: (07) r2 += 1")),
            ("24: (95) exit ; frame1: R0=1", Some("24: (95) exit")),
            (
                "178: (85) call scx_bpf_dispatch#14439         ;",
                Some("178: (85) call scx_bpf_dispatch#14439"),
            ),
            ("; a = b; R1=2; @ x.c:1", Some("; a = b; R1=2; @ x.c:1")),
            ("1: R1=ctx()", None),
            ("from 5 to 22: R1=1 R10=fp0", Some("from 5 to 22:")),
            ("R0 invalid mem access 'scalar'", Some("R0 invalid mem access 'scalar'")),
        ] {
            assert_eq!(without_registers(line), left, "{line:?}");
        }
    }
}
