//! Lines that a guest or its kernel wrote, as a part of the verdict: their end, within bounds.

/// The most lines that are told.
const MOST_LINES: usize = 40;
/// Bytes of a line that are told.
pub(crate) const MOST_BYTES: usize = 400;

/// `title`, what `left_out` says of so many lines that are not told, and the last lines below.
pub(crate) fn quoted(title: String, lines: &[&str], left_out: fn(usize) -> String) -> String {
    let hidden = lines.len().saturating_sub(MOST_LINES);
    let mut text = title;
    if hidden > 0 {
        text.push_str(&left_out(hidden));
    }
    text.push(':');
    for line in &lines[hidden..] {
        text.push_str("\n  ");
        text.push_str(bounded(line));
    }
    text
}

fn bounded(line: &str) -> &str {
    let end = (0..=MOST_BYTES.min(line.len())).rev().find(|end| line.is_char_boundary(*end));
    &line[..end.unwrap_or(0)]
}
