//! Which samples violate what, and which are exempt.

use super::*;
use crate::QueueSample;
use crate::testing::sample;
use proptest::prelude::*;

fn series(count: u64, nr_running: &[u32]) -> Vec<Sample> {
    (0..count).map(|i| sample(i * 100, nr_running)).collect()
}

fn limits() -> Limits {
    Limits::of(&Assert::NO_OVERRIDES)
}

fn freeze(samples: &mut [Sample], cpu: usize) {
    let clock = samples[0].cpus[cpu].clock;
    samples.iter_mut().for_each(|s| s.cpus[cpu].clock = clock);
}

#[test]
fn a_pile_up_is_named_with_cpus_and_numbers() {
    let found = violations(&series(6, &[0, 10, 0, 0]), &limits());
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].check, found[0].cpu, found[0].samples), (Check::MaxImbalanceRatio, Some(1), 6));
    assert_eq!(
        found[0].text,
        "runqueues differ by a ratio of 10.0 (limit 4.0): cpu1 had 10 runnable tasks, cpu0 0 for 6 samples in a \
         row, +0 to +500 ms"
    );
}

#[test]
fn what_does_not_last_is_no_violation() {
    let mut samples = series(9, &[0, 10]);
    samples[4] = sample(400, &[5, 5]);
    assert!(violations(&samples, &limits()).is_empty());
    samples.push(sample(900, &[0, 10]));
    assert_eq!(violations(&samples, &limits()).len(), 1);
}

#[test]
fn a_long_local_queue_is_named() {
    let mut samples = series(5, &[1, 1]);
    samples.iter_mut().for_each(|s| s.cpus[1].local_dsq_nr = Some(51));
    let found = violations(&samples, &limits());
    assert_eq!(found.len(), 1);
    assert!(found[0].text.starts_with("cpu1 had 51 tasks in its local dispatch queue (limit 50)"));
}

#[test]
fn a_stall_needs_one_interval_more_than_the_window() {
    let mut samples = series(5, &[1, 1]);
    freeze(&mut samples, 1);
    assert!(violations(&samples, &limits()).is_empty(), "five samples are four intervals");
    let mut samples = series(6, &[1, 1]);
    freeze(&mut samples, 1);
    let found = violations(&samples, &limits());
    assert_eq!(found.len(), 1);
    assert!(found[0].text.starts_with("cpu1 stalled: its runqueue clock stood still at"), "{found:?}");
    assert_eq!(stalled_intervals(&samples), 5);
}

#[test]
fn idle_tickless_and_unserved_cpus_are_exempt_from_stalls() {
    let with = |change: &dyn Fn(usize, &mut CpuSample)| {
        let mut samples = series(20, &[1, 1]);
        freeze(&mut samples, 1);
        samples.iter_mut().enumerate().for_each(|(i, s)| change(i, &mut s.cpus[1]));
        violations(&samples, &limits()).len()
    };
    assert_eq!(with(&|_, _| {}), 1);
    assert_eq!(with(&|_, c| c.nr_running = 0), 0);
    assert_eq!(with(&|_, c| c.tick_stopped = Some(true)), 0);
    assert_eq!(with(&|_, c| c.vcpu_time = Some(Duration::from_secs(3))), 0, "the host never ran it");
    assert_eq!(with(&|i, c| c.vcpu_time = Some(Duration::from_millis(50 * i as u64))), 1);
    assert_eq!(with(&|i, c| c.nr_running = u32::from(i % 5 != 0)), 0, "idle now and then");
}

#[test]
fn rates_are_counts_over_time() {
    let mut samples = series(6, &[1]);
    for (i, s) in (0..).zip(&mut samples) {
        s.events = Some([(FALLBACK.to_string(), i * 30), (KEEP_LAST.to_string(), i * 5)].into());
    }
    let found = violations(&samples, &limits());
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].check, Check::MaxFallbackRate);
    assert!(found[0].text.contains("300 times a second") && found[0].text.contains("(limit 200)"));
}

#[test]
fn a_counter_that_starts_anew_has_no_rate() {
    let with = |value: i64, ms| {
        let mut s = sample(ms, &[1]);
        s.events = Some([(FALLBACK.to_string(), value)].into());
        s
    };
    assert_eq!(event_rate(&with(1000, 0), &with(10, 100), FALLBACK), None);
    assert_eq!(event_rate(&with(0, 0), &with(10, 100), FALLBACK), Some(100.0));
    assert_eq!(event_rate(&with(i64::MIN, 0), &with(i64::MAX, 100), FALLBACK), None);
}

#[test]
fn missing_kinds_of_data_are_told() {
    let mut samples = series(6, &[1]);
    assert!(Check::MaxLocalDsqDepth.lacks(&samples).is_none());
    assert!(Check::MaxFallbackRate.lacks(&samples).is_some());
    samples.iter_mut().for_each(|s| s.cpus[0].local_dsq_nr = None);
    assert!(Check::MaxLocalDsqDepth.lacks(&samples).is_some());
}

fn any_sample() -> impl Strategy<Value = Sample> {
    let cpu = (0u32..4, 0u32..20, 0u64..3, prop::option::of(0u32..200), prop::option::of(0u64..100));
    let cpus = prop::collection::vec(cpu, 0..4);
    (0u64..1000, cpus, prop::option::of(any::<i64>())).prop_map(|(ms, cpus, events)| Sample {
        at: Duration::from_millis(ms),
        cpus: cpus
            .into_iter()
            .map(|(cpu, nr_running, clock, local_dsq_nr, ran)| CpuSample {
                cpu,
                nr_running,
                clock,
                local_dsq_nr,
                vcpu_time: ran.map(Duration::from_millis),
                ..CpuSample::default()
            })
            .collect(),
        events: events.map(|n| [(FALLBACK.to_string(), n), (KEEP_LAST.to_string(), n)].into()),
        ..Sample::default()
    })
}

proptest! {
    /// Whatever was sampled, in whatever order: a violation fills the window, and a wider
    /// window never finds more samples in violation.
    #[test]
    fn violations_fill_their_window(samples in prop::collection::vec(any_sample(), 0..40), window in 1usize..8) {
        let at = |window| Limits { sustained_samples: window, ..limits() };
        let found = violations(&samples, &at(window));
        for violation in &found {
            prop_assert!(violation.samples >= window);
        }
        let total = |v: &[Violation]| v.iter().map(|v| v.samples).sum::<usize>();
        prop_assert!(total(&violations(&samples, &at(window + 1))) <= total(&found));
    }

    /// Queues of equal length are never out of balance.
    #[test]
    fn equal_queues_are_balanced(nr in 0u32..1000, cpus in 1usize..16, count in 0u64..20) {
        let samples = series(count, &vec![nr; cpus]);
        let ratio_above_one = Limits { max_imbalance_ratio: Some(1.0), ..limits() };
        let unbalanced = violations(&samples, &ratio_above_one);
        prop_assert!(unbalanced.iter().all(|v| v.check != Check::MaxImbalanceRatio));
    }
}

#[test]
fn a_queue_that_only_grows_is_named() {
    let mut samples = series(9, &[1, 1]);
    for (sample, nr) in samples.iter_mut().zip(1..) {
        let queue = |id, nr| QueueSample { id, nr };
        sample.queues = Some(vec![queue(1, 40 * (nr % 2)), queue(0x1eac, nr)]);
    }
    let at = |limit| Limits { max_dsq_depth: Some(limit), ..limits() };
    let found = violations(&samples, &at(3));
    assert_eq!(found.len(), 1, "the other one does not stay long: {found:?}");
    assert_eq!((found[0].check, found[0].samples), (Check::MaxDsqDepth, 6));
    assert!(
        found[0].text.starts_with("dispatch queue 0x1eac held 9 tasks (limit 3) for 6 samples"),
        "{found:?}"
    );
    assert_eq!(violations(&samples, &at(9)), []);
    assert_eq!(violations(&samples, &limits()), [], "there is no default");
    assert_eq!(Check::MaxDsqDepth.lacks(&samples), None);
    assert!(Check::MaxDsqDepth.lacks(&series(9, &[1])).unwrap().contains("loaded sched_ext scheduler"));
}

#[test]
fn dispatches_in_bypass_mode_are_bounded() {
    let mut samples = series(9, &[1, 1]);
    for (sample, i) in samples.iter_mut().zip(0..) {
        sample.events = Some([(BYPASS.to_string(), i * 30)].into());
    }
    let found = violations(&samples, &Limits { max_bypass_rate: Some(299.0), ..limits() });
    assert_eq!((found.len(), found[0].check), (1, Check::MaxBypassRate), "{found:?}");
    assert_eq!(violations(&samples, &Limits { max_bypass_rate: Some(301.0), ..limits() }), []);
    assert!(Check::MaxBypassRate.lacks(&series(9, &[1])).is_some());
}

/// A FIFO task on CPU 0 that never lets go, with one that waits.
fn hogged_series(count: u64) -> Vec<Sample> {
    let mut samples = series(count, &[2, 1]);
    for (sample, i) in samples.iter_mut().zip(0..) {
        sample.cpus[0].curr_pid = Some(77);
        sample.cpus[0].curr_prio = Some(49);
        sample.cpus[0].curr_comm[..3].copy_from_slice(b"hog");
        sample.cpus[1].nr_switches = i;
    }
    samples
}

#[test]
fn a_hog_is_named_with_its_task() {
    let found = violations(&hogged_series(6), &limits());
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].check, found[0].cpu), (Check::FailOnStall, Some(0)));
    assert!(
        found[0].text.starts_with(
            "cpu0 stalled: hog (pid 77) of a real-time class runs without a break while another task waits"
        ),
        "{found:?}"
    );
}

#[test]
fn a_task_that_lets_others_run_is_no_hog() {
    for spare in [
        (|s: &mut Sample, i: u64| s.cpus[0].nr_switches = i) as fn(&mut Sample, u64),
        |s, _| s.cpus[0].nr_running = 1,
        |s, _| s.cpus[0].curr_pid = Some(0),
        |s, i| s.cpus[0].curr_pid = Some(i as i32 + 1),
        |s, i| s.cpus[0].vcpu_time = Some(Duration::from_millis(i)),
    ] {
        let mut samples = hogged_series(9);
        samples.iter_mut().zip(0..).for_each(|(s, i)| spare(s, i));
        assert_eq!(violations(&samples, &limits()), []);
    }
}
