//! A kernel's state in lines.

use super::{around, scheduler};
use crate::{CgroupState, DomainState, KernelState, RunqueueState, TaskState, VcpuState};
use std::fmt::Write;

/// Tasks of a cgroup that are named.
const CGROUP_NAMES: usize = 6;
/// Tasks beyond those of runqueues that have a line.
const MAX_OTHERS: usize = 32;

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
        if let Some(counters) = vcpu.counters {
            let _ = writeln!(text, "       on the host: {}", counters.in_words());
        }
    }
    for rq in &state.runqueues {
        runqueue(&mut text, rq);
    }
    domains(&mut text, &state.runqueues);
    other_tasks(&mut text, state);
    for cgroup in &state.cgroups {
        let _ = writeln!(text, "{}", cgroup_line(cgroup));
    }
    around::around(&mut text, state);
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
    for left_out in &state.left_out {
        let _ = writeln!(text, "left out: {left_out}");
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
    let VcpuState { cpu, ip, sp, page_table, .. } = vcpu;
    format!("vcpu{cpu}: {place} (ip {ip:#x}, sp {sp:#x}, page table {page_table:#x}){halted}")
}

fn runqueue(text: &mut String, rq: &RunqueueState) {
    let (nr, clock) = (rq.nr_running, rq.clock as f64 / 1e9);
    let (switches, scx) = (rq.nr_switches, of_sched_ext(rq));
    let irq = rq.irq_util.filter(|share| *share > 0);
    let irq = irq.map(|share| format!(", interrupts {:.1} %", share as f64 / 10.24)).unwrap_or_default();
    let _ = writeln!(text, "cpu{}: {nr} runnable, clock {clock:.6} s, {switches} switches{irq}{scx}", rq.cpu);
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

fn of_sched_ext(rq: &RunqueueState) -> String {
    let (Some(running), Some(local)) = (rq.scx_nr_running, rq.local_dsq_nr) else { return String::new() };
    let mut text = format!(", sched_ext {running} runnable, {local} in local DSQ");
    if let Some(flags) = rq.scx_flags {
        let _ = write!(text, ", flags {flags:#x}");
    }
    if rq.scx_cpu_released == Some(true) {
        text.push_str(", CPU released");
    }
    for (what, number) in [("ops_qseq", rq.scx_ops_qseq), ("kick_sync", rq.scx_kick_sync)] {
        if let Some(number) = number.filter(|n| *n > 0) {
            let _ = write!(text, ", {what} {number}");
        }
    }
    text
}

/// What is worth a line among the tasks that no runqueue has shown.
fn other_tasks(text: &mut String, state: &KernelState) {
    let queued =
        |rq: &RunqueueState, pid: i64| rq.current.iter().chain(&rq.runnable).any(|task| task.pid == pid);
    let others = state.tasks.iter().filter(|task| {
        let worth = if task.kernel_thread { task.lock_slow_path.is_some() } else { task.is_notable() };
        worth && !state.runqueues.iter().any(|rq| queued(rq, task.pid))
    });
    let others: Vec<&TaskState> = others.collect();
    for task in others.iter().take(MAX_OTHERS) {
        let _ = writeln!(text, "task {}", task_line(task));
    }
    if others.len() > MAX_OTHERS {
        let _ = writeln!(text, "… and {} more such tasks", others.len() - MAX_OTHERS);
    }
    if !state.tasks.is_empty() {
        let kernel = state.tasks.iter().filter(|task| task.kernel_thread).count();
        let _ = writeln!(text, "{} tasks in all, {kernel} of the kernel", state.tasks.len());
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
            format!("{} {} flags {:#x}{failed}", d.name, d.span, d.flags)
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
    line.push_str(&around::pressure(&cgroup.pressure));
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
    let mut line = format!("{comm} (pid {pid}{process}) {class} prio {prio}{state}, ran {ran:.3} s");
    if let Some(path) = &task.lock_slow_path {
        let _ = write!(line, ", waits in {path}");
    }
    if let Some(waiter) = task.pi_waiter {
        let lent = if task.pi_boosted_out { ", which lends it that priority" } else { "" };
        let _ = write!(line, ", holds a lock that pid {waiter} waits for{lent}");
    }
    if let Some(cookie) = task.core_cookie.filter(|cookie| *cookie != 0) {
        let _ = write!(line, ", core cookie {cookie:#x}");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PressureState, StallState, VcpuCounters};

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
                page_table: 0x1234_5000,
                counters: Some(VcpuCounters { page_faults: Some(12), ..VcpuCounters::default() }),
                ..VcpuState::default()
            }],
            runqueues: vec![RunqueueState {
                cpu: 0,
                nr_running: 2,
                current: Some(task(7, "hog")),
                runnable: vec![task(7, "hog"), task(8, "victim")],
                irq_util: Some(256),
                scx_nr_running: Some(2),
                local_dsq_nr: Some(1),
                scx_flags: Some(0x21),
                scx_ops_qseq: Some(9),
                domains: vec![DomainState {
                    name: "MC".into(),
                    span: "0-1".into(),
                    flags: 0x823,
                    ..DomainState::default()
                }],
                ..RunqueueState::default()
            }],
            cgroups: vec![CgroupState {
                path: "/ktstr/cg_0".into(),
                frozen: true,
                cpus: Some("0-1".into()),
                tasks: vec![(8, "victim".into())],
                more: 3,
                pressure: vec![PressureState {
                    resource: "cpu".into(),
                    some: Some(StallState { total_us: 2_500_000, averages: [1234, 0, 0] }),
                    full: None,
                }],
            }],
            sched_ext: Some(crate::SchedExtState {
                state: "enabled".into(),
                ..crate::SchedExtState::default()
            }),
            console: vec!["the last word".into()],
            problems: vec!["the cgroup tree: torn".into()],
            left_out: vec!["the tasks: 4096 of 5000 are listed".into()],
            tasks: vec![
                task(8, "victim"),
                TaskState {
                    state: 2,
                    lock_slow_path: Some("rwsem_down_write_slowpath".into()),
                    ..task(9, "blocked")
                },
                TaskState { state: 1, ..task(10, "asleep") },
                TaskState {
                    state: 1,
                    pi_waiter: Some(8),
                    pi_boosted_out: true,
                    core_cookie: Some(7),
                    ..task(11, "holder")
                },
                TaskState { kernel_thread: true, ..task(12, "kworker/0:1") },
            ],
            ..KernelState::default()
        };
        let text = render_state(&state);
        let at = |needle: &str| text.find(needle).unwrap_or_else(|| panic!("no {needle:?} in:\n{text}"));
        assert!(at("vcpu0: schedule+0x10") < at("cpu0: 2 runnable"));
        assert!(at("running hog (pid 7") < at("waits   victim (pid 8"));
        assert!(text.contains("sp 0x0, page table 0x12345000)"), "{text}");
        assert!(text.contains("0 switches, interrupts 25.0 %, sched_ext 2 runnable"), "{text}");
        assert!(text.contains("page table 0x12345000)\n       on the host: 12 page faults\ncpu0"), "{text}");
        assert!(text.contains("1 in local DSQ, flags 0x21, ops_qseq 9\n"), "{text}");
        assert!(at("waits") < at("domains of cpu0: MC 0-1 flags 0x823"));
        assert!(at("domains") < at("task blocked (pid 9"));
        assert!(text.contains("state D, ran 0.000 s, waits in rwsem_down_write_slowpath\n"), "{text}");
        let holder = "holds a lock that pid 8 waits for, which lends it that priority, core cookie 0x7\n";
        assert!(text.contains(holder), "{text}");
        assert!(at("task blocked") < at("5 tasks in all, 1 of the kernel"));
        assert!(!text.contains("asleep") && !text.contains("kworker"), "{text}");
        assert!(
            at("in all")
                < at("cgroup /ktstr/cg_0, CPUs 0-1, FROZEN, 4 tasks: victim (8) …, cpu pressure 2.500 s")
        );
        assert!(at("sched_ext: enabled") < at("  the last word"));
        assert!(at("the last word") < at("not readable: the cgroup tree"));
        assert!(at("not readable") < at("left out: the tasks: 4096 of 5000 are listed"));
        assert_eq!((text.matches("hog").count(), text.matches("victim").count()), (1, 2));
        let json = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<KernelState>(&json).unwrap(), state);
    }
}
