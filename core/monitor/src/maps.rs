//! What BPF maps hold, as text for people and as values for checks.

use crate::Value;
use serde::{Deserialize, Serialize};

/// A BPF map.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapState {
    /// Its ID, as `bpftool map` shows it.
    pub id: u64,
    /// Its name, at most 15 bytes.
    pub name: String,
    /// Its kind, such as `array`.
    pub kind: String,
    /// Bytes of a key.
    pub key_size: u64,
    /// Bytes of a value.
    pub value_size: u64,
    /// Most entries.
    pub max_entries: u64,
    /// Whether programs of the scheduler that the kernel has loaded use it: false for what is left of another.
    #[serde(default)]
    pub in_use: bool,
    /// The global variables in it, where it is a section of those.
    pub variables: Vec<VariableState>,
    /// How many more there were.
    pub more: usize,
    /// Its first entries, where it is none; of an array those that are not zero.
    #[serde(default)]
    pub entries: Vec<EntryState>,
    /// How many entries were looked at, those among them that are zero and left out.
    #[serde(default)]
    pub looked_at: usize,
    /// What an entry is worth that was looked at and left out, as all its bytes are zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zero: Option<EntryValue>,
    /// Whether there were more than were looked at.
    #[serde(default)]
    pub truncated: bool,
    /// How far a ring buffer was written and read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring: Option<RingState>,
    /// An arena's pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arena: Option<ArenaState>,
    /// What allocators of sched_ext's BPF library have given out whose variables it holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allocators: Vec<AllocatorState>,
    /// What else there is to say of its contents: how full it is, or why they are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl MapState {
    /// Whether it holds what a program can't change (`.rodata`).
    pub fn is_constant(&self) -> bool {
        self.name.contains(".rodata")
    }
}

/// An entry of a BPF map.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryState {
    /// For people, of the first entries of a map; else empty. Its key as its type says; of local storage whose it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// Likewise its value; on each CPU where they have one each; a program, map or cgroup by name and ID; a stack
    /// trace by its functions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// Its key by its type; of storage of tasks `pid` and `comm` of the owner, of other storage the owner's address.
    #[serde(default)]
    pub typed_key: Value,
    /// Its value by its type.
    #[serde(default)]
    pub typed: EntryValue,
}

/// An entry's value: one for all CPUs, or one each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryValue {
    /// One for all; of a stack trace the functions, innermost first; of what stands for a program, map or cgroup its
    /// `id` and `name`.
    Shared(Value),
    /// By possible CPU, ascending.
    PerCpu(Vec<(u32, Value)>),
}

impl Default for EntryValue {
    fn default() -> Self {
        Self::Shared(Value::Absent)
    }
}

/// A global variable of a BPF program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VariableState {
    /// Its name.
    pub name: String,
    /// Its value as its type says, in C's way and cut short.
    pub value: String,
    /// The same by its type.
    #[serde(default)]
    pub typed: Value,
}

/// What an allocator of sched_ext's BPF library (`struct scx_allocator`) has given out of its program's arena.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocatorState {
    /// Its variable, such as `scx_task_allocator`.
    pub name: String,
    /// Bytes of an element that are the program's.
    pub payload_size: u64,
    /// The struct that its elements are, where one is known.
    pub payload_type: Option<String>,
    /// How that is known, or why it isn't, or why there are no elements.
    pub note: String,
    /// The elements in use, by index.
    pub elements: Vec<ElementState>,
    /// Whether there were more than were looked at.
    pub truncated: bool,
    /// Elements that were freed while they were read, have no memory yet, or can't be read.
    #[serde(default)]
    pub passed_over: usize,
}

/// An element of an allocator that is in use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElementState {
    /// Its index, which it keeps as long as it is in use.
    pub index: u64,
    /// How often its place was freed before.
    pub generation: u64,
    /// Its address in user space; programs use the low 32 bits.
    pub user: u64,
    /// Whether the library's part of it names another place: it was just given out, or the program has written past its
    /// own part.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub misplaced: bool,
    /// For people, of the first elements: its value as its type says, else its bytes, cut short.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// The same by its type; without one a number or a list of bytes.
    #[serde(default)]
    pub typed: Value,
}

/// How far a ring buffer was written and read, bytes since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingState {
    /// Written by programs.
    pub producer: u64,
    /// Read by user space.
    pub consumer: u64,
    /// Its size.
    pub size: u64,
}

impl RingState {
    /// Bytes written and not read.
    pub const fn waiting(&self) -> u64 {
        self.producer.saturating_sub(self.consumer)
    }
}

/// An arena: memory that a program and user space share.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArenaState {
    /// Where user space has it; 0 when it isn't mapped there.
    pub user_start: u64,
    /// Pages that exist, by address.
    pub pages: Vec<ArenaPage>,
    /// Whether there were more.
    pub truncated: bool,
}

/// A page of an arena.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArenaPage {
    /// Its address in user space; programs use the low 32 bits.
    pub user: u64,
    /// Its bytes up to the last that is not zero: none of a page of zeros.
    #[serde(with = "hexadecimal")]
    pub bytes: Vec<u8>,
}

impl ArenaPage {
    /// Bytes of a page.
    pub const SIZE: u64 = 4096;

    /// Of a page with these bytes.
    pub fn new(user: u64, mut bytes: Vec<u8>) -> Self {
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        bytes.truncate(end);
        bytes.shrink_to_fit();
        Self { user, bytes }
    }
}

impl ArenaState {
    /// The bytes at an address that a program or user space has of it: all 64 bits or the low half. `None` where a page
    /// is not there.
    pub fn bytes(&self, address: u64, count: usize) -> Option<Vec<u8>> {
        let byte = |at: u64| {
            let at = at as u32;
            let page =
                self.pages.iter().find(|page| page.user as u32 == at & !(ArenaPage::SIZE as u32 - 1))?;
            Some(page.bytes.get((u64::from(at) % ArenaPage::SIZE) as usize).copied().unwrap_or(0))
        };
        (0..count as u64).map(|distance| byte(address.wrapping_add(distance))).collect()
    }

    /// The 8-byte number there.
    pub fn u64_at(&self, address: u64) -> Option<u64> {
        self.bytes(address, 8)?.try_into().ok().map(u64::from_le_bytes)
    }
}

/// Bytes as two digits each.
mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::fmt::Write;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(2 * bytes.len());
        for byte in bytes {
            let _ = write!(text, "{byte:02x}");
        }
        to.serialize_str(&text)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        let digits = |pair: &[u8]| {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
            u8::from_str_radix(pair, 16).ok()
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(digits).collect();
        bytes.ok_or_else(|| D::Error::custom("expected two hexadecimal digits a byte"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_kept_up_to_its_last_byte_and_read_beyond() {
        let mut bytes = vec![0; 4096];
        bytes[8] = 0x34;
        bytes[9] = 0x12;
        let page = ArenaPage::new(0x7000_0000_1000, bytes);
        assert_eq!(page.bytes.len(), 10);
        let arena = ArenaState {
            user_start: 0x7000_0000_0000,
            pages: vec![page, ArenaPage::new(0x7000_0000_2000, vec![0; 4096])],
            truncated: false,
        };
        assert_eq!(arena.u64_at(0x7000_0000_1008), Some(0x1234));
        assert_eq!(arena.u64_at(0x1008), Some(0x1234), "a program's own pointer");
        assert_eq!(arena.u64_at(0x1ffc), Some(0), "over the edge of two pages");
        assert_eq!((arena.u64_at(0x2ffc), arena.u64_at(0)), (None, None));
        let json = serde_json::to_string(&arena).unwrap();
        assert!(json.contains("\"bytes\":\"00000000000000003412\""), "{json}");
        assert_eq!(serde_json::from_str::<ArenaState>(&json).unwrap(), arena);
        for bad in ["\"0\"", "\"0g\"", "\"é\""] {
            let json = format!("{{\"user\":0,\"bytes\":{bad}}}");
            assert!(serde_json::from_str::<ArenaPage>(&json).is_err(), "{bad}");
        }
    }

    /// A failure dump's members stand at its top, which serde reads by way of a buffer.
    #[test]
    fn typed_values_come_back_out_of_a_failure_dump() {
        let each = EntryValue::PerCpu(vec![(0, Value::Unsigned(1)), (3, Value::Signed(-1))]);
        let of_task = Value::Fields([("pid".to_string(), Value::Unsigned(7))].into());
        let map = MapState {
            entries: vec![EntryState { typed_key: of_task, typed: each, ..EntryState::default() }],
            zero: Some(EntryValue::default()),
            ..MapState::default()
        };
        let scx = crate::SchedExtState { maps: vec![map], ..crate::SchedExtState::default() };
        let state = crate::KernelState { sched_ext: Some(scx), ..crate::KernelState::default() };
        let dump = crate::FailureDump::new(state, None, "reset".into(), 1);
        let json = serde_json::to_string(&dump).unwrap();
        assert_eq!(serde_json::from_str::<crate::FailureDump>(&json).unwrap(), dump);
    }
}
