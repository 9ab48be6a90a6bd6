//! Values out of bytes, with a leaning to those that do harm.

/// RAM of the machine, small so that addresses meet each other.
pub(crate) const RAM: u64 = 1 << 20;

/// Bytes not read yet.
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl Cursor<'_> {
    /// The next `N` bytes; `None` at the end.
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    /// The next byte.
    pub(crate) fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    /// The next two bytes.
    pub(crate) fn short(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    /// The next four bytes.
    pub(crate) fn word(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    /// Up to `most` bytes.
    pub(crate) fn some(&mut self, most: usize) -> Vec<u8> {
        let (first, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        first.to_vec()
    }

    /// A guest-physical address: in RAM, at its end, past it, in a ring, at the end of what 64 bits can say.
    pub(crate) fn address(&mut self, ring: impl Fn(u64) -> u64) -> Option<u64> {
        let [kind, a, b, c] = self.take()?;
        let value = u64::from(u32::from_le_bytes([a, b, c, 0]));
        Some(match kind % 8 {
            0..=2 => value % RAM,
            3 => RAM - 8 + value % 16,
            4 => u64::MAX - value % 64,
            5 => (1 << 32) - 8 + value % 16,
            6 => value << 40 | value,
            _ => ring(value % 8) + (value >> 8) % 0x1000,
        })
    }

    /// The length of a buffer: none, a little, a page, a gigabyte, 4 GiB less one.
    pub(crate) fn length(&mut self) -> Option<u32> {
        let [kind, a, b] = self.take()?;
        let value = u32::from(u16::from_le_bytes([a, b]));
        Some(match kind % 8 {
            0 => 0,
            1 => u32::MAX - value % 16,
            2 => value << 16,
            3 => 1 << (value % 32),
            4 => 16,
            5 => 512 * (value % 64),
            _ => value,
        })
    }
}
