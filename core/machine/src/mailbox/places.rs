//! Where the pages of a mailbox lie: found in the memory of a machine that is saved, kept
//! with it, and used when a copy is resumed.
//!
//! A place is a number that the hypervisor chooses; that of the page behind one is one more.

use super::PAGE;
use std::ops::Range;

/// A mailbox that isn't whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacesError {
    /// A mark past its end.
    #[error("a mark of page {mark} in a mailbox of {pages} pages")]
    Outside {
        /// The page's number by its mark.
        mark: u64,
        /// Pages of the mailbox.
        pages: usize,
    },
    /// Two pages with one number.
    #[error("page {0} of the mailbox is in two places")]
    Twice(u64),
    /// A page that was not found.
    #[error("page {0} of the mailbox is nowhere in RAM")]
    Nowhere(usize),
    /// A list of places that is none.
    #[error("the list of the mailbox's places has {0} bytes, which is no number of places")]
    Torn(usize),
}

/// Places found so far, by the page's number.
#[derive(Debug)]
pub struct Places(Vec<Option<u64>>);

impl Places {
    /// None yet, of a mailbox of so many pages.
    pub fn new(pages: u64) -> Self {
        Self(vec![None; usize::try_from(pages).unwrap_or(0)])
    }

    /// The page with that mark is there.
    ///
    /// # Errors
    /// A mark that can't be, or that was seen before.
    pub fn found(&mut self, mark: u64, place: u64) -> Result<(), PlacesError> {
        let pages = self.0.len();
        match usize::try_from(mark).ok().and_then(|m| self.0.get_mut(m)) {
            None => Err(PlacesError::Outside { mark, pages }),
            Some(Some(_)) => Err(PlacesError::Twice(mark)),
            Some(empty) => {
                *empty = Some(place);
                Ok(())
            }
        }
    }

    /// A little-endian number of eight bytes each, in the order of the pages.
    ///
    /// # Errors
    /// A page that was not found.
    pub fn encode(&self) -> Result<Vec<u8>, PlacesError> {
        let mut bytes = Vec::with_capacity(self.0.len() * 8);
        for (number, place) in self.0.iter().enumerate() {
            bytes.extend_from_slice(&place.ok_or(PlacesError::Nowhere(number))?.to_le_bytes());
        }
        Ok(bytes)
    }
}

/// The places in what [`Places::encode`] has written.
///
/// # Errors
/// A length that is none of such a list.
pub fn decode(bytes: &[u8]) -> Result<Vec<u64>, PlacesError> {
    match bytes.as_chunks::<8>() {
        (places, []) => Ok(places.iter().map(|place| u64::from_le_bytes(*place)).collect()),
        _ => Err(PlacesError::Torn(bytes.len())),
    }
}

/// What goes where when `bytes` bytes are written to the mailbox's pages from `first` on:
/// the place of a run's first page, and which of the bytes they are. What has no place in
/// the mailbox is in no run.
pub fn runs(places: &[u64], first: u64, bytes: usize) -> Vec<(u64, Range<usize>)> {
    let places = usize::try_from(first).ok().and_then(|first| places.get(first..)).unwrap_or_default();
    let mut runs: Vec<(u64, Range<usize>)> = Vec::new();
    for (number, place) in places.iter().take(bytes.div_ceil(PAGE)).enumerate() {
        let part = number * PAGE..bytes.min((number + 1) * PAGE);
        match runs.last_mut() {
            Some((start, run)) if start.checked_add((run.len() / PAGE) as u64) == Some(*place) => {
                run.end = part.end;
            }
            _ => runs.push((*place, part)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_a_whole_mailbox_is_encoded() {
        let mut places = Places::new(2);
        places.found(1, 7).unwrap();
        assert_eq!(places.found(2, 8), Err(PlacesError::Outside { mark: 2, pages: 2 }));
        assert_eq!(places.found(1, 9), Err(PlacesError::Twice(1)));
        assert_eq!(places.encode(), Err(PlacesError::Nowhere(0)));
        places.found(0, 3).unwrap();
        assert_eq!(decode(&places.encode().unwrap()), Ok(vec![3, 7]));
        assert_eq!(decode(&[0; 9]), Err(PlacesError::Torn(9)));
    }

    #[test]
    fn what_is_adjacent_is_one_run() {
        let places = [4, 5, 9, 10, 11, u64::MAX, 0];
        assert_eq!(runs(&places, 0, 3 * PAGE - 1), [(4, 0..2 * PAGE), (9, 2 * PAGE..3 * PAGE - 1)]);
        assert_eq!(
            runs(&places, 4, 3 * PAGE),
            [(11, 0..PAGE), (u64::MAX, PAGE..2 * PAGE), (0, 2 * PAGE..3 * PAGE)]
        );
        assert_eq!(runs(&places, 6, 2 * PAGE), [(0, 0..PAGE)]);
        assert!(runs(&places, 7, PAGE).is_empty() && runs(&places, 0, 0).is_empty());
    }

    proptest! {
        #[test]
        fn every_byte_goes_to_its_page(places in prop::collection::vec(0u64..20, 0..30), first in 0u64..30, bytes in 0usize..30 * PAGE) {
            let mut at = 0;
            for (place, part) in runs(&places, first, bytes) {
                prop_assert_eq!(part.start, at);
                for (n, offset) in part.clone().step_by(PAGE).enumerate() {
                    prop_assert_eq!(places[first as usize + offset / PAGE], place + n as u64);
                }
                at = part.end;
            }
            let room = places.len().saturating_sub(first as usize) * PAGE;
            prop_assert_eq!(at, bytes.min(room));
        }
    }
}
