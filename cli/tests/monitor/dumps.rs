//! What is written of a kernel whose test failed, crashed or hung.

use super::{DETERMINISTIC, common, layout, watched};
use common::case;
use serde_json::Value;

/// Takes as long as the host's patience with a silent guest: 12 s, four times over under
/// emulation.
#[test]
fn a_guest_that_hangs_is_dumped_with_the_tasks_that_hog_it() {
    let (mut command, results) = case("hangs_as_a_whole");
    let output: common::CaseOutput = command.output().expect("running the case").into();
    assert_eq!(output.code, Some(1), "{}", output.text);
    for part in
        ["the guest went silent", "--- kernel state ---", "vcpu0: ", "cpu0: ", "rt prio 0", "ktstr-watchdog"]
    {
        assert!(output.text.contains(part), "expected {part:?} in:\n{}", output.text);
    }
    let dump = common::failure_dump(&results);
    assert_eq!(dump["vcpus"].as_array().map(Vec::len), Some(1), "{dump:#}");
    let runqueues = dump["runqueues"].as_array().expect("runqueues");
    assert_eq!(runqueues.len(), 1, "{dump:#}");
    assert_eq!(runqueues[0]["current"]["class"], "rt", "{dump:#}");
}

/// The dump beside the sidecar of a run that failed, and what the run said.
fn dumped(test: &str, env: &[(&str, &str)]) -> (Value, String) {
    let (mut command, results) = case(test);
    let output: common::CaseOutput =
        command.envs(env.iter().copied()).output().expect("running the case").into();
    assert_eq!(output.code, Some(1), "{}", output.text);
    (common::failure_dump(&results), output.text)
}

/// Names of a runqueue's tasks, the running one first.
fn tasks_of(dump: &Value, cpu: usize) -> Vec<String> {
    let rq = &dump["runqueues"][cpu];
    let queued = rq["runnable"].as_array().expect("tasks");
    std::iter::once(&rq["current"])
        .chain(queued)
        .map(|task| task["comm"].as_str().unwrap_or_default().to_string())
        .collect()
}

#[test]
fn a_real_time_hog_that_stalls_a_runqueue_is_named() {
    for accel in ["tcg", "deterministic"] {
        let (dump, text) = dumped("is_hogged", &[("KTSTR_ACCEL", accel)]);
        common::assert_says(
            &text,
            &[
                "fail_on_stall: cpu1 stalled: hog (pid ",
                "of a real-time class runs without a break while",
                "when this had lasted long enough: fail_on_stall",
                "running hog (pid ",
                "waits   victim (pid ",
                "cgroup /ktstr/hog, CPUs 1, 1 task: hog (",
                "domains of cpu0 cpu1: ",
            ],
        );
        layout::laid_out(&dump, &text);
        let tasks = tasks_of(&dump, 1);
        assert!(tasks[0] == "hog" && tasks.iter().any(|t| t == "victim"), "{tasks:?}");
        assert_eq!(dump["runqueues"][1]["current"]["class"], "rt", "{dump:#}");
    }
}

#[test]
fn a_hog_on_the_cpu_that_deterministic_mode_samples_from_is_named() {
    let (dump, text) = dumped("is_hogged_where_it_is_sampled", DETERMINISTIC);
    common::assert_says(
        &text,
        &["fail_on_stall: cpu0 stalled: hog (pid ", "of a real-time class runs without a break while"],
    );
    let tasks = tasks_of(&dump, 0);
    assert!(["hog", "victim"].iter().all(|name| tasks.iter().any(|t| t == name)), "{tasks:?}");
}

#[test]
fn deadline_tasks_that_run_and_wait_are_listed() {
    let (dump, text) = dumped("is_bound_by_deadlines", &[]);
    let runqueues = dump["runqueues"].as_array().expect("runqueues");
    let queued = runqueues.iter().flat_map(|rq| rq["runnable"].as_array().expect("tasks"));
    let late: Vec<&Value> = queued.filter(|task| task["class"] == "dl").collect();
    assert!(!late.is_empty(), "{text}");
    assert!(late.iter().all(|task| task["comm"] == "late" && task["prio"] == -1), "{late:#?}");
    let all = dump["tasks"].as_array().expect("tasks");
    assert_eq!(
        all.iter().filter(|task| task["class"] == "dl" && task["comm"] == "late").count(),
        3,
        "{text}"
    );
}

/// The numbers behind a word in what the guest said of itself.
fn said(seen: &[&str], word: &str) -> Vec<u64> {
    let line = seen.iter().find(|line| line.split(' ').next() == Some(word));
    let line = line.unwrap_or_else(|| panic!("no {word} in {seen:?}"));
    line.split([' ', '=']).filter_map(|number| number.parse().ok()).collect()
}

/// Each number as the guest said it just before, or a little more.
fn assert_a_little_more(what: &str, said: u64, dumped: &Value, more: u64) {
    let dumped = dumped.as_u64().unwrap_or_else(|| panic!("{what}: no number: {dumped}"));
    assert!((said..=said + more).contains(&dumped), "{what}: the guest said {said}, the dump has {dumped}");
}

#[test]
fn times_softirqs_pressure_pages_and_tasks_are_what_the_guest_says() {
    let (dump, text) = dumped("says_what_it_sees", &[]);
    let (_, seen) = text.split_once("seen from inside: ").expect("what the guest said");
    let (seen, _) = seen.split_once(";\n").or_else(|| seen.split_once(";\"")).unwrap_or((seen, ""));
    let seen: Vec<&str> = seen.split("; ").collect();
    for cpu in 0..2 {
        // USER_HZ is 100; a tick may not have been counted yet, nor idle time to the end.
        let times = &dump["cpu_use"][cpu]["times"];
        let told = said(&seen, &format!("cpu{cpu}"));
        for (name, jiffies) in ["user", "nice", "system", "idle"].iter().zip(&told) {
            let ns = (jiffies * 10_000_000).saturating_sub(20_000_000);
            assert_a_little_more(&format!("cpu{cpu} {name}"), ns, &times[*name], 3_000_000_000);
        }
        assert!(told[0] > 20, "the workers used cpu{cpu}: {told:?}");
        for softirq in ["TIMER", "SCHED", "RCU"] {
            let told = said(&seen, &format!("{softirq}:"))[cpu];
            assert_a_little_more(softirq, told, &dump["cpu_use"][cpu]["softirqs"][softirq], 20_000);
        }
    }
    let pressure = dump["pressure"].as_array().expect("pressure");
    let cpu = pressure.iter().find(|p| p["resource"] == "cpu").expect("of the CPU");
    let told = said(&seen, "some").last().copied().expect("a total");
    assert!(told > 500_000, "ten threads wait for two CPUs: {told} us");
    assert_a_little_more("pressure", told.saturating_sub(5_000), &cpu["some"]["total_us"], 3_000_000);
    for name in ["numa_hit", "local_node"] {
        assert_a_little_more(name, said(&seen, name)[0], &dump["nodes"][0]["counters"][name], 100_000);
    }
    let tasks = dump["tasks"].as_array().expect("tasks");
    let busy: Vec<&&str> = seen.iter().filter(|line| line.starts_with("busy ")).collect();
    assert_eq!(busy.len(), 4, "{seen:?}");
    for line in busy {
        let [pid, parent, pgid, sid] = said(&[line], "busy")[..] else { panic!("{line}") };
        let task =
            tasks.iter().find(|task| task["pid"] == pid).unwrap_or_else(|| panic!("no {pid}:\n{text}"));
        assert_eq!(
            (&task["parent"], &task["pgid"], &task["sid"]),
            (&parent.into(), &pgid.into(), &sid.into())
        );
        assert_eq!((&task["weight"], &task["static_prio"]), (&1024.into(), &120.into()), "{task:#}");
        assert!(task["nivcsw"].as_u64().is_some_and(|n| n > 0), "{task:#}");
    }
    // Two of them run at most; the others can do nothing but wait for the file.
    let path = "rwsem_down_write_slowpath";
    let waiting = tasks.iter().filter(|task| task["comm"] == "writer" && task["lock_slow_path"] == path);
    assert!(waiting.count() >= 2, "{text}");
    common::assert_says(&text, &["task writer (pid ", ", waits in rwsem_down_write_slowpath", " flags 0x"]);
    let domain = &dump["runqueues"][0]["domains"][0];
    assert!(domain["span_weight"] == 2 && domain["schedstat"]["lb_count.idle"].is_u64(), "{domain:#}");
    let reasons = dump["left_out"].as_array().expect("reasons");
    assert!(
        !reasons.is_empty() && reasons.iter().all(|why| why.as_str().is_some_and(|why| why.contains(": ")))
    );
}

#[test]
fn a_cgroup_that_was_left_frozen_is_named() {
    for accel in ["tcg", "deterministic"] {
        let (dump, text) = dumped("is_left_frozen", &[("KTSTR_ACCEL", accel)]);
        common::assert_says(
            &text,
            &[
                "fail_on_stall: cgroup /ktstr/forgotten was left frozen: icicle (pid ",
                "/ktstr/forgotten, CPUs 0-1, FROZEN",
            ],
        );
        let cgroups = dump["cgroups"].as_array().expect("cgroups");
        let frozen: Vec<&Value> = cgroups.iter().filter(|c| c["frozen"] == true).collect();
        assert_eq!(frozen.len(), 1, "{dump:#}");
        assert_eq!(frozen[0]["tasks"].as_array().map(Vec::len), Some(2), "{dump:#}");
    }
}

#[test]
fn a_cgroup_that_was_thawed_again_is_no_fault() {
    let (monitor, text) = watched("is_thawed_again", &[], 0);
    assert_eq!(monitor["violations"], Value::Array(Vec::new()), "{text}");
}

#[test]
fn a_panic_is_dumped_while_the_workers_run() {
    for accel in ["tcg", "deterministic"] {
        let (dump, text) = dumped("panics_at_work", &[("KTSTR_ACCEL", accel)]);
        common::assert_says(&text, &["panicked", "out of ideas", "when the test panicked:", "vcpu0: "]);
        let tasks = [tasks_of(&dump, 0), tasks_of(&dump, 1)].concat();
        assert!(tasks.iter().filter(|t| *t == "busy").count() >= 2, "{tasks:?}");
    }
}

#[test]
fn a_deadly_signal_is_dumped_while_the_workers_run() {
    for accel in ["tcg", "deterministic"] {
        let (dump, text) = dumped("faults_at_work", &[("KTSTR_ACCEL", accel)]);
        common::assert_says(
            &text,
            &["SIGSEGV", "when the test process was hit by a deadly signal:", "vcpu0: "],
        );
        let tasks = [tasks_of(&dump, 0), tasks_of(&dump, 1)].concat();
        assert!(tasks.iter().filter(|t| *t == "busy").count() >= 2, "{tasks:?}");
    }
}

#[test]
fn a_kernel_panic_is_dumped_with_where_each_vcpu_was() {
    for accel in ["tcg", "deterministic"] {
        let (dump, text) = dumped("kills_its_kernel", &[("KTSTR_ACCEL", accel)]);
        let says = ["the guest kernel panicked", "when the guest's kernel had its machine reset:", "sysrq"];
        common::assert_says(&text, &says);
        let tasks = [tasks_of(&dump, 0), tasks_of(&dump, 1)].concat();
        assert!(tasks.iter().any(|t| t == "busy"), "{tasks:?}");
        assert!(dump["console"].as_array().is_some_and(|lines| !lines.is_empty()), "{dump:#}");
        // One vCPU resets the machine, by its last resort of a triple fault; the other was stopped.
        let places: Vec<&str> = (0..2).filter_map(|cpu| dump["vcpus"][cpu]["symbol"].as_str()).collect();
        assert!(places.iter().any(|p| p.starts_with("native_machine_emergency_restart")), "{places:?}");
        assert!(places.iter().any(|p| p.starts_with("stop_this_cpu")), "{places:?}");
        let lines = serde_json::to_string(&dump["vcpus"]).expect("JSON");
        assert!(lines.contains("native_machine_emergency_restart at arch/x86/kernel/reboot.c:"), "{lines}");
    }
}

#[test]
fn a_failed_check_is_dumped_as_it_was_under_load() {
    for accel in ["tcg", "deterministic"] {
        let (dump, text) = dumped("is_too_slow", &[("KTSTR_ACCEL", accel)]);
        common::assert_says(&text, &["at the end of the workload:", "--- kernel state ---", "snail ("]);
        let tasks = [tasks_of(&dump, 0), tasks_of(&dump, 1)].concat();
        assert!(tasks.iter().any(|t| t == "snail"), "{tasks:?}");
        let vcpus = dump["vcpus"].as_array().expect("vCPUs");
        assert_eq!(vcpus.len(), 2, "{dump:#}");
        for vcpu in vcpus {
            let number = |name: &str| vcpu[name].as_u64().unwrap_or_default();
            let root = number("page_table");
            assert!(number("ip") > 0 && number("sp") > 0 && root > 0 && root % 4096 == 0, "{vcpu:#}");
        }
    }
}
