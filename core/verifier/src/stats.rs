//! The numbers at the end of a program's log.

use serde::{Deserialize, Serialize};

/// What verifying one program took: `print_verification_stats` in kernel/bpf/verifier.c.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Instructions looked at, each as often as it was. `verified_insns` of
    /// `struct bpf_prog_aux` is the same number.
    pub processed: u64,
    /// How many the verifier would look at before it gives up.
    pub limit: u64,
    /// The most states kept for one instruction.
    pub max_states_per_insn: u64,
    /// States that were kept at any time.
    pub total_states: u64,
    /// The most states kept at one time.
    pub peak_states: u64,
    /// The longest chain of parents that a register's use was marked in; kernels after
    /// 6.12 may not say.
    pub mark_read: u64,
    /// How long it took, in microseconds. Only at log levels with statistics (4).
    pub time_us: Option<u64>,
    /// Bytes of stack, one number for each subprogram. Only at log levels with statistics.
    pub stack: Vec<u32>,
}

impl Stats {
    /// Reads the statistics among the lines of a log; `None` without a `processed` line.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let (mut stats, mut seen) = (Self::default(), false);
        for line in lines {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["verification", "time", time, "usec"] => stats.time_us = time.parse().ok(),
                ["stack", "depth", depths] => {
                    stats.stack = depths.split('+').filter_map(|depth| depth.parse().ok()).collect();
                }
                ["processed", count, "insns", rest @ ..] => {
                    let Ok(processed) = count.parse() else { continue };
                    stats.processed = processed;
                    seen = true;
                    stats.totals(rest);
                }
                _ => {}
            }
        }
        seen.then_some(stats)
    }

    /// `(limit 1000000) max_states_per_insn 0 total_states 4 …`
    fn totals(&mut self, words: &[&str]) {
        for pair in words.windows(2) {
            let Ok(number) = pair[1].trim_end_matches(')').parse() else { continue };
            match pair[0] {
                "(limit" => self.limit = number,
                "max_states_per_insn" => self.max_states_per_insn = number,
                "total_states" => self.total_states = number,
                "peak_states" => self.peak_states = number,
                "mark_read" => self.mark_read = number,
                _ => {}
            }
        }
    }

    /// Bytes of stack of all subprograms; `None` if the log doesn't say.
    pub fn stack_bytes(&self) -> Option<u64> {
        (!self.stack.is_empty()).then(|| self.stack.iter().copied().map(u64::from).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_numbers_are_read() {
        let text = "verification time 35839 usec\nstack depth 72+8+0\nprocessed 42 insns (limit 1000000) \
                    max_states_per_insn 1 total_states 4 peak_states 3 mark_read 2";
        let stats = Stats::parse(text.lines()).unwrap();
        let expected = Stats {
            processed: 42,
            limit: 1_000_000,
            max_states_per_insn: 1,
            total_states: 4,
            peak_states: 3,
            mark_read: 2,
            time_us: Some(35839),
            stack: vec![72, 8, 0],
        };
        assert_eq!((stats.stack_bytes(), stats), (Some(80), expected));
    }

    #[test]
    fn without_the_total_there_are_none() {
        assert_eq!(Stats::parse(["stack depth 8", "processed many insns"]), None);
        assert_eq!(Stats::parse(["processed 3 insns"]).unwrap().stack_bytes(), None);
        assert_eq!(Stats::parse(["processed 99999999999999999999999 insns"]), None);
    }
}
