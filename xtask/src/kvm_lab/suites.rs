//! What is run in the lab, and how its outcome is counted.

use super::machine::{Lab, Report, Size};
use super::parts::{self, Program};
use super::{Invocation, console};
use crate::args::UsageError;
use crate::project::Project;
use crate::say;
use crate::suite::Tally;
use anyhow::Result;
use std::time::{Duration, Instant};

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Extent {
    /// What `cargo xtask test` runs.
    Step,
    All,
    /// These suites.
    Named(Vec<&'static str>),
}

/// One run of a program in the lab.
#[derive(Debug, Clone, Copy)]
struct Suite {
    name: &'static str,
    /// Settings, program and arguments.
    words: &'static [&'static str],
    in_step: bool,
    size: Size,
}

const fn step(name: &'static str, words: &'static [&'static str]) -> Suite {
    Suite { name, words, in_step: true, size: Size::USUAL }
}

const fn more(name: &'static str, words: &'static [&'static str]) -> Suite {
    Suite { name, words, in_step: false, size: Size::USUAL }
}

/// Skipped tests have shown nothing.
const NO_SKIP: &str = "KTSTR_NO_SKIP_MODE=1";
/// Boots in half the time of a bzImage, which unpacks itself first.
const QUICK: &str = "KTSTR_TEST_KERNEL=/guest/vmlinux";
/// The scheduler that tests attach, for every one that they look for by name.
const FIXTURE: &str = "KTSTR_SCHEDULER=/bin/scx-fixture";
const ONE_BY_ONE: &str = "--test-threads=1";

/// Rows of the step are few, as a guest takes some seconds to boot. Parts of names are those of
/// vmm/vm/tests/linux and cli/tests. The mode is asked for by `KTSTR_ACCEL=kvm`, so what passes
/// has run in it.
const SUITES: [Suite; 16] = [
    step(
        "monitor",
        &["linux", "the_probe", "bytes_go", "a_line", "a_vmlinux", "a_busy", "a_pause", "a_panic", "dropped"],
    ),
    step("shape", &[NO_SKIP, QUICK, "shapes", ONE_BY_ONE, "shape_2n2l2c1t"]),
    step("drill", &[QUICK, "drills", ONE_BY_ONE, "that_faults"]),
    // Not in the step: it takes as long as the monitor's part.
    more("quick-start", &[NO_SKIP, "seeds", ONE_BY_ONE]),
    more("all monitor", &["linux"]),
    more("hand-made guests", &["micro_guest"]),
    more("their time", &["time", ONE_BY_ONE]),
    more("hold of 5 s", &[NO_SKIP, QUICK, "KTSTR_DURATION_S=5", "seeds", ONE_BY_ONE]),
    more("all shapes", &[NO_SKIP, QUICK, "shapes", ONE_BY_ONE]),
    more("all drills", &["drills", ONE_BY_ONE, "--skip", "under_qemu::"]),
    more("twenty kills", &[QUICK, "drills", "--ignored", "twenty_kills"]),
    more("must fail", &[QUICK, "must_fail", ONE_BY_ONE]),
    // Of these, what asks for no mode of its own, for no source lines (the vmlinux here has none) and for no rate of
    // jiffies (a guest catches up on them after a pause).
    more(
        "kernel state",
        &[QUICK, "monitor", ONE_BY_ONE, "a_healthy_run", "a_pile_up_fails", "a_violated", "thawed"],
    ),
    more(
        "snapshots",
        &[
            QUICK,
            FIXTURE,
            "snapshots",
            ONE_BY_ONE,
            "a_path_that_is_not_there",
            "kernel_memory",
            "the_hosts_check",
        ],
    ),
    more(
        "schedulers",
        &[
            QUICK,
            FIXTURE,
            "schedulers",
            ONE_BY_ONE,
            "a_sound_scheduler_passes",
            "a_stall_is_found",
            "a_task_where",
            "an_error_of",
        ],
    ),
    // In a lab of its own: with a CPU for each vCPU and one more, and huge pages.
    Suite {
        size: Size::PERFORMANCE,
        ..more("performance", &[QUICK, "performance", ONE_BY_ONE, "--ignored", "what_it_was_promised"])
    },
];

/// When a run of suites is ended, however far it is: 10 times what they take on an idle
/// machine would be a hang.
const STEP_LIMIT: Duration = Duration::from_secs(360);
const LIMIT: Duration = Duration::from_secs(3000);

impl Extent {
    /// The suites of these names.
    pub(super) fn named(names: &[String]) -> Result<Self> {
        let find = |name: &String| match SUITES.iter().find(|suite| suite.name == name) {
            Some(suite) => Ok(suite.name),
            None => {
                let known: Vec<_> = SUITES.iter().map(|suite| suite.name).collect();
                let text = format!("there is no suite {name:?}; there are: {}", known.join(", "));
                Err(UsageError(text).into())
            }
        };
        names.iter().map(find).collect::<Result<_>>().map(Self::Named)
    }

    fn has(&self, suite: &Suite) -> bool {
        match self {
            Self::Step => suite.in_step,
            // What others repeat in full needn't run twice.
            Self::All => !suite.in_step,
            Self::Named(names) => names.contains(&suite.name),
        }
    }

    fn limit(&self) -> Duration {
        if *self == Self::Step { STEP_LIMIT } else { LIMIT }
    }
}

/// Runs the suites of `extent` and adds their tests to `tally`; true if all is well.
pub(crate) fn run(project: &Project, extent: &Extent, tally: &mut Tally) -> Result<bool> {
    let suites: Vec<&Suite> = SUITES.iter().filter(|suite| extent.has(suite)).collect();
    let lab = Lab::prepare(project, &programs(&suites))?;
    let deadline = Instant::now() + extent.limit();
    let mut left = suites.as_slice();
    let mut good = true;
    while !left.is_empty() {
        // Those that need another lab have their turn with the next one.
        let size = left[0].size;
        let alike = left.iter().take_while(|suite| suite.size == size).count();
        let turn = &left[..alike];
        let commands = turn.iter().map(|suite| suite.invocation()).collect::<Result<Vec<_>>>()?;
        let time = deadline.saturating_duration_since(Instant::now());
        if time.is_zero() {
            let names: Vec<_> = left.iter().map(|suite| suite.name).collect();
            println!("  out of time; not run: {}", names.join(", "));
            tally.failed += left.len() as u64;
            return Ok(false);
        }
        let report = lab.run("kvm-lab", size, &commands, time)?;
        let counted = judge(turn, &report);
        for (suite, counted, took) in &counted {
            let skipped = match counted.skipped {
                0 => String::new(),
                count => format!(", {count} skipped"),
            };
            println!("  {}: {counted}{skipped} ({took})", suite.name);
            good &= counted.failed == 0;
            *tally += *counted;
        }
        println!("  the lab in all: {}", say::duration(report.elapsed));
        if !report.trouble.is_empty() {
            println!("  {}", report.trouble);
        }
        // A lab that dies takes the suite with it that it was at; the others have a new one.
        left = &left[counted.len()..];
    }
    Ok(good)
}

/// What became of the suites that were started; at least of the first.
fn judge<'a>(suites: &[&'a Suite], report: &Report) -> Vec<(&'a Suite, Tally, String)> {
    let count = |(at, suite): (usize, &&'a Suite)| {
        let mut tally = Tally::default();
        let mut took = "the lab was gone before its end".to_owned();
        if let Some(section) = report.sections.get(at) {
            tally = console::count_tests(&section.output);
            let code = section.end.as_ref().map(|end| end.code);
            if let Some(end) = &section.end {
                took.clone_from(&end.took);
            }
            // Red must not read `0 failed`; and one that ends well without a test has lost it.
            if tally.failed == 0 && (code != Some(0) || tally.passed == 0) {
                tally.failed = 1;
                if code == Some(0) {
                    took.push_str(&format!("; is one of the names in {:?} gone?", suite.words));
                }
            }
        } else {
            tally.failed = 1;
        }
        (*suite, tally, took)
    };
    suites.iter().enumerate().take(report.sections.len().max(1)).map(count).collect()
}

/// Each once.
fn programs(suites: &[&Suite]) -> Vec<&'static Program> {
    parts::PROGRAMS.iter().filter(|program| suites.iter().any(|suite| suite.runs(program.name))).collect()
}

impl Suite {
    fn runs(&self, program: &str) -> bool {
        // One that tests start is named in a setting.
        self.words.iter().any(|word| word.split_once("=/bin/").map_or(*word, |(_, name)| name) == program)
    }

    fn invocation(&self) -> Result<Invocation> {
        Invocation::read(self.words.iter().map(|&word| word.to_owned()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::console::{End, sections};
    use super::*;

    #[test]
    fn every_suite_runs_a_program_of_the_lab() {
        for suite in SUITES {
            assert!(suite.invocation().unwrap().known().unwrap().is_some(), "{}", suite.name);
            let programs = programs(&[&suite]);
            let started = suite.words.iter().filter(|word| word.contains("=/bin/")).count();
            assert_eq!(programs.len(), 1 + started, "{}: {programs:?}", suite.name);
        }
    }

    #[test]
    fn suites_are_found_by_name() {
        let named = |names: &[&str]| Extent::named(&names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>());
        assert_eq!(named(&["shape", "drill"]).unwrap(), Extent::Named(vec!["shape", "drill"]));
        let error = named(&["shapes"]).unwrap_err();
        assert!(error.is::<UsageError>() && error.to_string().contains("monitor, shape"), "{error}");
    }

    fn judged(output: &str) -> Vec<Tally> {
        let report = Report { sections: sections(output), elapsed: Duration::ZERO, trouble: String::new() };
        let suites: Vec<&Suite> = SUITES.iter().take(3).collect();
        judge(&suites, &report).into_iter().map(|(_, tally, _)| tally).collect()
    }

    #[test]
    fn no_suite_is_well_without_a_passed_test_and_a_good_end() {
        let of = |body: &str, code: i32| {
            judged(&format!("lab: running /bin/a\n{body}lab: exit code {code} after 1.0 s\n"))
        };
        assert_eq!(of("test x ... ok\n", 0), [Tally { passed: 1, failed: 0, skipped: 0 }]);
        assert_eq!(of("test x ... ok\n", 1), [Tally { passed: 1, failed: 1, skipped: 0 }]);
        assert_eq!(of("test x ... FAILED\n", 101), [Tally { passed: 0, failed: 1, skipped: 0 }]);
        assert_eq!(of("", 0), [Tally { passed: 0, failed: 1, skipped: 0 }]);
    }

    #[test]
    fn a_lab_that_dies_costs_the_suite_that_it_was_at() {
        assert_eq!(judged("SeaBIOS\n"), [Tally { passed: 0, failed: 1, skipped: 0 }]);
        let output = "lab: running /bin/a\ntest x ... ok\nlab: exit code 0 after 1.0 s\nlab: running /bin/b\n\
            test y ... ok\n";
        assert_eq!(
            judged(output),
            [Tally { passed: 1, failed: 0, skipped: 0 }, Tally { passed: 1, failed: 1, skipped: 0 }]
        );
        assert_eq!(sections(output)[0].end, Some(End { code: 0, took: "1.0 s".to_owned() }));
    }
}
