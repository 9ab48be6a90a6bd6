//! The order of Debian package versions (deb-version(7)).

use std::cmp::Ordering;

/// Compares two versions `[epoch:]upstream[-revision]` as dpkg does.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (split(a), split(b));
    a.epoch
        .cmp(&b.epoch)
        .then_with(|| compare_part(a.upstream, b.upstream))
        .then_with(|| compare_part(a.revision, b.revision))
}

/// The upstream part: `6.12.117` of `1:6.12.117-1~deb12u1`.
pub(crate) fn upstream(version: &str) -> &str {
    split(version).upstream
}

struct Parts<'a> {
    epoch: u64,
    upstream: &'a str,
    revision: &'a str,
}

fn split(version: &str) -> Parts<'_> {
    let (epoch, rest) = match version.split_once(':') {
        Some((epoch, rest)) => (epoch.parse().unwrap_or(0), rest),
        None => (0, version),
    };
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    Parts { epoch, upstream, revision }
}

/// Alternates between runs of non-digits, compared by [`weight`], and runs of
/// digits, compared as numbers.
fn compare_part(mut a: &str, mut b: &str) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let (text_a, text_b) = (take(&mut a, false), take(&mut b, false));
        let (digits_a, digits_b) = (take(&mut a, true), take(&mut b, true));
        let order = compare_text(text_a, text_b).then_with(|| compare_digits(digits_a, digits_b));
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

/// Cuts the run of digits (or of all else) off the front.
fn take<'a>(text: &mut &'a str, digits: bool) -> &'a str {
    let end = text.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(text.len());
    let (run, rest) = text.split_at(end);
    *text = rest;
    run
}

fn compare_text(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.chars(), b.chars());
    loop {
        let (next_a, next_b) = (a.next(), b.next());
        if next_a.is_none() && next_b.is_none() {
            return Ordering::Equal;
        }
        let order = weight(next_a).cmp(&weight(next_b));
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// `~` sorts before the end, the end before letters, letters before all else.
fn weight(c: Option<char>) -> u32 {
    match c {
        Some('~') => 0,
        None => 1,
        Some(c) if c.is_ascii_alphabetic() => u32::from(c) + 2,
        Some(c) => u32::from(c) + 1000,
    }
}

/// Compares numbers of any length.
fn compare_digits(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_orders() {
        // Each is older than the next; the pairs are deb-version(7)'s rules
        // and versions of real kernel packages.
        for chain in [
            vec!["6.1.170-3", "6.1.192-2", "6.12.107-1~deb12u1", "6.12.117-1~deb12u1"],
            vec!["6.12.117-1~deb12u1", "6.12.117-1", "6.12.117-1+b1", "6.12.117-2"],
            vec!["6.8.0-31.31", "6.8.0-31.31+1", "6.8.0-100.100", "1:6.8.0-1"],
            vec!["1.0~~", "1.0~~a", "1.0~", "1.0", "1.0a", "1.0+", "1.0.1"],
            vec!["9", "10", "99999999999999999999", "100000000000000000000"],
        ] {
            for pair in chain.windows(2) {
                assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
                assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
            }
        }
        assert_eq!(compare("1.0", "0:1.00"), Ordering::Equal);
    }

    #[test]
    fn upstream_is_without_epoch_and_revision() {
        assert_eq!(upstream("1:6.12.117-1~deb12u1"), "6.12.117");
        assert_eq!(upstream("6.8.0-31.31"), "6.8.0");
        assert_eq!(upstream("6.12"), "6.12");
    }

    proptest! {
        #[test]
        fn it_is_a_total_order(a in "[0-9a-z.+~-]{0,8}", b in "[0-9a-z.+~-]{0,8}", c in "[0-9a-z.+~-]{0,8}") {
            prop_assert_eq!(compare(&a, &a), Ordering::Equal);
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
                prop_assert!(compare(&a, &c).is_le());
            }
        }
    }
}
