//! The host's threads that run the vCPUs, and how much CPU time it has given to each.

use crate::qmp;
use serde_json::{Value, json};
use std::time::Duration;

/// QEMU answers within milliseconds unless the host is swamped; a monitor need not wait.
const PATIENCE: Duration = Duration::from_secs(2);

/// The host threads of the vCPUs, by vCPU number; none when they are not known.
#[derive(Default)]
pub(crate) struct VcpuThreads(Vec<u64>);

impl VcpuThreads {
    /// Asks QEMU, once: vCPUs keep their threads.
    pub(crate) fn of(qmp: &mut qmp::Client) -> Self {
        let answer = qmp.execute("query-cpus-fast", json!({}), PATIENCE);
        Self(answer.ok().and_then(|answer| threads(&answer)).unwrap_or_default())
    }

    /// Their ids; `None` when they are not known.
    pub(crate) fn ids(&self) -> Option<Vec<u32>> {
        let ids = self.0.iter().map(|id| u32::try_from(*id).ok()).collect::<Option<Vec<u32>>>()?;
        (!ids.is_empty()).then_some(ids)
    }

    /// Their times on a CPU of the host; `None` when one of them can't be told.
    pub(crate) fn times(&self) -> Option<Vec<Duration>> {
        if self.0.is_empty() {
            return None;
        }
        let time = |tid: &u64| on_cpu(&std::fs::read_to_string(format!("/proc/{tid}/schedstat")).ok()?);
        self.0.iter().map(time).collect()
    }
}

/// The threads in an answer to `query-cpus-fast`, by `cpu-index`. Under `-icount` all vCPUs
/// share one, whose time says nothing of any of them.
fn threads(answer: &Value) -> Option<Vec<u64>> {
    let mut found: Vec<(u64, u64)> = Vec::new();
    for cpu in answer.as_array()? {
        found.push((cpu.get("cpu-index")?.as_u64()?, cpu.get("thread-id")?.as_u64()?));
    }
    found.sort_unstable();
    let distinct = found.windows(2).all(|pair| pair[0].1 != pair[1].1);
    let dense = found.iter().zip(0..).all(|((cpu, _), expected)| *cpu == expected);
    (distinct && dense).then(|| found.into_iter().map(|(_, tid)| tid).collect())
}

/// The first number of a thread's schedstat: ns on a CPU (Documentation/scheduler/sched-stats.rst).
fn on_cpu(schedstat: &str) -> Option<Duration> {
    schedstat.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_sorted_by_cpu() {
        let answer = json!([{ "cpu-index": 1, "thread-id": 7 }, { "cpu-index": 0, "thread-id": 9 }]);
        assert_eq!(threads(&answer), Some(vec![9, 7]));
    }

    #[test]
    fn a_shared_thread_or_a_strange_answer_tells_nothing() {
        let shared = json!([{ "cpu-index": 0, "thread-id": 9 }, { "cpu-index": 1, "thread-id": 9 }]);
        assert_eq!(threads(&shared), None);
        assert_eq!(threads(&json!([{ "cpu-index": 4, "thread-id": 9 }])), None);
        assert_eq!(threads(&json!({ "error": 1 })), None);
    }

    #[test]
    fn the_time_of_a_thread_of_ours_grows() {
        let time = |text: &str| on_cpu(text);
        assert_eq!(time("123456 7 8"), Some(Duration::from_nanos(123_456)));
        assert_eq!(time(""), None);
        let own = std::fs::read_to_string("/proc/thread-self/schedstat");
        assert!(own.is_err() || on_cpu(&own.unwrap()).is_some());
    }
}
