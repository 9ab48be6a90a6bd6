//! Bytes that don't change: held here, or part of a mapped file that nobody writes.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::Mapping;

/// Shared bytes that don't change. Cloning shares them.
#[derive(Clone)]
pub struct StableBytes {
    owner: Owner,
    range: Range<usize>,
}

#[derive(Clone)]
enum Owner {
    Held(Arc<[u8]>),
    File(Arc<Mapping>),
}

impl StableBytes {
    /// Part of a file that nobody writes; nothing when the range isn't inside it.
    #[must_use]
    pub fn of_file(file: &Arc<Mapping>, range: Range<usize>) -> Option<Self> {
        let inside = range.start <= range.end && range.end <= file.len();
        inside.then(|| Self { owner: Owner::File(file.clone()), range })
    }

    /// Little-endian words as bytes, for [`StableBytes::word`].
    #[must_use]
    pub fn of_words(words: &[u32]) -> Self {
        words.iter().map(|word| word.to_le_bytes()).collect::<Vec<_>>().into_flattened().into()
    }

    /// The little-endian 32-bit word number `index`.
    #[inline]
    #[must_use]
    pub fn word(&self, index: usize) -> Option<u32> {
        let at = index.checked_mul(4)?;
        self.get(at..)?.first_chunk().map(|word| u32::from_le_bytes(*word))
    }

    /// How many whole 32-bit words they are.
    #[must_use]
    pub fn words(&self) -> usize {
        self.len() / 4
    }
}

impl Deref for StableBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        let all = match &self.owner {
            Owner::Held(bytes) => bytes,
            Owner::File(file) => file.stable_bytes(),
        };
        // The range was checked when it was made.
        all.get(self.range.clone()).unwrap_or(&[])
    }
}

impl From<Arc<[u8]>> for StableBytes {
    fn from(bytes: Arc<[u8]>) -> Self {
        Self { range: 0..bytes.len(), owner: Owner::Held(bytes) }
    }
}

impl From<Vec<u8>> for StableBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Arc::<[u8]>::from(bytes).into()
    }
}

impl From<&[u8]> for StableBytes {
    fn from(bytes: &[u8]) -> Self {
        Arc::<[u8]>::from(bytes).into()
    }
}

impl fmt::Debug for StableBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StableBytes({} bytes)", self.range.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn words_and_parts_come_from_either_owner() {
        let held = StableBytes::of_words(&[7, 0x0102_0304]);
        assert_eq!((held.words(), held.word(1), held.word(2)), (2, Some(0x0102_0304), None));
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&held).unwrap();
        let mapping = Arc::new(Mapping::open(file.path()).unwrap());
        let part = StableBytes::of_file(&mapping, 4..8).unwrap();
        assert_eq!(part.word(0), Some(0x0102_0304));
        assert!(StableBytes::of_file(&mapping, 4..9).is_none());
        assert_eq!(held.word(usize::MAX), None);
    }
}
