//! Physical memory in a file: guest RAM that a hypervisor shares, or the loaded parts of a core.

use std::path::Path;
use std::sync::Arc;

use crate::{MapError, Mapping, MemoryFault, PhysAddr, PhysRange, PhysicalMemory};

/// Where a stretch of physical memory lies in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// First guest-physical address.
    pub physical: PhysAddr,
    /// Offset of its first byte in the file.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

/// A memory image couldn't be laid out.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file couldn't be mapped.
    #[error(transparent)]
    Map(#[from] MapError),
    /// A segment goes past the file's end or the address space's.
    #[error(
        "memory segment {segment:?} doesn't fit a file of {length} bytes: the image is cut short or its layout wrong"
    )]
    Beyond {
        /// The offending segment.
        segment: Segment,
        /// The file's length.
        length: u64,
    },
    /// Two segments claim one address.
    #[error("memory segments {first:?} and {second:?} overlap in physical memory")]
    Overlap {
        /// The lower segment.
        first: Segment,
        /// The segment that starts inside it.
        second: Segment,
    },
}

/// Physical memory in a mapped file, live or not.
#[derive(Debug, Clone)]
pub struct RawImage {
    mapping: Arc<Mapping>,
    segments: Vec<Segment>,
    ranges: Vec<PhysRange>,
}

impl RawImage {
    /// A file whose byte 0 is physical address 0: RAM below the first hole, on most machines.
    ///
    /// # Errors
    /// [`ImageError::Map`] when the file can't be mapped.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let mapping = Mapping::open(path)?;
        let length = mapping.len() as u64;
        Self::with_segments(Arc::new(mapping), vec![Segment { physical: PhysAddr(0), offset: 0, length }])
    }

    /// A mapped file with the given layout, for instance RAM split around the PCI hole. Segments may come in any
    /// order; empty ones are dropped.
    ///
    /// # Errors
    /// [`ImageError::Beyond`] or [`ImageError::Overlap`] when the layout isn't one of this file.
    pub fn with_segments(mapping: Arc<Mapping>, mut segments: Vec<Segment>) -> Result<Self, ImageError> {
        let length = mapping.len() as u64;
        segments.retain(|segment| segment.length > 0);
        segments.sort_by_key(|segment| segment.physical);
        for segment in &segments {
            let in_file = segment.offset.checked_add(segment.length).is_some_and(|end| end <= length);
            if !in_file || segment.physical.checked_add(segment.length).is_none() {
                return Err(ImageError::Beyond { segment: *segment, length });
            }
        }
        for pair in segments.windows(2) {
            if pair[1].physical.0 - pair[0].physical.0 < pair[0].length {
                return Err(ImageError::Overlap { first: pair[0], second: pair[1] });
            }
        }
        let ranges = segments.iter().map(|s| PhysRange { start: s.physical, length: s.length }).collect();
        Ok(Self { mapping, segments, ranges })
    }

    #[inline]
    fn segment(&self, at: PhysAddr) -> Option<&Segment> {
        let after = self.segments.partition_point(|segment| segment.physical <= at);
        self.segments.get(after.checked_sub(1)?).filter(|segment| at.0 - segment.physical.0 < segment.length)
    }
}

impl PhysicalMemory for RawImage {
    #[inline]
    fn read(&self, at: PhysAddr, into: &mut [u8]) -> Result<(), MemoryFault> {
        let mut done = 0;
        while done < into.len() {
            let length = into.len() - done;
            let fault = MemoryFault { address: PhysAddr(at.0.wrapping_add(done as u64)), length };
            let address = at.checked_add(done as u64).ok_or(fault)?;
            let segment = self.segment(address).ok_or(fault)?;
            let inside = address.0 - segment.physical.0;
            let part = usize::try_from(segment.length - inside).unwrap_or(usize::MAX).min(length);
            if !self.mapping.copy(segment.offset + inside, &mut into[done..done + part]) {
                return Err(fault);
            }
            done += part;
        }
        Ok(())
    }

    fn ranges(&self) -> &[PhysRange] {
        &self.ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(bytes: &[u8]) -> (tempfile::NamedTempFile, Arc<Mapping>) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let mapping = Arc::new(Mapping::open(file.path()).unwrap());
        (file, mapping)
    }

    #[test]
    fn ram_split_around_a_hole_reads_on_both_sides_and_faults_inside() {
        let bytes: Vec<u8> = (0..=255).collect();
        let (_file, mapping) = file(&bytes);
        let low = Segment { physical: PhysAddr(0), offset: 0, length: 128 };
        let high = Segment { physical: PhysAddr(1 << 32), offset: 128, length: 128 };
        let image = RawImage::with_segments(mapping, vec![high, low]).unwrap();
        assert_eq!(image.read_u64(PhysAddr(1 << 32)).unwrap().to_le_bytes()[0], 128);
        let mut four = [0; 4];
        image.read(PhysAddr(3), &mut four).unwrap();
        assert_eq!(four, [3, 4, 5, 6]);
        let fault = image.read(PhysAddr(126), &mut four).unwrap_err();
        assert_eq!(fault, MemoryFault { address: PhysAddr(128), length: 2 });
    }

    #[test]
    fn a_layout_that_isnt_the_files_is_refused() {
        let (_file, mapping) = file(&[0; 64]);
        let beyond = Segment { physical: PhysAddr(0), offset: 32, length: 33 };
        assert!(matches!(
            RawImage::with_segments(mapping.clone(), vec![beyond]),
            Err(ImageError::Beyond { length: 64, .. })
        ));
        let one = Segment { physical: PhysAddr(0), offset: 0, length: 32 };
        let two = Segment { physical: PhysAddr(31), offset: 32, length: 32 };
        assert!(matches!(RawImage::with_segments(mapping, vec![two, one]), Err(ImageError::Overlap { .. })));
    }

    #[test]
    fn an_empty_file_is_said_to_be_empty() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(Mapping::open(file.path()), Err(MapError::Empty { .. })));
    }
}
