//! The end of what a guest printed, within bounds.

use std::collections::VecDeque;

const MAX_LINE: usize = 4096;

/// Keeps the last lines of a console, whatever the guest prints: lines are cut
/// at 4 KiB, control characters become `.`, and old lines fall off.
#[derive(Debug, Clone)]
pub struct ConsoleTail {
    keep: usize,
    lines: VecDeque<String>,
    partial: Vec<u8>,
    total: u64,
    digest: Digest,
}

/// A running FNV-1a hash, 64 bit (Fowler, Noll, Vo): tells two texts apart where no
/// adversary is at work, the same on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    /// Takes in bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// The hash of what was taken in.
    pub fn value(self) -> u64 {
        self.0
    }
}

impl ConsoleTail {
    /// A tail of at most `keep` lines.
    pub fn new(keep: usize) -> Self {
        Self {
            keep: keep.max(1),
            lines: VecDeque::new(),
            partial: Vec::new(),
            total: 0,
            digest: Digest::default(),
        }
    }

    /// True when a guest kernel died of a breakpoint instruction.
    ///
    /// The kernel patches its own code through an `int3` (arch/x86/kernel/alternative.c,
    /// `text_poke_bp_batch`) and never leaves one behind. QEMU before 8.1 can: with one
    /// thread a vCPU, one may translate the `int3` just as another replaces it, and keeps
    /// the stale translation (mended by its commit deba78709a, "accel/tcg: Always lock
    /// pages before translation"). Such a death says nothing of the kernel or the test.
    pub fn shows_lost_code_patch(&self) -> bool {
        self.find_last("int3: 0000 [#").is_some()
    }

    /// Takes in bytes as they come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        self.digest.push(bytes);
        for &byte in bytes {
            match byte {
                b'\n' => self.end_line(),
                b'\r' => {}
                _ if self.partial.len() < MAX_LINE => self.partial.push(byte),
                _ => {}
            }
        }
    }

    fn end_line(&mut self) {
        let line = clean(&self.partial);
        self.partial.clear();
        if self.lines.len() == self.keep {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Bytes seen in all.
    pub fn total_bytes(&self) -> u64 {
        self.total
    }

    /// Hash over all bytes seen, those that fell off included.
    pub fn digest(&self) -> u64 {
        self.digest.value()
    }

    /// The last `n` lines, an unfinished one included.
    pub fn last(&self, n: usize) -> Vec<String> {
        let mut all: Vec<String> = self.lines.iter().cloned().collect();
        if !self.partial.is_empty() {
            all.push(clean(&self.partial));
        }
        let skip = all.len().saturating_sub(n);
        all.split_off(skip)
    }

    /// The last line that contains `needle`.
    pub fn find_last(&self, needle: &str) -> Option<String> {
        self.last(usize::MAX).into_iter().rev().find(|l| l.contains(needle))
    }
}

fn clean(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .map(|c| if c.is_control() && c != '\t' { '.' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn old_lines_fall_off_and_an_unfinished_one_counts() {
        let mut tail = ConsoleTail::new(2);
        tail.push(b"one\r\ntwo\nthree\nfo");
        tail.push(b"ur");
        assert_eq!(tail.last(10), ["two", "three", "four"]);
        assert_eq!(tail.last(1), ["four"]);
        assert_eq!(tail.find_last("thr").as_deref(), Some("three"));
    }

    #[test]
    fn escape_sequences_can_not_reach_a_terminal() {
        let mut tail = ConsoleTail::new(5);
        tail.push(b"\x1b[2Jhi\x07\n");
        assert_eq!(tail.last(1), [".[2Jhi."]);
    }

    proptest! {
        #[test]
        fn whatever_a_guest_prints_stays_within_bounds(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..40)) {
            let mut tail = ConsoleTail::new(3);
            for c in &chunks { tail.push(c); }
            prop_assert!(tail.last(usize::MAX).len() <= 4);
            prop_assert_eq!(tail.total_bytes(), chunks.iter().map(|c| c.len() as u64).sum::<u64>());
        }
    }
}
