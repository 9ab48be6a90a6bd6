//! Programs attached to a scheduler's own, which print its calls into the trace buffer.

use crate::bpf::{Opened, open_program};
use crate::maps::struct_ops_value;
use crate::program::{Kind, Link, Program, Target, doing};
use ktstr_scheduler::bpf::{at_entry, at_exit};
use ktstr_scheduler::repro::{Callbacks, Probe};

/// What is attached, until dropped.
#[derive(Default)]
pub(crate) struct Attached {
    /// With the names that their source gives them.
    pub(crate) probes: Vec<Probe>,
    /// What could not be attached, and why.
    pub(crate) problems: Vec<String>,
    links: Vec<Link>,
}

/// Attaches to what implements these callbacks of the scheduler that is attached; the numbers of its probes begin at
/// `first`.
pub(crate) fn attach(callbacks: &Callbacks, first: usize) -> Attached {
    let mut attached = Attached::default();
    let value = match struct_ops_value(callbacks.value_type) {
        Ok(value) => value.unwrap_or_default(),
        Err(e) => {
            attached.problems.push(format!("looking for the scheduler's callbacks: {e}"));
            return attached;
        }
    };
    for callback in &callbacks.all {
        // Where nothing implements it there is a zero.
        let Some(id) = program_at(&value, callback.at) else { continue };
        let program = match open_program(id) {
            Ok(program) => program,
            Err(why) => {
                attached.problems.push(format!("{} is not probed: {why}", callback.probe.function));
                continue;
            }
        };
        let mut probe = callback.probe.clone();
        probe.function.clone_from(&program.name);
        probe.line.clone_from(&program.line);
        match put(&program, &probe, first + attached.probes.len()) {
            Ok(links) => {
                attached.links.extend(links);
                attached.probes.push(probe);
            }
            Err(why) => attached.problems.push(format!("{} is not probed: {why}", program.name)),
        }
    }
    attached
}

fn put(program: &Opened, probe: &Probe, number: usize) -> Result<[Link; 2], String> {
    let target = Target { program: &program.fd, function: program.function };
    let link = |kind: Kind<'_>, name: &str, instructions: &[u64]| {
        Program::load(kind, name, instructions)?.attach(None).map_err(doing("attaching to it"))
    };
    Ok([
        link(Kind::Entry(target), "ktstr_entry", &at_entry(probe, number))?,
        link(Kind::Exit(target), "ktstr_exit", &at_exit(probe, number))?,
    ])
}

/// The number of the program that stands there (`bpf_struct_ops_map_update_elem`, kernel/bpf/bpf_struct_ops.c).
fn program_at(value: &[u8], at: u64) -> Option<u32> {
    let at = usize::try_from(at).ok()?;
    let bytes = value.get(at..at.checked_add(8)?)?.try_into().ok()?;
    u32::try_from(u64::from_ne_bytes(bytes)).ok().filter(|id| *id != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_holds_a_program_or_none() {
        let value: Vec<u8> = [0u64, 77, u64::MAX].iter().flat_map(|word| word.to_ne_bytes()).collect();
        let at = |at| program_at(&value, at);
        assert_eq!((at(0), at(8), at(16), at(20), at(u64::MAX)), (None, Some(77), None, None, None));
    }
}
