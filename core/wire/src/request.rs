//! What a guest asks its host to do, and the answer.
//!
//! The request is a [`Message`](crate::Message). Its answer does not come as one: the host writes it
//! into a page of the guest's memory, so that no device wakes the guest at a time of the host's choosing.
//!
//! | bytes | field |
//! |---|---|
//! | 0..8 | the answered request's id; written last |
//! | 8..16 | 0 done, 1 refused |
//! | 16..24 | a value, where one was asked for |
//! | 24..32 | bytes of text |
//! | 32.. | the text, UTF-8, at most [`MAX_ANSWER_TEXT`] |
//!
//! All numbers are little-endian.

use serde::{Deserialize, Serialize};

/// Bytes of text that an answer has room for.
pub const MAX_ANSWER_TEXT: usize = 1024;
/// Bytes of a whole answer.
pub const ANSWER_LEN: usize = TEXT_AT + MAX_ANSWER_TEXT;
/// Bytes before the fields that [`Answer::body`] makes: the id.
pub const ANSWER_BODY_AT: usize = 8;
const TEXT_AT: usize = 32;

/// Something that the guest asks for, and waits until it was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// From 1, one more for each.
    pub id: u64,
    /// Guest-physical address that the answer goes to.
    pub answer_at: u64,
    /// Milliseconds of guest time since the test began.
    pub elapsed_ms: u64,
    /// Which step, from 1; 0 is the time before the first.
    pub step: u16,
    /// What it asks for.
    pub call: Call,
}

/// What is asked for. Numbered by position on the wire: add at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Call {
    /// Capture the kernel's state, all vCPUs standing still, and keep it under a name.
    Capture {
        /// The name.
        name: String,
        /// Whether it is one of a series taken by the clock.
        periodic: bool,
    },
    /// The workload is about to end: what the kernel looks like now may be needed.
    WorkloadEnds,
    /// Read kernel memory and keep the value under a name.
    ReadKernel {
        /// The name.
        tag: String,
        /// Such as `runqueues[0].nr_running`.
        path: String,
        /// Whether all vCPUs stand still meanwhile.
        frozen: bool,
    },
    /// Write a number of kernel memory.
    WriteKernel {
        /// Such as `sysctl_sched_base_slice`.
        path: String,
        /// The number.
        value: u64,
        /// Whether all vCPUs stand still meanwhile.
        frozen: bool,
    },
    /// Capture the kernel's state whenever a variable is written, and keep the last under its name.
    Watch {
        /// The variable.
        symbol: String,
    },
    /// Keep these process ids under a name.
    KeepPids {
        /// The name.
        tag: String,
        /// The ids.
        pids: Vec<i32>,
    },
    /// Something went wrong: what the kernel looks like now will be wanted.
    LastLook {
        /// As in "when the test panicked".
        when: String,
    },
    /// Sample the runqueues at this instant, which the guest has chosen.
    Sample {
        /// The thread that asks, which is there for nothing else: its id.
        tid: i32,
        /// How often it has left a CPU so far (`getrusage(2)`, voluntarily or not).
        switches: u64,
    },
}

/// What the host answered: a value (0 where none was asked for), or why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer(pub Result<u64, String>);

impl Answer {
    /// All bytes but the id, which is to be written after them. A long text is cut.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let (refused, value, text) = match &self.0 {
            Ok(value) => (0u64, *value, ""),
            Err(text) => (1, 0, text.as_str()),
        };
        let text = &text[..text.floor_char_boundary(MAX_ANSWER_TEXT)];
        let numbers = [refused, value, text.len() as u64];
        let mut bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        bytes.extend_from_slice(text.as_bytes());
        bytes
    }

    /// The answer to request `id`, once it is in `page`.
    #[must_use]
    pub fn find(page: &[u8; ANSWER_LEN], id: u64) -> Option<Self> {
        let number =
            |at: usize| page[at..at + 8].iter().rev().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
        if number(0) != id {
            return None;
        }
        let text = &page[TEXT_AT..TEXT_AT + (number(24) as usize).min(MAX_ANSWER_TEXT)];
        Some(Self(match number(8) {
            0 => Ok(number(16)),
            _ => Err(String::from_utf8_lossy(text).into_owned()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn page(id: u64, answer: &Answer) -> [u8; ANSWER_LEN] {
        let mut page = [0xaa; ANSWER_LEN];
        let body = answer.body();
        page[ANSWER_BODY_AT..ANSWER_BODY_AT + body.len()].copy_from_slice(&body);
        page[..8].copy_from_slice(&id.to_le_bytes());
        page
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let long = Answer(Err("é".repeat(MAX_ANSWER_TEXT)));
        let Some(Answer(Err(text))) = Answer::find(&page(1, &long), 1) else { panic!("refused") };
        assert_eq!(text, "é".repeat(MAX_ANSWER_TEXT / 2));
        let odd = Answer(Err("a".to_string() + &"é".repeat(MAX_ANSWER_TEXT)));
        let Some(Answer(Err(text))) = Answer::find(&page(1, &odd), 1) else { panic!("refused") };
        assert_eq!(text.len(), MAX_ANSWER_TEXT - 1);
    }

    proptest! {
        #[test]
        fn answers_survive_the_page(id: u64, value: u64, text in ".{0,80}") {
            for answer in [Answer(Ok(value)), Answer(Err(text))] {
                let page = page(id, &answer);
                prop_assert_eq!(Answer::find(&page, id), Some(answer));
                prop_assert_eq!(Answer::find(&page, id.wrapping_add(1)), None);
            }
        }

        #[test]
        fn any_page_can_be_looked_at(bytes in prop::collection::vec(any::<u8>(), ANSWER_LEN)) {
            let page: [u8; ANSWER_LEN] = bytes.try_into().unwrap();
            let id = u64::from_le_bytes(page[..8].try_into().unwrap());
            prop_assert!(Answer::find(&page, id).is_some());
        }
    }
}
