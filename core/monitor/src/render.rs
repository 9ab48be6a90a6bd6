//! The monitor's findings in words.

mod scheduler;

use crate::{
    Assessment, CgroupState, Check, DomainState, KernelState, PhaseSummary, RunqueueState, Schedstat,
    TaskState, VcpuState,
};
use ktstr_assert::Assert;
use std::fmt::Write;

/// Tasks of a cgroup that are named.
const CGROUP_NAMES: usize = 6;

/// The numbers of a run, what lasted beyond a limit, and what could not be seen. `asked`
/// tells the checks that count from those that are only reported.
pub fn render_assessment(assessment: &Assessment, asked: &Assert) -> String {
    let summary = &assessment.summary;
    let total = &summary.total;
    let mut text = match &summary.no_data {
        Some(why) if total.samples == 0 => return format!("nothing to report: {why}"),
        Some(why) => format!("no check was made: {why}\n"),
        None => String::new(),
    };
    let _ = writeln!(
        text,
        "{} samples, {:.0} µs each (the slowest {:.0}); {}",
        total.samples,
        summary.cost_us,
        summary.max_cost_us,
        numbers(total)
    );
    for (what, count) in [("left out as implausible", summary.skipped), ("failed", summary.failed)] {
        if count > 0 {
            let why = summary.last_error.as_deref().filter(|_| what == "failed").unwrap_or_default();
            let _ = writeln!(text, "{count} samples {what}{}{why}", if why.is_empty() { "" } else { ": " });
        }
    }
    if summary.phases.len() > 1 {
        let mut before: Option<&PhaseSummary> = None;
        for phase in &summary.phases {
            let changes = before.map(|before| changes(before, phase)).unwrap_or_default();
            let _ = writeln!(text, "  +{} ms {}: {}{changes}", phase.from_ms, phase.label, told(phase));
            before = Some(phase);
        }
    }
    for (name, rate) in summary.events.iter().filter(|(_, rate)| rate.delta != 0) {
        let _ = writeln!(text, "  {name}: {} (at most {:.0} a second)", rate.delta, rate.max_per_s);
    }
    if let Some(s) = &summary.schedstat {
        let _ = writeln!(text, "{}", schedstat(s));
    }
    for violation in &summary.violations {
        let weight = if violation.check.is_set(asked) { "violation" } else { "report only" };
        let _ = writeln!(text, "{weight}: {}: {}", violation.check.name(), violation.text);
    }
    let set = Check::ALL.iter().filter(|c| c.is_set(asked)).count();
    let _ = match (summary.no_data.is_some(), summary.violations.len()) {
        (true, _) => Ok(()),
        (false, 0) => writeln!(text, "no violation ({set} checks set by the test)"),
        (false, n) => writeln!(text, "{n} violations ({set} checks set by the test)"),
    };
    text
}

/// All but the first two are counted only while `kernel.sched_schedstats` is on
/// (`schedstat_inc` of kernel/sched/stats.h), and a kernel that runs does schedule.
fn schedstat(s: &Schedstat) -> String {
    let mut text = format!("schedstat: waited {} ms over {} slices", s.run_delay / 1_000_000, s.pcount);
    let _ = if s.sched_count == 0 {
        write!(text, " (kernel.sched_schedstats is off: it counted no schedules and wake-ups)")
    } else {
        let (schedules, idle) = (s.sched_count, s.sched_goidle);
        let (wakeups, local, yields) = (s.ttwu_count, s.ttwu_local, s.yld_count);
        write!(
            text,
            ", {schedules} schedules ({idle} to idle), {wakeups} wake-ups ({local} local), {yields} yields"
        )
    };
    text
}

fn told(phase: &PhaseSummary) -> String {
    let rate = phase.iteration_rate.map(|r| format!(", {r:.0} iterations a second")).unwrap_or_default();
    match phase.samples {
        0 => format!("no samples{rate}"),
        n => format!("{n} samples, {}{rate}", numbers(phase)),
    }
}

/// What is markedly better or worse than in the phase before.
fn changes(before: &PhaseSummary, now: &PhaseSummary) -> String {
    let mut found = Vec::new();
    let mut mark = |what: &str, change: Option<f64>, least: f64, more_is_better: bool| {
        if let Some(change) = change.filter(|c| c.abs() >= least) {
            let word = if (change > 0.0) == more_is_better { "improved" } else { "degraded" };
            found.push(format!("{what} {word}"));
        }
    };
    let both = |a: Option<f64>, b: Option<f64>| Some(b? - a?);
    if before.samples > 0 && now.samples > 0 {
        mark("imbalance", Some(now.avg_imbalance_ratio - before.avg_imbalance_ratio), 0.5, false);
        mark("local DSQ", both(before.avg_local_dsq_depth, now.avg_local_dsq_depth), 3.0, false);
        mark("runnable", Some(now.avg_nr_running - before.avg_nr_running), 1.0, false);
    }
    mark("fallbacks", both(before.fallback_rate, now.fallback_rate), 10.0, false);
    mark("keep-last", both(before.keep_last_rate, now.keep_last_rate), 10.0, false);
    let relative = |a: Option<f64>, b: Option<f64>| a.filter(|a| *a > 0.0).and_then(|a| Some(b? / a - 1.0));
    mark("iterations", relative(before.iteration_rate, now.iteration_rate), 0.3, true);
    if found.is_empty() { String::new() } else { format!(" [{}]", found.join(", ")) }
}

fn numbers(phase: &PhaseSummary) -> String {
    let mut text = format!(
        "imbalance max {:.1} avg {:.1}, {:.1} runnable a CPU",
        phase.max_imbalance_ratio, phase.avg_imbalance_ratio, phase.avg_nr_running
    );
    if let (Some(max), Some(avg)) = (phase.max_local_dsq_depth, phase.avg_local_dsq_depth) {
        let _ = write!(text, ", local DSQ max {max} avg {avg:.1}");
    }
    if phase.stalled_intervals > 0 {
        let _ = write!(text, ", a busy clock stood still {} times", phase.stalled_intervals);
    }
    text
}

/// A kernel's state, top down: where each vCPU is, what each runqueue holds.
pub fn render_state(state: &KernelState) -> String {
    let mut text = String::new();
    if !state.moment.is_empty() {
        let _ = writeln!(text, "{}", state.moment);
    }
    for vcpu in &state.vcpus {
        let _ = writeln!(text, "{}", vcpu_line(vcpu));
        for line in &vcpu.source {
            let _ = writeln!(text, "       {line}");
        }
    }
    for rq in &state.runqueues {
        runqueue(&mut text, rq);
    }
    domains(&mut text, &state.runqueues);
    for cgroup in &state.cgroups {
        let _ = writeln!(text, "{}", cgroup_line(cgroup));
    }
    if let Some(scx) = &state.sched_ext {
        scheduler::sched_ext(&mut text, scx);
    }
    if !state.console.is_empty() {
        let _ = writeln!(text, "console, last {} lines:", state.console.len());
        state.console.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
    }
    for problem in &state.problems {
        let _ = writeln!(text, "not readable: {problem}");
    }
    text
}

fn vcpu_line(vcpu: &VcpuState) -> String {
    let place = match &vcpu.symbol {
        Some(symbol) => symbol.clone(),
        None if vcpu.ip < 1 << 63 => "user space".to_string(),
        None => "no known symbol".to_string(),
    };
    let halted = if vcpu.halted { ", halted" } else { "" };
    format!("vcpu{}: {place} (ip {:#x}, sp {:#x}){halted}", vcpu.cpu, vcpu.ip, vcpu.sp)
}

fn runqueue(text: &mut String, rq: &RunqueueState) {
    let scx = match (rq.scx_nr_running, rq.local_dsq_nr) {
        (Some(running), Some(local)) => format!(", sched_ext {running} runnable, {local} in local DSQ"),
        _ => String::new(),
    };
    let (nr, clock) = (rq.nr_running, rq.clock as f64 / 1e9);
    let _ =
        writeln!(text, "cpu{}: {nr} runnable, clock {clock:.6} s, {} switches{scx}", rq.cpu, rq.nr_switches);
    if let Some(task) = &rq.current {
        let _ = writeln!(text, "  running {}", task_line(task));
    }
    for task in rq.runnable.iter().filter(|t| rq.current.as_ref().is_none_or(|c| c.pid != t.pid)) {
        let _ = writeln!(text, "  waits   {}", task_line(task));
    }
    if rq.more > 0 {
        let _ = writeln!(text, "  … and {} more", rq.more);
    }
}

/// CPUs whose domains are the same but for the own CPU's share one line.
fn domains(text: &mut String, runqueues: &[RunqueueState]) {
    let line = |rq: &RunqueueState| {
        let one = |d: &DomainState| {
            let failed = match d.nr_balance_failed {
                0 => String::new(),
                n => format!(" ({n} failed balances)"),
            };
            format!("{} {}{failed}", d.name, d.span)
        };
        rq.domains.iter().map(one).collect::<Vec<_>>().join(" < ")
    };
    let mut lines: Vec<(String, Vec<String>)> = Vec::new();
    for rq in runqueues.iter().filter(|rq| !rq.domains.is_empty()) {
        let (line, cpu) = (line(rq), format!("cpu{}", rq.cpu));
        match lines.iter_mut().find(|(known, _)| *known == line) {
            Some((_, cpus)) => cpus.push(cpu),
            None => lines.push((line, vec![cpu])),
        }
    }
    for (line, cpus) in lines {
        let _ = writeln!(text, "domains of {}: {line}", cpus.join(" "));
    }
}

fn cgroup_line(cgroup: &CgroupState) -> String {
    let mut line = format!("cgroup {}", cgroup.path);
    if let Some(cpus) = &cgroup.cpus {
        let _ = write!(line, ", CPUs {cpus}");
    }
    if cgroup.frozen {
        line.push_str(", FROZEN");
    }
    let count = cgroup.tasks.len() + cgroup.more;
    if count > 0 {
        let names: Vec<String> =
            cgroup.tasks.iter().take(CGROUP_NAMES).map(|(pid, comm)| format!("{comm} ({pid})")).collect();
        let more = if count > names.len() { " …" } else { "" };
        let tasks = if count == 1 { "task" } else { "tasks" };
        let _ = write!(line, ", {count} {tasks}: {}{more}", names.join(" "));
    }
    line
}

fn task_line(task: &TaskState) -> String {
    let TaskState { pid, tgid, comm, class, prio, runtime_ns, .. } = task;
    let process = if pid == tgid { String::new() } else { format!(", process {tgid}") };
    // On a runqueue and not runnable is one that is about to sleep, or was just woken.
    let state = match task.state_letter() {
        'R' => String::new(),
        letter => format!(", state {letter}"),
    };
    let ran = *runtime_ns as f64 / 1e9;
    format!("{comm} (pid {pid}{process}) {class} prio {prio}{state}, ran {ran:.3} s")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sample;
    use crate::{MonitorLog, assess};

    #[test]
    fn a_report_only_violation_is_called_that() {
        let samples = (0..8).map(|i| sample(i * 100, &[9, 1])).collect();
        let log = MonitorLog { samples, ..MonitorLog::default() };
        let text = |asked: &Assert| render_assessment(&assess(&log, asked), asked);
        let lenient = text(&Assert::NO_OVERRIDES);
        assert!(
            lenient.contains("8 samples, 0 µs each") && lenient.contains("report only: max_imbalance"),
            "{lenient}"
        );
        let strict = text(&Assert::NO_OVERRIDES.max_imbalance_ratio(4.0));
        assert!(
            strict.contains("violation: max_imbalance_ratio: runqueues differ by a ratio of 9.0"),
            "{strict}"
        );
    }

    #[test]
    fn marked_changes_are_told_and_small_ones_are_not() {
        let phase = |imbalance, rate| PhaseSummary {
            samples: 3,
            avg_imbalance_ratio: imbalance,
            iteration_rate: Some(rate),
            ..PhaseSummary::default()
        };
        let calm = phase(1.0, 100.0);
        assert_eq!(changes(&calm, &phase(1.4, 120.0)), "");
        assert_eq!(changes(&calm, &phase(1.5, 60.0)), " [imbalance degraded, iterations degraded]");
        assert_eq!(
            changes(&phase(4.0, 100.0), &phase(1.0, 200.0)),
            " [imbalance improved, iterations improved]"
        );
        let unseen = PhaseSummary { samples: 0, ..phase(9.0, 100.0) };
        assert_eq!(changes(&calm, &unseen), "");
        assert!(told(&unseen).starts_with("no samples, 100 iterations"));
    }

    #[test]
    fn nothing_is_said_plainly() {
        let log = MonitorLog::unsampled("not sampled in deterministic mode");
        let text = render_assessment(&assess(&log, &Assert::NO_OVERRIDES), &Assert::NO_OVERRIDES);
        assert_eq!(text, "nothing to report: not sampled in deterministic mode");
    }

    #[test]
    fn a_state_reads_top_down() {
        let task = |pid, comm: &str| TaskState {
            pid,
            tgid: 1,
            comm: comm.into(),
            class: "rt".into(),
            ..TaskState::default()
        };
        let state = KernelState {
            vcpus: vec![VcpuState {
                ip: u64::MAX - 5,
                symbol: Some("schedule+0x10".into()),
                ..VcpuState::default()
            }],
            runqueues: vec![RunqueueState {
                cpu: 0,
                nr_running: 2,
                current: Some(task(7, "hog")),
                runnable: vec![task(7, "hog"), task(8, "victim")],
                ..RunqueueState::default()
            }],
            cgroups: vec![CgroupState {
                path: "/ktstr/cg_0".into(),
                frozen: true,
                cpus: Some("0-1".into()),
                tasks: vec![(8, "victim".into())],
                more: 3,
            }],
            sched_ext: Some(crate::SchedExtState {
                state: "enabled".into(),
                ..crate::SchedExtState::default()
            }),
            console: vec!["the last word".into()],
            problems: vec!["the cgroup tree: torn".into()],
            ..KernelState::default()
        };
        let text = render_state(&state);
        let at = |needle: &str| text.find(needle).unwrap_or_else(|| panic!("no {needle:?} in:\n{text}"));
        assert!(at("vcpu0: schedule+0x10") < at("cpu0: 2 runnable"));
        assert!(at("running hog (pid 7") < at("waits   victim (pid 8"));
        assert!(at("waits") < at("cgroup /ktstr/cg_0, CPUs 0-1, FROZEN, 4 tasks: victim (8) …"));
        assert!(at("sched_ext: enabled") < at("  the last word"));
        assert!(at("the last word") < at("not readable: the cgroup tree"));
        assert_eq!(text.matches("hog").count(), 1);
        let json = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<KernelState>(&json).unwrap(), state);
    }

    #[test]
    fn what_was_not_counted_is_no_zero() {
        let off = Schedstat { run_delay: 7_000_000, pcount: 3, ..Schedstat::default() };
        let text = schedstat(&off);
        assert!(
            text.contains("waited 7 ms over 3 slices") && text.contains("sched_schedstats is off"),
            "{text}"
        );
        let text = schedstat(&Schedstat { sched_count: 5, ttwu_count: 2, ..off });
        assert!(text.ends_with("5 schedules (0 to idle), 2 wake-ups (0 local), 0 yields"), "{text}");
    }
}
