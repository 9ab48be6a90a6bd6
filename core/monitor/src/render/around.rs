//! Where time and memory of a machine went, in a line a CPU or node.

use crate::{CpuTimes, KernelState, PressureState};
use std::fmt::Write;

/// Softirqs of a CPU that are named, the most frequent.
const SOFTIRQS: usize = 3;

pub(super) fn around(text: &mut String, state: &KernelState) {
    for cpu in &state.cpu_use {
        let times = cpu.times.as_ref().map(times).unwrap_or_default();
        let mut softirqs: Vec<_> = cpu.softirqs.iter().filter(|(_, n)| **n > 0).collect();
        softirqs.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
        let softirqs: Vec<String> =
            softirqs.iter().take(SOFTIRQS).map(|(name, n)| format!("{name} {n}")).collect();
        let softirqs = if softirqs.is_empty() { "none".to_string() } else { softirqs.join(" ") };
        let _ = writeln!(text, "time of cpu{}:{times}; softirqs {softirqs}", cpu.cpu);
    }
    let system = pressure(&state.pressure);
    if let Some(system) = system.strip_prefix(", ") {
        let _ = writeln!(text, "system: {system}");
    }
    for node in &state.nodes {
        let counters: Vec<String> =
            node.counters.iter().filter(|(_, n)| **n > 0).map(|(name, n)| format!("{name} {n}")).collect();
        let _ = writeln!(text, "node{}: {}", node.node, counters.join(" "));
    }
}

/// The shares that are not nothing.
fn times(times: &CpuTimes) -> String {
    let mut text = String::new();
    for (name, ns) in [
        ("user", times.user),
        ("nice", times.nice),
        ("system", times.system),
        ("idle", times.idle),
        ("iowait", times.iowait),
        ("irq", times.irq),
        ("softirq", times.softirq),
        ("steal", times.steal),
        ("guest", times.guest + times.guest_nice),
    ] {
        // Shorter than what is shown of it.
        if ns >= 1_000_000 {
            let _ = write!(text, " {name} {:.3} s", ns as f64 / 1e9);
        }
    }
    text
}

/// What held tasks up, of each resource that did: behind a comma.
pub(super) fn pressure(all: &[PressureState]) -> String {
    let mut text = String::new();
    for pressure in all.iter().filter(|p| p.total_us() > 0) {
        let stall = pressure.some.or(pressure.full).unwrap_or_default();
        let (seconds, tens) = (stall.total_us as f64 / 1e6, stall.averages[0] as f64 / 100.0);
        let _ =
            write!(text, ", {} pressure {seconds:.3} s ({tens:.2} % of the last 10 s)", pressure.resource);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CpuUse, NodeState, StallState};

    #[test]
    fn what_is_nothing_is_not_told() {
        let softirqs = [("TIMER", 5), ("RCU", 9), ("SCHED", 1), ("HI", 2), ("BLOCK", 0)];
        let state = KernelState {
            cpu_use: vec![
                CpuUse {
                    cpu: 0,
                    times: Some(CpuTimes {
                        user: 1_500_000_000,
                        idle: 20_000_000,
                        irq: 999,
                        ..CpuTimes::default()
                    }),
                    softirqs: softirqs.map(|(name, n)| (name.to_string(), n)).into(),
                },
                CpuUse { cpu: 1, ..CpuUse::default() },
            ],
            pressure: vec![
                PressureState {
                    resource: "cpu".into(),
                    some: Some(StallState { total_us: 1_000, averages: [250, 0, 0] }),
                    full: None,
                },
                PressureState { resource: "io".into(), ..PressureState::default() },
            ],
            nodes: vec![NodeState {
                node: 0,
                counters: [("numa_hit".to_string(), 7), ("numa_miss".to_string(), 0)].into(),
            }],
            ..KernelState::default()
        };
        let mut text = String::new();
        around(&mut text, &state);
        assert_eq!(
            text,
            "time of cpu0: user 1.500 s idle 0.020 s; softirqs RCU 9 TIMER 5 HI 2\n\
             time of cpu1:; softirqs none\n\
             system: cpu pressure 0.001 s (2.50 % of the last 10 s)\n\
             node0: numa_hit 7\n"
        );
    }
}
