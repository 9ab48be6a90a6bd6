//! What a scenario did, beside what the kernel looked like meanwhile.

use ktstr_monitor::{Mark, MonitorLog, phase_summaries};
use std::time::Duration;

pub use ktstr_monitor::PhaseSummary as PhaseBucket;
pub use ktstr_scenario::StimulusEvent;

/// The monitor's samples by phase of the scenario: what comes before the first step, then each
/// step, with the iterations that its events tell. The samples' times and the events' both count
/// from the scenario's beginning.
pub fn build_phase_buckets_with_stimulus(
    samples: &[ktstr_monitor::Sample],
    events: &[StimulusEvent],
) -> Vec<PhaseBucket> {
    // Ops are no phases.
    let turns = events.iter().filter(|e| e.op_kind.is_empty() && e.step_index > 0);
    let mark = |e: &StimulusEvent| Mark {
        at: Duration::from_millis(e.elapsed_ms),
        label: if e.is_step_end { format!("{} ends", e.label) } else { e.label.clone() },
        step: e.step_index,
        guest_ms: e.elapsed_ms,
        iterations: e.total_iterations,
    };
    let marks = turns.map(mark).collect();
    phase_summaries(&MonitorLog { samples: samples.to_vec(), marks, ..MonitorLog::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ktstr_monitor::{CpuSample, Sample};

    #[test]
    fn samples_fall_into_the_step_whose_event_came_before_them() {
        let sample = |ms, nr_running| Sample {
            at: Duration::from_millis(ms),
            cpus: vec![CpuSample { nr_running, clock: ms, ..CpuSample::default() }],
            events: None,
            queues: None,
        };
        let event = |ms, step_index, is_step_end, total_iterations| StimulusEvent {
            elapsed_ms: ms,
            step_index,
            label: format!("step {step_index}"),
            is_step_end,
            total_iterations,
            ..StimulusEvent::default()
        };
        let events =
            [event(100, 1, false, None), event(1100, 1, true, Some(50)), event(1100, 2, false, None)];
        let op = StimulusEvent { op_kind: "SetCpuset".into(), ..event(500, 1, false, None) };
        let buckets = build_phase_buckets_with_stimulus(
            &[sample(0, 1), sample(600, 2), sample(1200, 6)],
            &[&events[..1], &[op], &events[1..]].concat(),
        );
        let seen: Vec<_> = buckets.iter().map(|b| (b.step, b.samples, b.avg_nr_running)).collect();
        assert_eq!(seen, [(0, 1, 1.0), (1, 1, 2.0), (2, 1, 6.0)]);
        assert_eq!(buckets[1].iteration_rate, Some(50.0));
    }
}
