//! What a record says beside the runqueues: what the host counted, how a scenario had been laid out.

use crate::common::assert_says;
use serde_json::Value;

/// What the host counts for each vCPU, or why it doesn't; what interrupts took, or why this kernel doesn't tell.
pub(crate) fn counted_on_the_host(monitor: &Value, reasons: &[Value], text: &str) {
    let counters = &monitor["counters"];
    let has_reason =
        |part: &str| reasons.iter().any(|why| why.as_str().is_some_and(|why| why.contains(part)));
    // A host's own business, of which no deterministic run tells.
    let vcpus = counters["vcpus"].as_array().expect("vCPUs");
    if text.contains("mode=deterministic") {
        assert!(vcpus.is_empty() && has_reason("differs from run to run"), "{counters:#}");
    } else if vcpus.is_empty() {
        assert!(has_reason("performance counters of the vCPUs"), "{counters:#}");
    } else {
        let ran = |vcpu: &Value| vcpu["task_clock_ns"].as_u64().is_none_or(|ns| ns > 100_000_000);
        assert!(vcpus.len() == 4 && vcpus.iter().all(ran), "{counters:#}");
        assert!(vcpus[0]["cycles"].is_u64() || has_reason("cycles"), "{counters:#}");
        assert!(text.contains("4 vCPUs on the host: "), "{text}");
    }
    // Interrupts: their share and what they held up, or why this kernel tells of neither.
    for (number, reason) in
        [("irq_util", "utilization by interrupts: "), ("irq_pressure_us", "pressure by interrupts: ")]
    {
        assert_eq!(monitor[number].is_null(), has_reason(reason), "{number}: {monitor:#}");
    }
}

/// What goes with the dump of a worker that a real-time hog starves: what its scenario had set up, how counters grew.
pub(crate) fn laid_out(dump: &Value, text: &str) {
    let cgroups = dump["setup"]["cgroups"].as_array().expect("cgroups");
    let of = |name: &str| cgroups.iter().find(|cgroup| cgroup["what"] == name).expect(name);
    assert_eq!(of("victim")["detail"], "cpuset.cpus 1; 1 worker of SpinWait", "{cgroups:#?}");
    assert_eq!(of("hog")["detail"], "cpuset.cpus 1; 1 worker of SpinWait, policy Fifo(10)", "{cgroups:#?}");
    assert_says(text, &["--- setup ---\n", "\ncgroup hog: cpuset.cpus 1; 1 worker of SpinWait, policy Fifo"]);
    let timeline = &dump["event_timeline"];
    let points = timeline["points"].as_array().expect("points");
    assert!((5..=64).contains(&points.len()), "{timeline:#}");
    let switches = points.iter().filter_map(|point| point["grown"]["nr_switches"].as_u64());
    assert!(switches.sum::<u64>() > 10, "{timeline:#}");
    assert!(points.windows(2).all(|pair| pair[0]["to_ms"] == pair[1]["from_ms"]), "{timeline:#}");
    assert_says(text, &["--- events over time ---\n+", "left out: sched_ext's event counters: "]);
    let probes = &dump["probe_counters"];
    assert!(probes["left_out"][0].as_str().is_some_and(|why| why.contains("repeats a crash")), "{probes:#}");
    // The vCPUs as the host counted them, where it may be told.
    let counted = dump["vcpus"].as_array().expect("vCPUs").iter().all(|vcpu| vcpu["counters"].is_object());
    let reasons = dump["left_out"].as_array().expect("reasons");
    let why = reasons.iter().any(|why| why.as_str().is_some_and(|why| why.contains("performance counters")));
    assert!(counted || why, "{dump:#}");
    assert!(!(counted && text.contains("mode=deterministic")), "{dump:#}");
}
