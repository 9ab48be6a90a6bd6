//! Pages of a trace buffer, as `trace_pipe_raw` gives them (kernel/trace/ring_buffer.c, include/linux/ring_buffer.h).

use super::format::PageLayout;

/// Of the word that says how many bytes were written: below this mask the number, above it flags.
const COMMITTED: u64 = (1 << 27) - 1;
/// `RB_MISSED_EVENTS`: events were overwritten before this page was read.
const MISSED: u64 = 1 << 31;
/// `RB_MISSED_STORED`: how many is told behind the last event.
const MISSED_STORED: u64 = 1 << 30;
/// `RINGBUF_TYPE_PADDING`, `_TIME_EXTEND`, `_TIME_STAMP`; below them the data's length in words.
const PADDING: u32 = 29;
const TIME_EXTEND: u32 = 30;
const TIME_STAMP: u32 = 31;
/// Bits of a time difference in an event's own word.
const TIME_BITS: u32 = 27;
/// The bits that an absolute time stamp has no room for, and takes over from before (`TS_MSB`).
const TIME_TOP: u64 = 0xf8 << 56;

/// A page, read as far as it makes sense.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Page<'a> {
    /// Time and bytes of each event.
    pub(super) events: Vec<(u64, &'a [u8])>,
    /// Events that were lost before it: how many, where that is told.
    pub(super) missed: Option<Option<u64>>,
    /// Where it stopped making sense, in bytes from the start of the page.
    pub(super) broken_at: Option<usize>,
}

pub(super) fn read_page(layout: PageLayout, page: &[u8]) -> Page<'_> {
    let mut found = Page::default();
    let head = (word64(page, layout.timestamp), word64(page, layout.commit));
    let (Some(begin), Some(commit)) = head else {
        found.broken_at = Some(0);
        return found;
    };
    let length = (commit & COMMITTED) as usize;
    let Some(data) = page.get(layout.data..).filter(|data| data.len() >= length) else {
        found.broken_at = Some(layout.commit);
        return found;
    };
    if commit & MISSED != 0 {
        let stored = (commit & MISSED_STORED != 0).then(|| word64(data, length)).flatten();
        found.missed = Some(stored);
    }
    let data = &data[..length];
    let (mut at, mut now) = (0, begin);
    while at < data.len() {
        match event(data, at, &mut now) {
            Some(Step::Event(bytes, next)) => {
                found.events.push((now, bytes));
                at = next;
            }
            Some(Step::Nothing(next)) => at = next,
            Some(Step::End) => break,
            None => {
                found.broken_at = Some(layout.data + at);
                break;
            }
        }
    }
    found
}

enum Step<'a> {
    /// An event, and where the next is.
    Event(&'a [u8], usize),
    /// Only time, or an event that was taken back.
    Nothing(usize),
    /// The rest of the page is empty.
    End,
}

/// What is at `at`; `None` when that makes no sense. Each step goes on by at least 4 bytes.
fn event<'a>(data: &'a [u8], at: usize, now: &mut u64) -> Option<Step<'a>> {
    let head = word32(data, at)?;
    let (kind, delta) = (head & 0x1f, u64::from(head >> 5));
    let second = || word32(data, at + 4);
    Some(match kind {
        PADDING if delta == 0 => Step::End,
        PADDING => {
            *now = now.wrapping_add(delta);
            let next = at.checked_add(4)?.checked_add(second()? as usize)?;
            Step::Nothing(next)
        }
        TIME_EXTEND => {
            *now = now.wrapping_add(delta + (u64::from(second()?) << TIME_BITS));
            Step::Nothing(at + 8)
        }
        TIME_STAMP => {
            *now = (delta + (u64::from(second()?) << TIME_BITS)) & !TIME_TOP | (*now & TIME_TOP);
            Step::Nothing(at + 8)
        }
        words => {
            *now = now.wrapping_add(delta);
            // 0: the length, itself included, is in a word of its own.
            let (start, length) = match words {
                0 => (at + 8, (second()? as usize).checked_sub(4)?.checked_next_multiple_of(4)?),
                _ => (at + 4, 4 * words as usize),
            };
            let next = start.checked_add(length)?;
            Step::Event(data.get(start..next)?, next)
        }
    })
}

fn word32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn word64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(in crate::timeline) const LAYOUT: PageLayout = PageLayout { timestamp: 0, commit: 8, data: 16 };

    /// A page as the kernel writes it.
    pub(in crate::timeline) struct Writer {
        begin: u64,
        last: u64,
        data: Vec<u8>,
    }

    impl Writer {
        pub(in crate::timeline) fn new(begin: u64) -> Self {
            Self { begin, last: begin, data: Vec::new() }
        }

        fn head(&mut self, kind: u32, delta: u64) {
            assert!(delta < 1 << TIME_BITS);
            self.data.extend((kind | (delta as u32) << 5).to_le_bytes());
        }

        pub(in crate::timeline) fn event(&mut self, at: u64, bytes: &[u8]) {
            let mut delta = at - self.last;
            if delta >> TIME_BITS != 0 {
                self.head(TIME_EXTEND, delta & ((1 << TIME_BITS) - 1));
                self.data.extend(((delta >> TIME_BITS) as u32).to_le_bytes());
                delta = 0;
            }
            let words = bytes.len().div_ceil(4);
            if (1..=28).contains(&words) {
                self.head(words as u32, delta);
            } else {
                self.head(0, delta);
                self.data.extend((4 * words as u32 + 4).to_le_bytes());
            }
            self.data.extend(bytes);
            self.data.resize(self.data.len().next_multiple_of(4), 0);
            self.last = at;
        }

        pub(in crate::timeline) fn page(&self, missed: Option<Option<u64>>) -> Vec<u8> {
            let flags = match missed {
                None => 0,
                Some(None) => MISSED,
                Some(Some(_)) => MISSED | MISSED_STORED,
            };
            let mut page = self.begin.to_le_bytes().to_vec();
            page.extend((self.data.len() as u64 | flags).to_le_bytes());
            page.extend(&self.data);
            page.extend(missed.flatten().unwrap_or(0).to_le_bytes());
            page.resize(page.len().max(4096), 0);
            page
        }
    }

    #[test]
    fn padding_and_absolute_times_are_passed_over() {
        let mut writer = Writer::new(1 << 60 | 100);
        writer.event((1 << 60) + 150, b"one.");
        // An event of 8 bytes that was taken back: it has time, and a length.
        writer.head(PADDING, 7);
        writer.data.extend(8u32.to_le_bytes());
        writer.data.extend([0; 4]);
        writer.head(TIME_STAMP, 900);
        writer.data.extend(1u32.to_le_bytes());
        writer.head(1, 1);
        writer.data.extend(b"two.");
        writer.head(PADDING, 0);
        writer.data.extend([0xff; 8]);
        let page = writer.page(None);
        let found = read_page(LAYOUT, &page);
        let expected: [(u64, &[u8]); 2] =
            [((1 << 60) + 150, b"one."), (1 << 60 | ((1 << 27) + 901), b"two.")];
        assert_eq!(found.events, expected);
        assert_eq!((found.missed, found.broken_at), (None, None));
    }

    #[test]
    fn a_page_that_is_cut_or_broken_is_told_with_the_place() {
        let mut writer = Writer::new(0);
        writer.event(1, b"one.");
        writer.event(2, b"two.");
        let page = writer.page(None);
        assert_eq!(read_page(LAYOUT, &page[..12]).broken_at, Some(0));
        assert_eq!(read_page(LAYOUT, &page[..20]).broken_at, Some(8));
        let mut bad = page.clone();
        // 28 words, of which there is one.
        bad[24] = 28;
        let found = read_page(LAYOUT, &bad);
        assert_eq!((found.events.len(), found.broken_at), (1, Some(24)));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            begin in 0u64..1 << 58,
            events in proptest::collection::vec((0u64..1 << 40, proptest::collection::vec(any::<u8>(), 1..200)), 0..20),
            missed in proptest::option::of(proptest::option::of(any::<u64>())),
        ) {
            let (mut writer, mut at, mut expected) = (Writer::new(begin), begin, Vec::new());
            for (delta, bytes) in &events {
                at += delta;
                writer.event(at, bytes);
                let mut padded = bytes.clone();
                padded.resize(bytes.len().next_multiple_of(4), 0);
                expected.push((at, padded));
            }
            let page = writer.page(missed);
            let found = read_page(LAYOUT, &page);
            let seen: Vec<(u64, Vec<u8>)> = found.events.iter().map(|(at, bytes)| (*at, bytes.to_vec())).collect();
            prop_assert_eq!(seen, expected);
            prop_assert_eq!((found.missed, found.broken_at), (missed, None));
        }

        #[test]
        fn no_bytes_do_harm(page in proptest::collection::vec(any::<u8>(), 0..300)) {
            let found = read_page(LAYOUT, &page);
            prop_assert!(found.events.len() <= page.len() / 4);
        }
    }
}
