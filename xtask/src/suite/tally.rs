//! Counts of tests, read from the runners' own closing lines.

/// Tests that ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    /// Those that said themselves that this machine can't show what they are for.
    pub(crate) skipped: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// The line that CI looks for; tests that skip themselves are told apart from it.
impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

impl Tally {
    /// Counts those of the passed tests that have skipped themselves: runners take them for passed.
    pub(crate) fn set_apart(&mut self, skipped: u64) {
        self.skipped += skipped;
        self.passed = self.passed.saturating_sub(skipped);
    }

    /// The last summary of `cargo nextest run`: `Summary [ 1.2s] 9 tests run: 7
    /// passed (1 slow), 1 failed, 1 timed out, 3 skipped`. Earlier ones may be
    /// a failing test's own output.
    pub(crate) fn of_nextest(output: &str) -> Self {
        let summary = output.lines().rev().find(|line| line.trim_start().starts_with("Summary ["));
        let Some((_, counts)) = summary.and_then(|line| line.split_once(" run: ")) else {
            return Self::default();
        };
        let mut tally = Self::default();
        for (count, word) in counted(&without_brackets(counts), ',') {
            match word.as_str() {
                "passed" => tally.passed += count,
                // A test that couldn't be started or was ended did not pass.
                "failed" | "exec failed" | "timed out" => tally.failed += count,
                _ => {}
            }
        }
        tally
    }

    /// All summaries of `cargo test`, one for each binary: `test result: ok. 3
    /// passed; 0 failed; …`.
    pub(crate) fn of_libtest(output: &str) -> Self {
        let mut tally = Self::default();
        for line in output.lines() {
            let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
            else {
                continue;
            };
            for (count, word) in counted(counts, ';') {
                match word.as_str() {
                    "passed" => tally.passed += count,
                    "failed" => tally.failed += count,
                    _ => {}
                }
            }
        }
        tally
    }
}

/// `7 passed, 1 failed` as numbers and words.
fn counted(text: &str, separator: char) -> Vec<(u64, String)> {
    text.split(separator)
        .filter_map(|part| {
            let (count, word) = part.trim().split_once(' ')?;
            Some((count.parse().ok()?, word.trim().to_owned()))
        })
        .collect()
}

fn without_brackets(text: &str) -> String {
    let mut depth = 0u32;
    text.chars()
        .filter(|character| {
            match character {
                '(' => depth += 1,
                ')' => {
                    depth = depth.saturating_sub(1);
                    return false;
                }
                _ => {}
            }
            depth == 0
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nextests_summary_is_read() {
        for (line, passed, failed) in [
            ("     Summary [   0.123s] 1 test run: 1 passed, 0 skipped", 1, 0),
            (
                "     Summary [   5.1s] 9 tests run: 6 passed (1 slow, 2 flaky, 1 leaky), 1 failed, 1 exec failed, 1 timed out, 3 skipped",
                6,
                3,
            ),
            (
                "     Summary [   5.1s] 2/9 tests run: 1 passed, 1 failed (1 due to being leaky), 3 skipped",
                1,
                1,
            ),
            ("     Summary [   0.000s] 0 tests run: 0 passed, 12 skipped", 0, 0),
            ("error: could not compile `ktstr`", 0, 0),
        ] {
            assert_eq!(Tally::of_nextest(line), Tally { passed, failed, skipped: 0 }, "{line}");
        }
    }

    #[test]
    fn a_failing_tests_own_summary_is_not_counted() {
        let output = "    Summary [ 1s] 1 test run: 500 passed\n\
                      test result: FAILED. 0 passed; 1 failed; 0 ignored\n\
                      \x20    Summary [   0.1s] 2 tests run: 1 passed, 1 failed, 0 skipped\n\
                      error: test run failed\n";
        assert_eq!(Tally::of_nextest(output), Tally { passed: 1, failed: 1, skipped: 0 });
    }

    #[test]
    fn libtests_summaries_are_summed() {
        let output = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
                      test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s";
        assert_eq!(Tally::of_libtest(output), Tally { passed: 4, failed: 2, skipped: 0 });
    }

    #[test]
    fn the_closing_line_is_exactly_what_ci_reads() {
        let tally = Tally { passed: 12, failed: 0, skipped: 1 };
        assert_eq!(tally.to_string(), "12 passed, 0 failed");
    }

    #[test]
    fn tests_that_skip_themselves_have_not_passed() {
        let mut tally = Tally { passed: 12, failed: 1, skipped: 0 };
        tally.set_apart(2);
        assert_eq!(tally, Tally { passed: 10, failed: 1, skipped: 2 });
    }
}
