//! Repeated rounds of a loop, shown once and counted.

use crate::without_registers;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A round has at least so many lines.
pub const MIN_PERIOD: usize = 5;
/// It comes at least so often in a row.
pub const MIN_ROUNDS: usize = 3;
/// Loops in loops take one pass each; this is where it stops.
pub const MAX_PASSES: usize = 5;

/// Periods tried in one pass: the commonest distances between equal lines.
const MAX_PERIODS: usize = 32;

/// Lines with repeated rounds left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collapsed<'a> {
    /// What is left, with a line that counts in each place where rounds were left out.
    pub lines: Vec<Cow<'a, str>>,
    /// Passes that found something; at most [`MAX_PASSES`].
    pub passes: usize,
    /// Lines left out in total.
    pub omitted: usize,
}

/// Of every block of at least [`MIN_PERIOD`] lines that comes at least [`MIN_ROUNDS`] times
/// in a row keeps the first and the last round, with the number of those between. Lines
/// are equal if they are without register states; they are kept as they were.
///
/// First and last line stay, and the result is never longer. The time grows with the
/// number of lines times its logarithm.
pub fn collapse<'a>(lines: &[&'a str]) -> Collapsed<'a> {
    let mut keys = Keys::default();
    let mut left: Vec<Line<'a>> = lines
        .iter()
        .map(|&text| Line {
            text: Cow::Borrowed(text),
            key: keys.of(without_registers(text).unwrap_or_default()),
        })
        .collect();
    let mut passes = 0;
    while passes < MAX_PASSES && pass(&mut left, &mut keys) {
        passes += 1;
    }
    let omitted = lines.len() - left.len();
    Collapsed { lines: left.into_iter().map(|line| line.text).collect(), passes, omitted }
}

#[derive(Clone)]
struct Line<'a> {
    text: Cow<'a, str>,
    key: u32,
}

/// Numbers for texts: equal if the texts are.
#[derive(Default)]
struct Keys(BTreeMap<String, u32>);

impl Keys {
    fn of(&mut self, text: &str) -> u32 {
        if let Some(&key) = self.0.get(text) {
            return key;
        }
        let key = self.0.len() as u32;
        self.0.insert(text.to_string(), key);
        key
    }
}

/// Collapses every run it finds, shorter rounds first; false if there was none.
fn pass(lines: &mut Vec<Line<'_>>, keys: &mut Keys) -> bool {
    let before = lines.len();
    for period in periods(lines) {
        collapse_period(lines, period, keys);
    }
    lines.len() != before
}

/// Likely lengths of a round, ascending. Within a loop a line comes back after a round,
/// or after a part of it if the round has the line twice.
fn periods(lines: &[Line<'_>]) -> Vec<usize> {
    let mut last: BTreeMap<u32, usize> = BTreeMap::new();
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for (at, line) in lines.iter().enumerate() {
        if let Some(before) = last.insert(line.key, at) {
            let distance = at - before;
            let period = distance * MIN_PERIOD.div_ceil(distance);
            if period <= lines.len() / MIN_ROUNDS {
                *counts.entry(period).or_default() += 1;
            }
        }
    }
    let mut common: Vec<_> = counts.into_iter().map(|(period, count)| (count, period)).collect();
    common.sort_by_key(|&(count, period)| (std::cmp::Reverse(count), period));
    let mut periods: Vec<_> = common.into_iter().take(MAX_PERIODS).map(|(_, period)| period).collect();
    periods.sort_unstable();
    periods
}

fn collapse_period(lines: &mut Vec<Line<'_>>, period: usize, keys: &mut Keys) {
    let mut left = Vec::with_capacity(lines.len());
    // Lines up to here are in `left` or left out.
    let mut done = 0;
    let mut at = period;
    while at < lines.len() {
        if lines[at].key != lines[at - period].key {
            at += 1;
            continue;
        }
        let start = at - period;
        while at < lines.len() && lines[at].key == lines[at - period].key {
            at += 1;
        }
        let rounds = (at - start) / period;
        if rounds >= MIN_ROUNDS {
            let last = start + (rounds - 1) * period;
            left.extend_from_slice(&lines[done..start + period]);
            left.push(marker(rounds - 2, period, keys));
            left.extend_from_slice(&lines[last..last + period]);
            done = last + period;
            // What follows is compared with what is kept, not with what is gone.
            at = done + period;
        }
    }
    if done > 0 {
        left.extend_from_slice(&lines[done..]);
        *lines = left;
    }
}

fn marker<'a>(rounds: usize, period: usize, keys: &mut Keys) -> Line<'a> {
    let s = if rounds == 1 { "" } else { "s" };
    let text = format!("... {rounds} identical iteration{s} omitted ({period} lines each) ...");
    let key = keys.of(&text);
    Line { text: Cow::Owned(text), key }
}

#[cfg(test)]
mod tests;
