//! A log that may be of any length.

use std::collections::VecDeque;

/// Keeps the beginning and the end of what is pushed, and counts what lies between.
#[derive(Debug, Clone)]
pub struct BoundedLog {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    head_max: usize,
    tail_max: usize,
    lost: u64,
}

impl BoundedLog {
    /// Keeps that many bytes of the beginning and of the end.
    pub fn new(head: usize, tail: usize) -> Self {
        Self { head: Vec::new(), tail: VecDeque::new(), head_max: head, tail_max: tail, lost: 0 }
    }

    /// Adds bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        let room = self.head_max - self.head.len();
        let (first, rest) = bytes.split_at(bytes.len().min(room));
        self.head.extend_from_slice(first);
        // Of a piece longer than the tail only its end can stay.
        let skipped = rest.len().saturating_sub(self.tail_max);
        self.lost += skipped as u64;
        self.tail.extend(&rest[skipped..]);
        let over = self.tail.len().saturating_sub(self.tail_max);
        self.tail.drain(..over);
        self.lost += over as u64;
    }

    /// Bytes that were dropped.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// What is kept as text; a line tells of what is not.
    pub fn text(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.head).into_owned();
        let tail: Vec<u8> = self.tail.iter().copied().collect();
        if self.lost > 0 {
            if !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(&format!("… {} bytes left out …\n", self.lost));
        }
        text.push_str(&String::from_utf8_lossy(&tail));
        text
    }
}

/// Bytes that a log says were left out of it, by the lines of [`BoundedLog::text`].
pub fn bytes_left_out(log: &str) -> u64 {
    let told = |line: &str| line.strip_prefix("… ")?.strip_suffix(" bytes left out …")?.parse::<u64>().ok();
    log.lines().filter_map(told).fold(0, u64::saturating_add)
}

/// A log without terminal control sequences (ECMA-48 CSI): schedulers colour what they print
/// although no terminal reads it.
pub fn without_colours(log: &str) -> String {
    let mut pieces = log.split("\x1b[");
    let mut text = pieces.next().unwrap_or_default().to_string();
    for piece in pieces {
        // Parameters, then one final byte from @ to ~.
        let end = piece.find(|c: char| ('@'..='~').contains(&c)).map_or(piece.len(), |at| at + 1);
        text.push_str(&piece[end..]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_ends_stay() {
        let mut log = BoundedLog::new(4, 4);
        for piece in ["abc", "defgh", "ijklmnop"] {
            log.push(piece.as_bytes());
        }
        assert_eq!(log.text(), "abcd\n… 8 bytes left out …\nmnop");
        assert_eq!(bytes_left_out(&format!("{}\n{}", log.text(), log.text())), 16);
        assert_eq!(bytes_left_out("… some bytes left out …\n8 bytes left out\n"), 0);
    }

    #[test]
    fn colours_go_and_words_stay() {
        assert_eq!(without_colours("\x1b[2m1\x1b[0m \x1b[33m WARN\x1b[0m: a[3m]"), "1  WARN: a[3m]");
        assert_eq!(without_colours("plain"), "plain");
        assert_eq!(without_colours("cut \x1b[38;5"), "cut ");
    }

    proptest! {
        #[test]
        fn nothing_is_lost_uncounted(pieces in prop::collection::vec("[a-z]{0,30}", 0..20), head in 0usize..40, tail in 0usize..40) {
            let whole: String = pieces.concat();
            let mut log = BoundedLog::new(head, tail);
            for piece in &pieces {
                log.push(piece.as_bytes());
            }
            let kept = whole.len() as u64 - log.lost();
            prop_assert_eq!(kept, whole.len().min(head + tail) as u64);
            prop_assert!(log.text().starts_with(&whole[..whole.len().min(head)]));
            prop_assert!(log.text().ends_with(&whole[whole.len() - whole.len().saturating_sub(head).min(tail)..]));
        }
    }
}
