//! What is in a map, by bpf(2).

use crate::bpf::map_info;
use crate::sys::{self, lookup, next_key, open, thread};
use std::collections::BTreeSet;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// Bytes of keys and values read of one map.
const MAX_BYTES: u64 = 64 << 20;
/// Most possible CPUs of any kernel: `NR_CPUS` of the largest configuration.
const MAX_CPUS: u32 = 8192;

/// An entry's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LiveValue {
    /// One for all CPUs.
    Shared(Vec<u8>),
    /// One for each possible CPU.
    PerCpu(Vec<(u32, Vec<u8>)>),
    /// The ID of a program or a map.
    Id(u32),
}

/// An entry of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveEntry {
    /// Its key; of storage of tasks the thread id, 4 bytes.
    pub key: Vec<u8>,
    /// Its value.
    pub value: LiveValue,
}

/// What was read of a map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LiveContents {
    /// Its entries, in the kernel's order.
    pub entries: Vec<LiveEntry>,
    /// Whether a limit left entries out.
    pub truncated: bool,
}

/// How a kind of map is gone over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By index.
    Index { per_cpu: bool },
    /// By key after key.
    Keys { per_cpu: bool },
    /// By index or key, to the IDs of what stands there.
    Ids { index: bool },
    /// By thread.
    Threads,
}

/// The numbers are those of `enum bpf_map_type` (include/uapi/linux/bpf.h).
fn way(kind: u32) -> Option<Way> {
    Some(match kind {
        2 => Way::Index { per_cpu: false },
        6 => Way::Index { per_cpu: true },
        // HASH, STACK_TRACE, LRU_HASH, LPM_TRIE
        1 | 7 | 9 | 11 => Way::Keys { per_cpu: false },
        // PERCPU_HASH, LRU_PERCPU_HASH
        5 | 10 => Way::Keys { per_cpu: true },
        // PROG_ARRAY, ARRAY_OF_MAPS
        3 | 12 => Way::Ids { index: true },
        // HASH_OF_MAPS
        13 => Way::Ids { index: false },
        // TASK_STORAGE
        29 => Way::Threads,
        // STRUCT_OPS has one entry.
        26 => Way::Index { per_cpu: false },
        _ => return None,
    })
}

impl LiveContents {
    /// What is in the map of that ID, at most `most` entries; of a per-CPU map `most_per_cpu`. `None` for a kind of map
    /// whose contents no system call tells. The map may be in use: an entry's bytes may be of two writes, and one that
    /// comes or goes meanwhile may be seen or not.
    ///
    /// # Errors
    /// The kernel's; [`ErrorKind::NotFound`] when the map has gone.
    pub fn of(id: u32, most: usize, most_per_cpu: usize) -> Result<Option<Self>> {
        let map = open(sys::MAP_GET_FD_BY_ID, id)?.ok_or_else(|| Error::from(ErrorKind::NotFound))?;
        let shape = map_info(&map)?;
        let Some(way) = way(shape.kind) else { return Ok(None) };
        let per_cpu = matches!(way, Way::Index { per_cpu: true } | Way::Keys { per_cpu: true });
        let cpus =
            if per_cpu { possible_cpus(Path::new("/sys/devices/system/cpu/possible"))? } else { Vec::new() };
        let mut reader = Reader {
            map: &map,
            // Each CPU's copy begins at a multiple of 8 bytes.
            stride: if per_cpu {
                (shape.value_size as usize).next_multiple_of(8)
            } else {
                shape.value_size as usize
            },
            value_size: shape.value_size as usize,
            ids: matches!(way, Way::Ids { .. }),
            cpus,
            most: if per_cpu { most_per_cpu } else { most },
            left: MAX_BYTES,
            found: Self::default(),
        };
        match way {
            Way::Index { .. } | Way::Ids { index: true } => reader.by_index(shape.max_entries)?,
            Way::Keys { .. } | Way::Ids { index: false } => reader.by_keys(shape.key_size as usize)?,
            Way::Threads => reader.by_threads()?,
        }
        Ok(Some(reader.found))
    }
}

struct Reader<'a> {
    map: &'a OwnedFd,
    value_size: usize,
    stride: usize,
    /// Values are IDs.
    ids: bool,
    /// Possible CPUs of a per-CPU map.
    cpus: Vec<u32>,
    most: usize,
    left: u64,
    found: LiveContents,
}

impl Reader<'_> {
    fn by_index(&mut self, entries: u32) -> Result<()> {
        for index in 0..entries {
            let key = index.to_le_bytes().to_vec();
            if !self.take(key.clone(), &key)? {
                break;
            }
        }
        Ok(())
    }

    fn by_keys(&mut self, size: usize) -> Result<()> {
        let (mut last, mut seen): (Option<Vec<u8>>, BTreeSet<Vec<u8>>) = (None, BTreeSet::new());
        // After a key that was deleted the kernel begins anew: that must come to an end.
        for _ in 0..self.most.saturating_mul(4).saturating_add(16) {
            let mut next = vec![0; size];
            if next_key(self.map, last.as_deref(), &mut next)?.is_none() {
                return Ok(());
            }
            last = Some(next.clone());
            if seen.insert(next.clone()) && !self.take(next.clone(), &next)? {
                return Ok(());
            }
        }
        self.found.truncated = true;
        Ok(())
    }

    fn by_threads(&mut self) -> Result<()> {
        for tid in threads()? {
            let Some(fd) = thread(tid)? else { continue };
            let key = fd.as_raw_fd().to_le_bytes();
            if !self.take(tid.to_le_bytes().to_vec(), &key)? {
                break;
            }
        }
        Ok(())
    }

    /// Reads one entry, if it is there, and keeps it under `name`; false when it would be one too many.
    fn take(&mut self, name: Vec<u8>, key: &[u8]) -> Result<bool> {
        let bytes = self.stride.saturating_mul(self.cpus.len().max(1));
        let Some(left) = self.left.checked_sub((bytes as u64).saturating_add(name.len() as u64 + 64)) else {
            self.found.truncated = true;
            return Ok(false);
        };
        // The kernel writes an ID whatever the size says.
        let mut value = vec![0; bytes.max(4)];
        if !lookup(self.map, key, &mut value)? {
            return Ok(true);
        }
        if self.found.entries.len() >= self.most {
            self.found.truncated = true;
            return Ok(false);
        }
        self.left = left;
        let value = if self.ids {
            LiveValue::Id(u32::from_le_bytes([value[0], value[1], value[2], value[3]]))
        } else if self.cpus.is_empty() {
            value.truncate(self.value_size);
            LiveValue::Shared(value)
        } else {
            let copies =
                value.chunks(self.stride.max(1)).map(|copy| copy[..self.value_size.min(copy.len())].to_vec());
            LiveValue::PerCpu(self.cpus.iter().copied().zip(copies).collect())
        };
        self.found.entries.push(LiveEntry { key: name, value });
        Ok(true)
    }
}

/// All threads of the system, by number.
fn threads() -> Result<Vec<u32>> {
    let number = |name: std::ffi::OsString| name.to_str()?.parse::<u32>().ok();
    let mut found = BTreeSet::new();
    for process in std::fs::read_dir("/proc")?.filter_map(|entry| number(entry.ok()?.file_name())) {
        // One that has ended meanwhile has none.
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{process}/task")) else { continue };
        found.extend(tasks.filter_map(|entry| number(entry.ok()?.file_name())));
    }
    Ok(found.into_iter().collect())
}

/// A cpulist such as `0-3,8` (Documentation/admin-guide/cputopology.rst).
fn possible_cpus(path: &Path) -> Result<Vec<u32>> {
    let text = std::fs::read_to_string(path)?;
    let bad = || {
        Error::new(ErrorKind::InvalidData, format!("{} holds {text:?}, expected a cpulist", path.display()))
    };
    let mut found = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
        if last >= MAX_CPUS {
            return Err(bad());
        }
        found.extend(first..=last);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn possible_cpus_are_a_list() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("possible");
        let of = |text: &str| {
            std::fs::write(&path, text).unwrap();
            possible_cpus(&path)
        };
        assert_eq!(of("0-3,8\n").unwrap(), [0, 1, 2, 3, 8]);
        assert_eq!(of("0\n").unwrap(), [0]);
        for bad in ["", "x", "0-", "0-99999999"] {
            assert!(of(bad).unwrap_err().to_string().contains("expected a cpulist"), "{bad}");
        }
    }

    #[test]
    fn this_very_thread_is_among_all() {
        // SAFETY: a system call without pointers.
        let own = unsafe { libc::gettid() } as u32;
        assert!(threads().unwrap().contains(&own));
        assert!(thread(std::process::id()).unwrap().is_some());
        assert!(thread(u32::MAX >> 1).unwrap().is_none());
    }
}
