//! The file with everything of a saved machine but its RAM.
//!
//! ```text
//!  0  magic number, 8 bytes
//!  8  version of all that follows, 4 bytes; all numbers are little-endian
//! 12  CRC-32 of the content, 4 bytes
//! 16  length of the content, 8 bytes
//! 24  the content: postcard
//! ```

use crate::arch::{Clocks, PlatformState};
use ktstr_vmm_devices::SerialState;
use ktstr_vmm_devices::virtio::{BlockState, ConsoleState, MmioState};
use ktstr_vmm_vcpu::VcpuState;
use serde::{Deserialize, Serialize};

const MAGIC: [u8; 8] = *b"KTSTRVM\0";
/// Counts up with every change of the content or of what it means.
pub(crate) const VERSION: u32 = 4;
const HEADER: usize = 24;
/// Far more than the largest machine takes: 16 KiB a vCPU.
pub(crate) const MOST: u64 = 256 << 20;

/// Everything but RAM.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MachineState {
    /// Bytes of each NUMA node.
    pub(crate) node_bytes: Vec<u64>,
    pub(crate) vcpus: Vec<VcpuState>,
    pub(crate) platform: PlatformState,
    pub(crate) clocks: Clocks,
    pub(crate) devices: DeviceStates,
}

/// The devices that this monitor models. The power registers have no state.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DeviceStates {
    pub(crate) serial: [SerialState; 2],
    pub(crate) transport: MmioState,
    pub(crate) console: ConsoleState,
    pub(crate) disks: Vec<DiskState>,
}

/// A disk with its registers and queue.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DiskState {
    pub(crate) transport: MmioState,
    pub(crate) disk: BlockState,
}

pub(crate) fn encode(state: &MachineState) -> Result<Vec<u8>, String> {
    let content = postcard::to_allocvec(state).map_err(|e| format!("encoding its state: {e}"))?;
    let mut bytes = Vec::with_capacity(HEADER + content.len());
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(crc32fast::hash(&content).to_le_bytes());
    bytes.extend((content.len() as u64).to_le_bytes());
    bytes.extend(content);
    Ok(bytes)
}

/// Reads what [`encode`] wrote; the error says what else it is.
pub(crate) fn decode(bytes: &[u8]) -> Result<MachineState, String> {
    let content = content(bytes)?;
    match postcard::take_from_bytes(content) {
        Ok((state, [])) => Ok(state),
        Ok((_, rest)) => Err(format!("its state has {} bytes too many", rest.len())),
        Err(e) => Err(format!("its state can't be decoded: {e}")),
    }
}

fn content(bytes: &[u8]) -> Result<&[u8], String> {
    let Some((header, content)) = bytes.split_first_chunk::<HEADER>() else {
        return Err(format!("its state has {} bytes, fewer than a header", bytes.len()));
    };
    let [magic, rest @ ..] = header.as_chunks::<8>().0 else { return Err("no header".to_string()) };
    if *magic != MAGIC {
        return Err("its state begins with no such file's magic number".to_string());
    }
    let [version_and_sum, length] = rest.first_chunk::<2>().copied().unwrap_or_default();
    let version = u64::from_le_bytes(version_and_sum) as u32;
    if version != VERSION {
        return Err(format!("its state has version {version}, expected {VERSION}: save it anew"));
    }
    let length = u64::from_le_bytes(length);
    if length != content.len() as u64 {
        return Err(format!("its state has {} bytes, expected {length}", content.len()));
    }
    let (told, sum) = ((u64::from_le_bytes(version_and_sum) >> 32) as u32, crc32fast::hash(content));
    if told != sum {
        return Err(format!("its state sums up to {sum:#010x}, expected {told:#010x}: it was changed"));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(content: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(crc32fast::hash(content).to_le_bytes());
        bytes.extend((content.len() as u64).to_le_bytes());
        bytes.extend(content);
        bytes
    }

    #[test]
    fn another_version_says_which() {
        let mut bytes = file(b"abc");
        bytes[8] = VERSION as u8 + 1;
        let told = format!("version {}, expected {VERSION}", VERSION + 1);
        assert!(content(&bytes).unwrap_err().contains(&told));
    }

    proptest! {
        #[test]
        fn a_changed_or_truncated_file_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), bit in any::<prop::sample::Index>()) {
            let whole = file(&bytes);
            prop_assert_eq!(content(&whole).unwrap(), &bytes[..]);
            let mut flipped = whole.clone();
            let bit = bit.index(whole.len() * 8);
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(content(&flipped).is_err());
            prop_assert!(content(&whole[..bit / 8]).is_err());
        }

        #[test]
        fn content_that_is_none_is_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert!(decode(&file(&bytes)).is_err());
            prop_assert!(decode(&bytes).is_err());
        }
    }
}
