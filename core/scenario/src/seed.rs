//! One seed a random draw, out of the test's one.

/// A seed for the `n`th draw.
///
/// Not a step of the generator that the seed feeds: the draws of neighbours would overlap.
pub(crate) fn mix(seed: u64, n: u64) -> u64 {
    const ODD: u64 = 0xd6e8_feb8_6659_fd93;
    let z = seed ^ n.wrapping_mul(ODD);
    let z = (z ^ (z >> 32)).wrapping_mul(ODD);
    z ^ (z >> 32)
}
