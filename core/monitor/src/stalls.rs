//! Processes on the host itself that get no further: there is no machine to look into, so it goes by what the running
//! kernel says of each process.

use std::collections::BTreeMap;
use std::time::Duration;

/// Samples in a row that must be as the one before them.
const SAMPLES: u32 = 4;

/// How far a process has got, all its threads together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunFigures {
    /// Context switches away from its threads.
    pub switches: u64,
    /// CPU time, ns.
    pub runtime_ns: u64,
}

impl RunFigures {
    /// Of the text of `/proc/PID/sched` (`proc_sched_show_task()`, kernel/sched/debug.c), where times are milliseconds
    /// with six decimals; `None` if it lacks either number.
    pub fn parse(text: &str) -> Option<Self> {
        let value = |name: &str| {
            let (_, value) =
                text.lines().find_map(|line| line.split_once(':').filter(|(n, _)| n.trim() == name))?;
            Some(value.trim())
        };
        let (ms, fraction) = value("se.sum_exec_runtime")?.split_once('.')?;
        if fraction.len() != 6 {
            return None;
        }
        let ns = ms.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(fraction.parse().ok()?)?;
        Some(Self { switches: value("nr_switches")?.parse().ok()?, runtime_ns: ns })
    }

    /// Those of two threads.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            switches: self.switches.saturating_add(other.switches),
            runtime_ns: self.runtime_ns.saturating_add(other.runtime_ns),
        }
    }
}

/// The processes of the running system.
#[cfg_attr(test, mockall::automock)]
pub trait Processes: Send + Sync {
    /// How far that process has got; `None` if there is none, or none of it is meant to run, as in a frozen cgroup.
    ///
    /// # Errors
    /// Why this kernel can't say, in words.
    fn figures(&self, pid: i32) -> Result<Option<RunFigures>, String>;

    /// What it is doing, by name: its state, where in the kernel it waits, its cgroup …
    fn evidence(&self, pid: i32) -> Vec<(String, String)>;
}

/// Finds the processes that get no further.
#[derive(Debug, Default)]
pub struct StallWatch(BTreeMap<i32, Seen>);

#[derive(Debug, Clone, Copy)]
struct Seen {
    figures: RunFigures,
    /// Samples that were the same.
    flat: u32,
}

impl StallWatch {
    /// Looks at these processes, at intervals of `period`; says what those do that have got no further for four samples,
    /// each once until it gets on.
    ///
    /// # Errors
    /// As [`Processes::figures`].
    pub fn look(
        &mut self,
        pids: &[i32],
        processes: &dyn Processes,
        period: Duration,
    ) -> Result<Vec<String>, String> {
        self.0.retain(|pid, _| pids.contains(pid));
        let mut stalled = Vec::new();
        for &pid in pids {
            let Some(figures) = processes.figures(pid)? else {
                self.0.remove(&pid);
                continue;
            };
            let seen = self.0.entry(pid).or_insert(Seen { figures, flat: u32::MAX });
            // The first sample has none before it.
            seen.flat = if seen.figures == figures { seen.flat.wrapping_add(1) } else { 0 };
            seen.figures = figures;
            if seen.flat == SAMPLES {
                stalled.push(told(pid, &processes.evidence(pid), period * SAMPLES));
            } else if seen.flat > SAMPLES {
                seen.flat = SAMPLES + 1;
            }
        }
        Ok(stalled)
    }
}

fn told(pid: i32, evidence: &[(String, String)], after: Duration) -> String {
    let seconds = after.as_secs_f64();
    let mut text = format!("process {pid} got no further for {seconds:.1} s: no context switch, no CPU time");
    for (name, value) in evidence {
        text.push_str("\n    ");
        text.push_str(name);
        text.push_str(": ");
        text.push_str(&value.replace('\n', "\n      "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PERIOD: Duration = Duration::from_millis(500);

    fn at(runtime_ns: u64) -> Option<RunFigures> {
        Some(RunFigures { switches: 3, runtime_ns })
    }

    /// The looks at which a process of these figures is found stalled.
    fn found(figures: &[Option<RunFigures>]) -> Vec<usize> {
        let mut watch = StallWatch::default();
        let look = |(index, now): (usize, &Option<RunFigures>)| {
            let (mut processes, now) = (MockProcesses::new(), *now);
            processes.expect_figures().returning(move |_| Ok(now));
            processes.expect_evidence().returning(|_| vec![("state".to_string(), "T (stopped)".to_string())]);
            let stalled = watch.look(&[7], &processes, PERIOD).unwrap();
            (!stalled.is_empty()).then_some(index)
        };
        figures.iter().enumerate().filter_map(look).collect()
    }

    #[test]
    fn four_samples_without_a_change_are_told_once() {
        assert_eq!(found(&[at(5); 4]), [0; 0]);
        assert_eq!(found(&[at(5); 12]), [4]);
        // It got on, and stopped again.
        let twice = [[at(5); 6], [at(6); 6]].concat();
        assert_eq!(found(&twice), [4, 10]);
    }

    #[test]
    fn the_time_in_which_it_was_not_meant_to_run_does_not_count() {
        assert_eq!(found(&[at(5), at(5), at(5), None, at(5), at(5), at(5), at(5)]), [0; 0]);
        assert_eq!(found(&[at(5), None, at(5), at(5), at(5), at(5), at(5)]), [6]);
    }

    #[test]
    fn what_it_does_is_told() {
        let mut processes = MockProcesses::new();
        processes.expect_figures().returning(|_| Ok(at(5)));
        let evidence = [("state", "T (stopped)"), ("stack", "do_signal_stop\nget_signal")];
        let evidence = evidence.map(|(name, value)| (name.to_string(), value.to_string()));
        processes.expect_evidence().returning(move |_| evidence.to_vec());
        let mut watch = StallWatch::default();
        let mut last = Vec::new();
        for _ in 0..=SAMPLES {
            last = watch.look(&[7], &processes, PERIOD).unwrap();
        }
        let text = "process 7 got no further for 2.0 s: no context switch, no CPU time\n    state: T (stopped)\n    \
                    stack: do_signal_stop\n      get_signal";
        assert_eq!(last, [text]);
    }

    #[test]
    fn a_kernel_that_does_not_tell_is_an_error() {
        let mut processes = MockProcesses::new();
        processes.expect_figures().returning(|_| Err("no such file".to_string()));
        assert_eq!(StallWatch::default().look(&[7], &processes, PERIOD), Err("no such file".to_string()));
    }

    #[test]
    fn the_kernels_text_is_read() {
        let text = "cat (7, #threads: 1)\n-----\nse.exec_start   :  1633120.310316\nse.sum_exec_runtime   :   12.852268\n\
                    nr_switches   :     42\nnr_voluntary_switches    :      40\n";
        assert_eq!(RunFigures::parse(text), Some(RunFigures { switches: 42, runtime_ns: 12_852_268 }));
        assert_eq!(RunFigures::parse(&text.replace("12.852268", "12")), None);
        assert_eq!(RunFigures::parse(&text.replace("nr_switches ", "nr_swatches")), None);
    }

    proptest! {
        #[test]
        fn one_that_gets_on_is_never_told(steps in prop::collection::vec(1u64..9, 0..60)) {
            let mut sum = 0;
            let figures: Vec<_> = steps.iter().map(|step| { sum += step; at(sum) }).collect();
            prop_assert_eq!(found(&figures), Vec::<usize>::new());
        }

        #[test]
        fn what_is_told_was_flat(samples in prop::collection::vec(prop::option::of(0u64..3), 0..60)) {
            let figures: Vec<_> = samples.iter().map(|s| s.and_then(at)).collect();
            for index in found(&figures) {
                prop_assert!(figures[index].is_some());
                prop_assert!(figures[index - 4..=index].iter().all(|f| *f == figures[index]));
            }
        }

        #[test]
        fn any_text_is_borne(text in "(\\PC{0,60}\n){0,5}", ms in any::<u64>()) {
            let _ = RunFigures::parse(&text);
            let _ = RunFigures::parse(&format!("se.sum_exec_runtime : {ms}.123456\nnr_switches : {ms}"));
        }
    }
}
