//! The mailbox: how a machine that was saved gets its work when it is resumed.
//!
//! The boot init of a saved machine holds some pages of its own memory, each with a
//! mark, and stops the machine. Whoever saves it finds the pages by their marks;
//! whoever resumes a copy writes the work over them before the first instruction
//! runs. No device is involved, so nothing arrives at a time of the host's choosing.
//!
//! A filled mailbox holds, each from a page of its own: the program that becomes
//! `/init`, a cpio archive to unpack over the root file system, and in the last page
//! the header ([`layout`]).

mod fill;
pub mod layout;
pub mod places;

pub use fill::{Addressee, fill};

use crate::Blob;
use layout::{
    ARCHIVE_AT, ARCHIVE_BYTES_AT, ENTROPY_AT, ENTROPY_BYTES, FLAGS_AT, HEADER_BYTES, MAGIC, MARK, NANOS_AT,
    PAGE, PROGRAM_BYTES_AT, SECONDS_AT, SET_CLOCK, SUM_AT, sum,
};
use std::time::Duration;

/// Mailboxes come in multiples of this, so that binaries of about the same size share
/// a template.
const STEP_PAGES: u64 = (16 << 20) / PAGE as u64;

/// What a resumed machine is told besides the archive to unpack.
#[derive(Debug, Clone)]
pub struct Wake {
    /// The program that becomes `/init`, in parts that are concatenated. The mailbox lies
    /// in the guest's page cache, so it is there without being copied once more.
    pub init: Vec<Blob>,
    /// The wall clock: time since the Unix epoch; `None` leaves the saved one.
    pub clock: Option<Duration>,
    /// For its random number generator.
    pub entropy: [u8; ENTROPY_BYTES],
}

/// Pages of a mailbox that takes a program and an archive of so many bytes.
pub fn pages_for(program_bytes: u64, archive_bytes: u64) -> u64 {
    (archive_page(program_bytes) + pages(archive_bytes) + 1).next_multiple_of(STEP_PAGES)
}

/// The page where the archive begins, behind the program.
pub fn archive_page(program_bytes: u64) -> u64 {
    pages(program_bytes)
}

fn pages(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE as u64)
}

/// The index of a mailbox's page, if this is one: `page` begins with its mark.
pub fn marked(page: &[u8]) -> Option<u64> {
    let number = |at: usize| page.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    let index = number(MARK.len())?;
    (page.starts_with(&MARK) && number(MARK.len() + 8)? == !index).then_some(index)
}

/// What goes into the last page.
pub fn header(program_bytes: u64, archive: &[u8], wake: &Wake) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    let mut put = |at: usize, value: u64| header[at..at + 8].copy_from_slice(&value.to_le_bytes());
    put(0, MAGIC);
    put(PROGRAM_BYTES_AT, program_bytes);
    put(ARCHIVE_AT, archive_page(program_bytes) * PAGE as u64);
    put(ARCHIVE_BYTES_AT, archive.len() as u64);
    put(SUM_AT, sum(archive));
    if let Some(clock) = wake.clock {
        put(FLAGS_AT, SET_CLOCK);
        put(SECONDS_AT, clock.as_secs());
        put(NANOS_AT, u64::from(clock.subsec_nanos()));
    }
    header[ENTROPY_AT..].copy_from_slice(&wake.entropy);
    header
}

/// Entropy that a seed decides (SplitMix64; Steele, Lea and Flood, 2014).
pub fn entropy_of(seed: u64) -> [u8; ENTROPY_BYTES] {
    let mut state = seed;
    let mut entropy = [0; ENTROPY_BYTES];
    for word in entropy.chunks_exact_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    entropy
}

#[cfg(test)]
mod tests {
    use super::*;
    use layout::MARK_BYTES;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn mark(index: u64) -> Vec<u8> {
        [&MARK[..], &index.to_le_bytes(), &(!index).to_le_bytes()].concat()
    }

    #[test]
    fn only_whole_marks_count() {
        assert_eq!(mark(7).len(), MARK_BYTES);
        assert_eq!(marked(&mark(7)), Some(7));
        let mut torn = mark(7);
        torn[20] ^= 1;
        assert_eq!(marked(&torn), None);
        assert_eq!(marked(&mark(7)[..24]), None);
        assert_eq!(marked(&[0; PAGE]), None);
    }

    #[test]
    fn a_mailbox_has_room_for_program_archive_and_header() {
        assert_eq!(pages_for(0, 0), 4096);
        let all_but_two = (16 << 20) - 2 * PAGE as u64;
        assert_eq!(pages_for(all_but_two, PAGE as u64), 4096);
        assert_eq!(pages_for(all_but_two, PAGE as u64 + 1), 8192);
        assert_eq!(pages_for(all_but_two + 1, PAGE as u64), 8192);
        assert_eq!(archive_page(PAGE as u64 + 1), 2);
    }

    #[test]
    fn seeds_differ_from_their_first_byte_on() {
        assert_eq!(entropy_of(3), entropy_of(3));
        assert_ne!(entropy_of(0)[..8], entropy_of(1)[..8]);
        // The first output of SplitMix64 for seed 0, as its authors publish it.
        assert_eq!(entropy_of(0)[..8], 0xe220_a839_7b1d_cdaf_u64.to_le_bytes());
    }

    #[test]
    fn the_header_says_whether_to_set_the_clock() {
        let number = |h: &[u8], at: usize| u64::from_le_bytes(h[at..at + 8].try_into().unwrap());
        let init = vec![Blob::Bytes(Arc::default())];
        let mut wake = Wake { init, clock: None, entropy: [5; ENTROPY_BYTES] };
        let still = header(5000, b"abc", &wake);
        let field = |at| number(&still, at);
        assert_eq!((field(PROGRAM_BYTES_AT), field(ARCHIVE_AT), field(ARCHIVE_BYTES_AT)), (5000, 8192, 3));
        assert_eq!(field(FLAGS_AT), 0);
        assert_eq!(still[ENTROPY_AT..], [5; ENTROPY_BYTES]);
        wake.clock = Some(Duration::new(9, 8));
        let set = header(5000, b"abc", &wake);
        assert_eq!((number(&set, SECONDS_AT), number(&set, NANOS_AT)), (9, 8));
    }

    proptest! {
        #[test]
        fn pages_in_the_wrong_place_change_the_sum(a in any::<u64>(), b in any::<u64>(), tail in 0usize..20) {
            prop_assume!(a != b);
            let page = |v: u64| { let mut p = vec![0; PAGE]; p[..8].copy_from_slice(&v.to_le_bytes()); p };
            let end = vec![1; tail];
            let right = [page(a), page(b), end.clone()].concat();
            let wrong = [page(b), page(a), end].concat();
            prop_assert_ne!(sum(&right), sum(&wrong));
            prop_assert_ne!(sum(&right), sum(&right[..right.len() - 1]));
        }
    }
}
