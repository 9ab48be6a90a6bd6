//! Tests of the meter over a mapping of its own, without a fork.

use super::*;
use crate::shm::Mapping;
use proptest::prelude::*;

const RATE: SpinRate = SpinRate { chunk_rounds: 1000 };

fn with_meter(check: impl FnOnce(&Meter<'_>, &Mapping)) {
    let mapping = Mapping::new(1, 0).unwrap();
    let schedstat = Schedstat::open_own();
    mapping.control().started_at_ns.store(sys::now_ns(), Relaxed);
    mapping.worker(0).cpu_before_ns.store(sys::thread_cpu_ns(), Relaxed);
    schedstat.store(&mapping.worker(0).schedstat_before);
    let meter = Meter::begin(mapping.control(), mapping.worker(0), &schedstat, RATE);
    check(&meter, &mapping);
}

#[test]
fn the_time_before_the_first_run_is_a_gap() {
    let mapping = Mapping::new(1, 0).unwrap();
    let schedstat = Schedstat::open_own();
    mapping.worker(0).cpu_before_ns.store(sys::thread_cpu_ns(), Relaxed);
    mapping.control().started_at_ns.store(sys::now_ns() - 50_000_000, Relaxed);
    Meter::begin(mapping.control(), mapping.worker(0), &schedstat, RATE);
    assert!(mapping.worker(0).max_gap_ns.load(Relaxed) >= 49_000_000);
}

#[test]
fn a_pause_counts_as_far_as_it_was_off_the_cpu() {
    with_meter(|meter, mapping| {
        let gap = || mapping.worker(0).max_gap_ns.load(Relaxed);
        let gap_before = gap();
        // Read in this order, a preemption in between counts for the true time.
        let (wall, cpu) = (sys::now_ns(), sys::thread_cpu_ns());
        meter.resume_afresh();
        while sys::thread_cpu_ns() < cpu + 20_000_000 {}
        meter.tick();
        let cpu_used = sys::thread_cpu_ns() - cpu;
        let off_cpu = sys::now_ns() - wall - cpu_used;
        assert!(gap() <= gap_before.max(off_cpu), "gap {} of {off_cpu} ns off the CPU", gap());
        std::thread::sleep(Duration::from_millis(30));
        meter.tick();
        assert!(gap() >= 25_000_000, "off the CPU without having said why: {}", gap());
    });
}

#[test]
fn only_the_longest_gap_above_the_floor_is_kept() {
    with_meter(|meter, mapping| {
        let block = mapping.worker(0);
        meter.note_gap(GAP_FLOOR_NS, 0);
        let before = block.max_gap_ns.load(Relaxed);
        let now = sys::now_ns();
        meter.note_gap(90_000_000_000, now);
        meter.note_gap(80_000_000_000, now);
        assert!(before < 90_000_000_000);
        assert_eq!(block.max_gap_ns.load(Relaxed), 90_000_000_000);
    });
}

#[test]
fn a_sleep_is_no_gap_but_its_overshoot_is_a_latency() {
    with_meter(|meter, mapping| {
        meter.sleep(Duration::from_millis(3));
        let block = mapping.worker(0);
        let counts: u64 = block.wake_buckets.iter().map(|b| b.load(Relaxed)).sum();
        assert_eq!(counts, 1);
        assert_eq!(block.due_ns.load(Relaxed), DUE_NOW);
        assert_eq!(block.wake_min.load(Relaxed), block.wake_max.load(Relaxed) + 1);
    });
}

#[test]
fn burning_uses_the_cpu_time_asked_for() {
    with_meter(|meter, _| {
        let before = sys::thread_cpu_ns();
        meter.burn(Duration::from_millis(5));
        assert!(sys::thread_cpu_ns() - before >= 5_000_000);
    });
}

#[test]
fn a_stop_ends_spinning_and_sleeping() {
    with_meter(|meter, mapping| {
        mapping.control().stop.store(1, Relaxed);
        meter.spin(u64::MAX);
        meter.sleep(Duration::from_secs(3600));
        meter.burn(Duration::from_secs(3600));
        let block = mapping.worker(0);
        assert_eq!(block.wake_max.load(Relaxed), 0, "a sleep cut short is no latency");
    });
}

#[test]
fn a_wake_up_sent_before_the_wait_began_is_none() {
    with_meter(|meter, mapping| {
        let began = meter.about_to_wait();
        meter.resume_from(began, began - 1);
        let count = || mapping.worker(0).wake_buckets.iter().map(|b| b.load(Relaxed)).sum::<u64>();
        assert_eq!(count(), 0);
        meter.resume_from(began, began);
        assert_eq!(count(), 1);
    });
}

#[test]
fn the_cpu_it_runs_on_is_noted() {
    with_meter(|_, mapping| {
        let used = &mapping.worker(0).cpus_used;
        assert!(used.iter().any(|word| word.load(Relaxed) != 0));
    });
}

#[test]
fn own_schedstat_is_parsed_or_absent() {
    assert_eq!(
        parse_schedstat(b"12 34 5\n"),
        Some(SchedstatValues { cpu_ns: 12, run_delay_ns: 34, run_count: 5 })
    );
    assert_eq!(parse_schedstat(b"0 0 0\n"), None);
    assert_eq!(parse_schedstat(b"12 34\n"), None);
    assert_eq!(parse_schedstat(b"12 x 5\n"), None);
    assert_eq!(Schedstat { fd: -1 }.read(), None);
}

proptest! {
    #[test]
    fn any_schedstat_text_is_survived(text in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = parse_schedstat(&text);
    }

    #[test]
    fn any_three_numbers_are_read_back(a in 1u64.., b: u64, c: u64) {
        let text = format!("{a} {b} {c}\n");
        let expected = SchedstatValues { cpu_ns: a, run_delay_ns: b, run_count: c };
        prop_assert_eq!(parse_schedstat(text.as_bytes()), Some(expected));
    }
}
