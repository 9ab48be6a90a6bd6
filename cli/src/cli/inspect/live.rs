//! `ktstr inspect --live`: the kernel that this program runs on.

use super::{InspectArgs, maps, print, print_values, programs, table, tell};
use crate::live_host::{LiveHost, Recorder, TraceRequest};
use anyhow::{Context, Result, bail};
use comfy_table::Table;
use ktstr_monitor::{Snapshot, TaskState};
use std::process::ExitCode;
use std::time::Duration;

/// What a name of a scheduler's variable begins with.
const OF_BPF: &str = "bpf:";

pub(super) fn run(args: &InspectArgs) -> Result<ExitCode> {
    if let Some(ms) = args.timeline {
        return timeline(Duration::from_millis(ms), args.json);
    }
    let host = LiveHost::new();
    let first = args.machine.as_deref().map(|first| first.to_string_lossy().into_owned());
    let expressions: Vec<String> = first.into_iter().chain(args.expressions.iter().cloned()).collect();
    match host.memory() {
        Ok(memory) => tell(args, memory.kernel(), memory.variables(), &expressions),
        Err(why) => {
            let why = why.to_string();
            tell_by_calls(args, &host, &expressions, &why)
        }
    }
}

/// All threads sleep meanwhile but those that are watched.
fn timeline(window: Duration, json: bool) -> Result<ExitCode> {
    let recorder = Recorder::start(&TraceRequest::default())?;
    std::thread::sleep(window);
    let timeline = recorder.finish()?;
    match json {
        true => println!("{}", serde_json::to_string(&timeline).context("writing the timeline as JSON")?),
        false => print!("{timeline}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// What is told without the kernel's memory.
fn tell_by_calls(args: &InspectArgs, host: &LiveHost, expressions: &[String], why: &str) -> Result<ExitCode> {
    let in_memory = [
        ("--runqueues", args.runqueues),
        ("--domains", args.domains),
        ("--cgroups", args.cgroups),
        ("--dsqs", args.dsqs),
    ];
    if let Some((wish, _)) = in_memory.iter().find(|(_, wished)| *wished) {
        bail!("{wish} is read in the kernel's memory: {why}");
    }
    let snapshot = host.snapshot("now");
    if args.tasks {
        print(&tasks(&snapshot.kernel()?.tasks));
    }
    if args.programs {
        print(&programs(host.programs().context("reading the BPF programs, which takes root")?));
    }
    if args.maps {
        print(&maps(host.maps().context("reading the BPF maps, which takes root")?));
    }
    if !args.tasks && !args.programs && !args.maps && expressions.is_empty() {
        println!("{}", host.sources());
        scheduler(&snapshot)?;
    }
    Ok(print_values(expressions.iter().map(|text| (text.as_str(), value(&snapshot, text, why)))))
}

/// sched_ext, with the programs that the scheduler is made of.
fn scheduler(snapshot: &Snapshot) -> Result<()> {
    let state = snapshot.kernel()?;
    state.problems.iter().for_each(|problem| eprintln!("ktstr: {problem}"));
    let Ok(scx) = snapshot.scx_sched_state() else {
        println!("sched_ext none: {}", state.left_out.last().map_or("", String::as_str));
        return Ok(());
    };
    println!("sched_ext {}, {}", scx.state, scx.ops.as_deref().unwrap_or("no scheduler"));
    let number = |name: &str, n: Option<u64>| n.map_or(String::new(), |n| format!(" {name} {n}"));
    println!("         {}{}", number("enable_seq", scx.enable_seq), number("nr_rejected", scx.nr_rejected));
    scx.events.iter().for_each(|(name, count)| println!("          {name} {count}"));
    if !scx.programs.is_empty() {
        print(&programs(scx.programs.clone()));
    }
    Ok(())
}

/// A variable of the scheduler; all others are in memory.
fn value(snapshot: &Snapshot, text: &str, why: &str) -> Result<String, String> {
    match text.strip_prefix(OF_BPF) {
        Some(path) => snapshot.var(path).map(|field| field.value().to_string()).map_err(|e| e.to_string()),
        None => Err(why.to_string()),
    }
}

fn tasks(all: &[TaskState]) -> Table {
    let mut table = table(&["PID", "TGID", "COMM", "CPU", "STATE", "PRIO", "CLASS", "RAN (ms)"]);
    for task in all {
        table.add_row([
            task.pid.to_string(),
            task.tgid.to_string(),
            task.comm.clone(),
            task.cpu.map_or_else(|| "?".to_string(), |cpu| cpu.to_string()),
            task.state_letter().to_string(),
            task.prio.to_string(),
            task.class.clone(),
            (task.runtime_ns / 1_000_000).to_string(),
        ]);
    }
    table
}
