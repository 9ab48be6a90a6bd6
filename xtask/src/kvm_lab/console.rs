//! What the lab's console says: how far it came, and which tests passed.

use crate::suite::Tally;

const RUNNING: &str = "lab: running ";
const EXIT_CODE: &str = "lab: exit code ";

/// The exit code of the lab's program, if it came to its end.
pub(super) fn exit_code(output: &str) -> Option<i32> {
    // The program may print such a line too; the lab's own is the last.
    output.lines().rev().find_map(|line| line.strip_prefix(EXIT_CODE)?.trim().parse().ok())
}

/// How far a lab came that didn't tell an exit code.
pub(super) fn stage(output: &str) -> String {
    if let Some(why) = output.lines().find_map(|line| line.strip_prefix("lab: failed: ")) {
        return format!("starting the program: {why}");
    }
    let Some(at) = output.find(RUNNING) else {
        return "booting the lab's own kernel".to_owned();
    };
    let program = output[at + RUNNING.len()..].lines().next().unwrap_or_default();
    match output.lines().rfind(|line| verdict(line).is_some()) {
        Some(last) => format!("running {program}, after `{last}`"),
        None => format!("running {program}"),
    }
}

/// Tests by their own lines: `test NAME ... ok in 1.2 s`.
pub(super) fn count_tests(output: &str) -> Tally {
    let mut tally = Tally::default();
    for passed in output.lines().filter_map(verdict) {
        tally += Tally { passed: u64::from(passed), failed: u64::from(!passed) };
    }
    tally
}

fn verdict(line: &str) -> Option<bool> {
    let (_, verdict) = line.strip_prefix("test ")?.split_once(" ... ")?;
    match verdict.split_whitespace().next()? {
        "ok" => Some(true),
        "FAILED" => Some(false),
        _ => None,
    }
}

/// A scenario's report: it must say that the scenario passed, in the mode kvm. What was
/// skipped or ran elsewhere ends with 0, too, and shows nothing.
pub(super) fn count_scenarios(output: &str) -> Tally {
    let passed =
        output.lines().any(|line| line.starts_with("ktstr_test '") && line.trim_end().ends_with("] passed:"));
    let passed = passed && output.lines().any(|line| line.starts_with("mode=kvm "));
    Tally { passed: u64::from(passed), failed: u64::from(!passed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_exit_code_counts() {
        assert_eq!(exit_code("lab: exit code 7\nlab: exit code 0\n[ 1.0] reboot: Power down"), Some(0));
        assert_eq!(exit_code("lab: exit code -1\n"), Some(-1));
        assert_eq!(exit_code("lab: running /bin/x\nI say lab: exit code 0\n"), None);
    }

    #[test]
    fn a_stage_is_named_by_the_last_thing_seen() {
        assert_eq!(stage("SeaBIOS\n"), "booting the lab's own kernel");
        assert_eq!(stage("lab: running /bin/linux\n"), "running /bin/linux");
        let output = "lab: running /bin/linux\ntest a ... ok in 1 s\ntest b ... FAILED in 2 s\nwhy\n";
        assert_eq!(stage(output), "running /bin/linux, after `test b ... FAILED in 2 s`");
        assert_eq!(stage("lab: failed: no file\n"), "starting the program: no file");
    }

    #[test]
    fn tests_are_counted_by_their_lines() {
        let output = "test a ... ok in 1.0 s\ntest b ... FAILED in 1.0 s\ntesting ... ok\ntest c ... ok\n";
        assert_eq!(count_tests(output), Tally { passed: 2, failed: 1 });
    }

    #[test]
    fn only_a_pass_under_kvm_is_a_pass() {
        let report = |verdict, mode| {
            format!("lab: running x\nktstr_test 'a' [topo=1n1l2c1t] {verdict}:\nmode={mode} kernel=6.12\n")
        };
        assert_eq!(count_scenarios(&report("passed", "kvm")), Tally { passed: 1, failed: 0 });
        for output in
            ["".to_owned(), report("failed", "kvm"), report("skipped", "kvm"), report("passed", "tcg")]
        {
            assert_eq!(count_scenarios(&output), Tally { passed: 0, failed: 1 }, "{output}");
        }
    }
}
