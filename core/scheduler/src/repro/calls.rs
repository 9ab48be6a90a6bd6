//! Calls: entries paired with exits.

use super::decode::decode;
use super::probe::{Field, Part, Probe};
use super::trace::{Event, ProbeTrace};

/// A call of a probed function.
pub(super) struct Call<'a> {
    pub(super) probe: &'a Probe,
    pub(super) entry: Event,
    pub(super) exit: Option<Event>,
    /// Probed calls around it.
    pub(super) depth: usize,
}

/// The calls of a trace, in the order of their entries. Exits whose entry was not kept are left out.
pub(super) fn calls(trace: &ProbeTrace) -> Vec<Call<'_>> {
    let mut calls: Vec<Call<'_>> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    for event in trace.lines.iter().filter_map(|line| Event::parse(line, &trace.probes)) {
        let Some(probe) = trace.probes.get(event.probe) else { continue };
        let same =
            |at: usize, event: &Event| (calls[at].entry.cpu, calls[at].entry.pid) == (event.cpu, event.pid);
        if event.exit {
            let its = open.iter().rposition(|at| calls[*at].entry.probe == event.probe && same(*at, &event));
            if let Some(at) = its.map(|position| open.remove(position)) {
                calls[at].exit = Some(event);
            }
        } else {
            let depth = open.iter().filter(|at| same(**at, &event)).count();
            open.push(calls.len());
            calls.push(Call { probe, entry: event, exit: None, depth });
        }
    }
    calls
}

impl Call<'_> {
    /// The arguments, as in a call in C; a task by name and pid.
    pub(super) fn arguments(&self) -> String {
        let fields = &self.probe.fields;
        let own = fields.iter().enumerate().filter(|(_, f)| f.member.is_empty());
        own.map(|(at, field)| self.argument(at, field)).collect::<Vec<_>>().join(", ")
    }

    fn argument(&self, at: usize, field: &Field) -> String {
        let name = &field.argument;
        if field.part == Part::Argument {
            return format!("{name}={}", self.at_entry(at).unwrap_or_else(|| "?".to_string()));
        }
        let part = |part: Part| {
            let of = |f: &Field| f.part == part && f.argument == *name;
            self.probe.fields.iter().position(of).and_then(|at| self.at_entry(at))
        };
        if !self.is_there(&self.entry, at) {
            return format!("{name}=NULL");
        }
        match (part(Part::Comm), part(Part::Pid)) {
            (Some(comm), Some(pid)) => format!("{name}={}[{pid}]", comm.trim_matches('"')),
            _ => name.clone(),
        }
    }

    /// The members of each struct at the entry: its argument, and `name=value` of each.
    pub(super) fn structs(&self) -> Vec<(&str, String)> {
        let mut structs: Vec<(&str, String)> = Vec::new();
        for (at, field) in self.probe.fields.iter().enumerate().filter(|(_, f)| f.part == Part::Member) {
            let Some(value) = self.at_entry(at) else { continue };
            let text = format!("{}={value}", field.member);
            match structs.last_mut() {
                Some((argument, all)) if *argument == field.argument => {
                    all.push(' ');
                    all.push_str(&text);
                }
                _ => structs.push((&field.argument, text)),
            }
        }
        structs
    }

    /// What differs at the exit: `name old → new`.
    pub(super) fn changes(&self) -> Vec<String> {
        let Some(exit) = &self.exit else { return Vec::new() };
        let members = self.probe.fields.iter().enumerate().filter(|(_, f)| f.part == Part::Member && f.again);
        let change = |(at, field): (usize, &Field)| {
            // A kernel that can't fetch arguments at an exit says nothing of any.
            exit.values.get(at)?.as_ref()?;
            let none = || "none".to_string();
            let (old, new) = (self.at_entry(at), self.shown(exit, at));
            let text = format!(
                "{}.{} {} → {}",
                field.argument,
                field.member,
                old.clone().unwrap_or_else(none),
                new.clone().unwrap_or_else(none)
            );
            (old != new).then_some(text)
        };
        members.filter_map(change).collect()
    }

    /// What it returned, if it returns anything.
    pub(super) fn returned(&self) -> Option<String> {
        let (_, show) = self.probe.returns.as_ref()?;
        Some(decode(self.exit.as_ref()?.returned.as_deref()?, show))
    }

    fn at_entry(&self, at: usize) -> Option<String> {
        self.shown(&self.entry, at)
    }

    /// A field in words; `None` where it means nothing, behind a null pointer.
    fn shown(&self, event: &Event, at: usize) -> Option<String> {
        let field = self.probe.fields.get(at)?;
        let value = event.values.get(at)?.as_deref()?;
        match field.guard {
            Some(guard) if !self.is_there(event, guard.into()) => None,
            _ => Some(decode(value, &field.show)),
        }
    }

    /// True if the pointer in that field, and those on the way to it, are not null.
    fn is_there(&self, event: &Event, at: usize) -> bool {
        let Some(field) = self.probe.fields.get(at) else { return false };
        // Arguments are fetched at the entry only.
        let event = if field.again { event } else { &self.entry };
        let set = event.values.get(at).and_then(Option::as_deref).is_some_and(|v| v != "0x0");
        // Guards refer backwards, so there is an end to this.
        set && field.guard.is_none_or(|guard| usize::from(guard) < at && self.is_there(event, guard.into()))
    }
}
