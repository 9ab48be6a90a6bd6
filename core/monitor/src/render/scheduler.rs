//! sched_ext and the scheduler behind it, in lines.

use crate::{AllocatorState, MapState, ProgramState, QueueState, SchedExtState};
use std::borrow::Cow;
use std::fmt::Write;

/// Lines of variables, over all maps.
const MAX_VARIABLES: usize = 40;
/// Entries of one map.
const MAX_ENTRIES: usize = 8;
/// Characters of one value.
const MAX_VALUE: usize = 160;
/// Tasks of a queue that are named.
const QUEUE_NAMES: usize = 6;
/// Symbols of a trace that are named.
const TRACE: usize = 6;

/// What there is to say of sched_ext: of one that never ran, one line.
pub(super) fn sched_ext(text: &mut String, scx: &SchedExtState) {
    let _ = writeln!(text, "{}", head(scx));
    if let Some(exit) = &scx.exit {
        let source = exit.exit_code.map_or("by the kernel's log".to_string(), |code| format!("code {code}"));
        let _ =
            writeln!(text, "  ended: {} ({source}): {}: {}", exit.kind, exit.reason, exit.message.trim_end());
        if !exit.trace.is_empty() {
            let trace: Vec<&str> = exit.trace.iter().take(TRACE).map(String::as_str).collect();
            let _ = writeln!(text, "    at {}", trace.join(" < "));
        }
    }
    // Each CPU has some of its own; they are told where they hold a task.
    let told = scx.dsqs.iter().filter(|queue| queue.nr > 0 || !queue.origin.starts_with("cpu "));
    told.for_each(|queue| text.push_str(&queue_line(queue)));
    let events: Vec<String> =
        scx.events.iter().filter(|(_, n)| **n != 0).map(|(name, n)| format!("{name} {n}")).collect();
    if !events.is_empty() {
        let _ = writeln!(text, "  events: {}", events.join(" "));
    }
    scx.programs.iter().for_each(|program| text.push_str(&program_line(program)));
    let mut room = MAX_VARIABLES;
    scx.maps.iter().for_each(|map| self::map(text, map, &mut room));
}

fn head(scx: &SchedExtState) -> String {
    let mut line = format!("sched_ext: {}", scx.state);
    if let Some(ops) = &scx.ops {
        let _ = match scx.state.as_str() {
            "disabled" => write!(line, ", the last scheduler was {ops}"),
            _ => write!(line, ", scheduler {ops}"),
        };
    }
    // `none` while one runs; `done` before the first, and after each.
    if let Some(kind) = scx.exit_kind.as_ref().filter(|kind| !matches!(kind.as_str(), "none" | "done")) {
        let _ = write!(line, ", exit kind {kind}");
    }
    if scx.aborting == Some(true) {
        line.push_str(", aborting");
    }
    let numbers = [
        ("bypass depth", scx.bypass_depth.filter(|n| *n > 0)),
        ("schedulers so far", scx.enable_seq),
        ("watchdog timeout, jiffies", scx.watchdog_timeout.filter(|_| scx.state != "disabled")),
        ("tasks refused", scx.nr_rejected.filter(|n| *n > 0)),
    ];
    for (what, number) in numbers {
        if let Some(number) = number {
            let _ = write!(line, ", {what} {number}");
        }
    }
    line
}

fn queue_line(queue: &QueueState) -> String {
    let QueueState { name, nr, tasks, by_vtime, origin, .. } = queue;
    let of = if origin.is_empty() { String::new() } else { format!(" of {origin}") };
    let names: Vec<String> =
        tasks.iter().take(QUEUE_NAMES).map(|(pid, comm)| format!("{comm} ({pid})")).collect();
    let order = if *by_vtime { " by virtual time" } else { "" };
    let (colon, more) = match names.len() {
        0 => ("", ""),
        shown if (shown as u64) < *nr => (": ", " …"),
        _ => (": ", ""),
    };
    format!("  DSQ {name}{of} holds {nr}{order}{colon}{}{more}\n", names.join(" "))
}

fn program_line(program: &ProgramState) -> String {
    let mut line = format!("  program {} {} ({})", program.id, program.name, program.implements);
    if let Some(insns) = program.verified_insns {
        let _ = write!(line, ", {insns} instructions verified");
    }
    // Without kernel.bpf_stats_enabled nothing is counted.
    if let Some(mean) = program.run_time_ns.checked_div(program.run_count) {
        let _ = write!(line, ", ran {} times, {mean} ns each", program.run_count);
    }
    if program.misses > 0 {
        let _ = write!(line, ", {} runs prevented by recursion", program.misses);
    }
    line.push('\n');
    line
}

fn map(text: &mut String, map: &MapState, room: &mut usize) {
    let MapState { id, name, kind, key_size, value_size, max_entries, .. } = map;
    let _ = writeln!(
        text,
        "  map {id} {name}: {kind} of at most {max_entries}, key {key_size} bytes, value {value_size} bytes"
    );
    if let Some(note) = &map.note {
        let _ = writeln!(text, "    {note}");
    }
    for entry in map.entries.iter().take(MAX_ENTRIES) {
        let _ = writeln!(text, "    [{}] = {}", cut(&entry.key), cut(&entry.value));
    }
    if map.entries.len() > MAX_ENTRIES || map.truncated {
        let _ = writeln!(text, "    … and more entries");
    }
    map.allocators.iter().for_each(|one| allocator(text, one));
    if map.is_constant() {
        let _ = writeln!(text, "    {} constants", map.variables.len() + map.more);
        return;
    }
    let shown = map.variables.len().min(*room);
    *room -= shown;
    for variable in &map.variables[..shown] {
        let _ = writeln!(text, "    {} = {}", variable.name, cut(&variable.value));
    }
    let more = map.variables.len() - shown + map.more;
    if more > 0 {
        let _ = writeln!(text, "    … and {more} more variables");
    }
}

fn allocator(text: &mut String, allocator: &AllocatorState) {
    let AllocatorState { name, payload_size, note, elements, truncated, .. } = allocator;
    let ty = allocator.payload_type.as_ref().map_or("bytes".to_string(), |ty| format!("struct {ty}"));
    let note = if note.is_empty() { String::new() } else { format!(" ({note})") };
    let more = if *truncated { " or more" } else { "" };
    let _ =
        writeln!(text, "    allocator {name}: {}{more} of {payload_size} bytes, {ty}{note}", elements.len());
    if allocator.passed_over > 0 {
        let _ =
            writeln!(text, "      {} changed while they were read, or can't be read", allocator.passed_over);
    }
    let misplaced = elements.iter().filter(|element| element.misplaced).count();
    if misplaced > 0 {
        let _ = writeln!(text, "      {misplaced} were just given out, or written past their end");
    }
    for element in elements.iter().take(MAX_ENTRIES) {
        let _ = writeln!(text, "      [{}] = {}", element.index, cut(&element.value));
    }
    if elements.len() > MAX_ENTRIES || *truncated {
        let _ = writeln!(text, "      … and more elements");
    }
}

fn cut(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(MAX_VALUE) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ElementState, EntryState, SchedulerExit, VariableState};

    fn rendered(scx: &SchedExtState) -> String {
        let mut text = String::new();
        sched_ext(&mut text, scx);
        text
    }

    #[test]
    fn a_scheduler_is_told_with_queues_programs_and_variables() {
        let variable = |name: &str, value: String| VariableState {
            name: name.into(),
            value,
            ..VariableState::default()
        };
        let scx = SchedExtState {
            state: "enabled".into(),
            ops: Some("fixture".into()),
            exit_kind: Some("error_stall".into()),
            aborting: Some(true),
            events: [("SCX_EV_A".to_string(), 3), ("SCX_EV_B".to_string(), 0)].into(),
            exit: Some(SchedulerExit {
                kind: "error_stall".into(),
                reason: "runnable task stall".into(),
                exit_code: Some(0),
                message: "victim[7] failed to run\n".into(),
                trace: vec!["check_rq_for_timeouts+0x1".into()],
            }),
            dsqs: vec![
                QueueState { name: "local".into(), origin: "cpu 0".into(), ..QueueState::default() },
                QueueState { name: "local".into(), origin: "cpu 1".into(), nr: 1, ..QueueState::default() },
                QueueState { name: "global".into(), origin: "node 0".into(), ..QueueState::default() },
                QueueState {
                    name: "0x7".into(),
                    nr: 3,
                    tasks: vec![(7, "victim".into())],
                    ..QueueState::default()
                },
            ],
            programs: vec![ProgramState {
                id: 4,
                name: "my_enqueue".into(),
                implements: "enqueue".into(),
                verified_insns: Some(99),
                run_count: 2,
                run_time_ns: 300,
                ..ProgramState::default()
            }],
            maps: vec![
                MapState {
                    name: "per_task".into(),
                    note: Some("half full".into()),
                    entries: (0..MAX_ENTRIES + 1)
                        .map(|i| EntryState {
                            key: format!("k{i}"),
                            value: "1".into(),
                            ..EntryState::default()
                        })
                        .collect(),
                    ..MapState::default()
                },
                MapState {
                    name: "arena.bss".into(),
                    allocators: vec![
                        AllocatorState {
                            name: "tasks".into(),
                            payload_size: 16,
                            payload_type: Some("task_ctx".into()),
                            note: "the one".into(),
                            elements: (0..MAX_ENTRIES as u64 + 1)
                                .map(|index| ElementState {
                                    index,
                                    value: "{a = 1}".into(),
                                    misplaced: index == 8,
                                    ..ElementState::default()
                                })
                                .collect(),
                            passed_over: 2,
                            ..AllocatorState::default()
                        },
                        AllocatorState { name: "cells".into(), truncated: true, ..AllocatorState::default() },
                    ],
                    ..MapState::default()
                },
                MapState {
                    name: "some.rodata".into(),
                    variables: vec![variable("constant", "1".into())],
                    ..MapState::default()
                },
                MapState {
                    name: ".bss".into(),
                    variables: (0..MAX_VARIABLES + 2)
                        .map(|i| variable(&format!("v{i}"), "µ".repeat(200)))
                        .collect(),
                    more: 3,
                    ..MapState::default()
                },
            ],
            ..SchedExtState::default()
        };
        let text = rendered(&scx);
        for part in [
            "sched_ext: enabled, scheduler fixture, exit kind error_stall, aborting\n",
            "  DSQ local of cpu 1 holds 1\n  DSQ global of node 0 holds 0\n",
            "  events: SCX_EV_A 3\n",
            "value 0 bytes\n    half full\n    [k0] = 1\n",
            "    [k7] = 1\n    … and more entries\n",
            "  ended: error_stall (code 0): runnable task stall: victim[7] failed to run\n    at check_rq",
            "  DSQ 0x7 holds 3: victim (7) …\n",
            "  program 4 my_enqueue (enqueue), 99 instructions verified, ran 2 times, 150 ns each\n",
            "some.rodata:  of at most 0, key 0 bytes, value 0 bytes\n    1 constants\n",
            "    … and 5 more variables\n",
            "    allocator tasks: 9 of 16 bytes, struct task_ctx (the one)\n      2 changed while",
            "can't be read\n      1 were just given out, or written past their end\n      [0] = {a = 1}\n",
            "      [7] = {a = 1}\n      … and more elements\n    allocator cells: 0 or more of 0 bytes, bytes\n",
        ] {
            assert!(text.contains(part), "expected {part:?} in:\n{text}");
        }
        assert!(!text.contains("of cpu 0"), "{text}");
        assert_eq!(text.matches("    v").count(), MAX_VARIABLES);
        assert!(text.contains(&format!("v0 = {}…\n", "µ".repeat(MAX_VALUE))), "{text}");
    }

    #[test]
    fn of_one_that_never_ran_there_is_one_line() {
        let scx = SchedExtState { state: "disabled".into(), enable_seq: Some(0), ..SchedExtState::default() };
        assert_eq!(rendered(&scx), "sched_ext: disabled, schedulers so far 0\n");
    }
}
