//! Where the digits of a token table may stand.

/// Length of the pattern: ten digits, each with its NUL.
pub(super) const LENGTH: usize = 20;
const PATTERN: [u8; LENGTH] = *b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\0";
const PAGE: usize = 4096;
const ZERO: [u8; PAGE] = [0; PAGE];

/// Where the pattern starts in `bytes`, ascending.
///
/// Guest memory is mostly zeros and this runs in tests that are built without optimization, where a vectorized search
/// is slower than this by far: whole pages are skipped by one comparison, and of the rest only every eighth byte is
/// looked at, since 20 bytes hold an aligned word of 8 wherever they start.
pub(super) fn hits(bytes: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    for (page, at) in bytes.chunks(PAGE).zip((0..).step_by(PAGE)) {
        if page != &ZERO[..page.len()] {
            let mut inside = at;
            for word in page.as_chunks::<8>().0 {
                let word = u64::from_le_bytes(*word);
                // Digits and NULs in turn: no byte of either parity differs from NUL.
                if (word & 0xff00_ff00_ff00_ff00 == 0 || word & 0x00ff_00ff_00ff_00ff == 0) && word != 0 {
                    found.extend(around(bytes, inside));
                }
                inside += 8;
            }
        }
    }
    found.dedup();
    found
}

/// The start of the pattern that the word at `at` is the first aligned word of.
fn around(bytes: &[u8], at: usize) -> Option<usize> {
    (at.saturating_sub(7)..=at).find(|start| bytes.get(*start..start + LENGTH) == Some(&PATTERN[..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_pattern_is_found_across_pages_and_at_both_ends() {
        for at in [0, 1, 7, 8, 4070, 4080, 4095, 4096, 8171, 8172] {
            let mut bytes = vec![0; 8192];
            bytes[at..at + LENGTH].copy_from_slice(&PATTERN);
            assert_eq!(hits(&bytes), [at]);
            assert_eq!(hits(&bytes[..at + LENGTH - 1]), [0; 0], "cut off at {at}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// The same places as a plain search finds, in noise that looks much like the pattern.
        #[test]
        fn nothing_is_missed(
            seed in any::<u64>(),
            length in 0usize..9000,
            places in prop::collection::vec(0usize..9000, 0..6),
        ) {
            let mut state = seed;
            let mut noise = || {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                [0, 0, b'0', b'1', b'9', (state >> 40) as u8][(state >> 56) as usize % 6]
            };
            let mut bytes: Vec<u8> = (0..length).map(|_| noise()).collect();
            for at in places {
                if let Some(slot) = bytes.get_mut(at..at + LENGTH) {
                    slot.copy_from_slice(&PATTERN);
                }
            }
            let plain: Vec<usize> = memchr::memmem::find_iter(&bytes, &PATTERN).collect();
            prop_assert_eq!(hits(&bytes), plain);
        }
    }
}
