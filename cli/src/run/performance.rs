//! Performance mode: has a machine the host's CPUs to itself, as far as the host can. A machine without it gets its share.

use super::shares::{self, PATIENCE, Wait};
use crate::settings::Settings;
use anyhow::{Context, Result};
use ktstr_host::{Kept, Lease, Locks, Taken, Wanted, keep_on};
use ktstr_machine::{Host, Hypervisor, MachineSpec, Missing, Placement, place, plan};
use ktstr_run::TestSpec;
use ktstr_topology::CpuSet;
use std::path::Path;
use std::time::Duration;

/// What a machine runs with.
#[derive(Default)]
pub(super) struct Prepared {
    /// What it does without.
    pub(super) missing: Vec<Missing>,
    /// What it has not to itself, held until it has ended; or who kept it from that.
    shared: Option<Result<shares::Place, String>>,
    /// Everything of the machine that is no vCPU stays on the CPU for that.
    kept: Option<Kept>,
    /// Held until the machine has ended.
    _lease: Option<Lease>,
}

impl Prepared {
    /// What is missing, for a report; `None` if nothing is.
    pub(super) fn lacks(&self) -> Option<String> {
        let texts: Vec<String> = self.missing.iter().map(ToString::to_string).collect();
        if texts.is_empty() { None } else { Some(texts.join("; ")) }
    }

    /// Why there is no CPU for it.
    pub(super) fn contended(&self) -> Option<String> {
        self.shared.as_ref().and_then(|shared| shared.as_ref().err()).cloned()
    }

    /// What the report says of it.
    pub(super) fn notes(&self) -> impl Iterator<Item = String> {
        let lacks = |lacks| format!("performance mode, as far as this host has it: {lacks}");
        let place = self.shared.as_ref().and_then(|shared| shared.as_ref().ok());
        self.missing.iter().map(lacks).chain(place.and_then(|place| place.note.clone()))
    }
}

/// Gives the machine of that test what can be had of the host.
///
/// # Errors
/// A host whose files can't be read, a budget that it doesn't have, or locks that can't be used.
pub(super) fn prepare(
    test: &TestSpec,
    settings: &Settings,
    hypervisor: &dyn Hypervisor,
    spec: &mut MachineSpec,
) -> Result<Prepared> {
    let prepared =
        if test.performance_mode { of_its_own(settings, hypervisor, spec)? } else { Prepared::default() };
    // Whoever insists won't run without.
    let ends_here = settings.require_perf_mode && !prepared.missing.is_empty();
    if prepared.kept.is_some() || ends_here {
        return Ok(prepared);
    }
    let no_perf = test.no_perf_mode || settings.no_perf_mode;
    let shared = shares::prepare(settings, spec.topology.total_cpus(), no_perf, test.cpu_budget)?;
    Ok(Prepared { shared: Some(shared), ..prepared })
}

fn of_its_own(settings: &Settings, hypervisor: &dyn Hypervisor, spec: &mut MachineSpec) -> Result<Prepared> {
    let Some(mut missing) = hypervisor.performance(spec.accel) else {
        let what = format!("a machine under {} can't have the host's processor to itself", spec.accel);
        let remedy = "use --accel kvm on a host with hardware virtualization".to_string();
        return Ok(Prepared { missing: vec![Missing { what, remedy }], ..Prepared::default() });
    };
    let host = host(settings).context("looking what the host has for performance mode")?;
    let (placement, lease) = if settings.bypass_llc_locks {
        (place(&spec.topology, &host.topology, &host.usable).map_err(Missing::from), None)
    } else {
        match take(&Locks::new(&settings.lock_dir), spec, &host, PATIENCE)? {
            Ok((placement, lease)) => (Ok(placement), Some(lease)),
            Err(lacks) => (Err(lacks), None),
        }
    };
    let mut plan = plan(&spec.topology, spec.memory_mib, placement, &host);
    missing.append(&mut plan.missing);
    spec.memory_mib = plan.memory_mib;
    // The thread that drives the test and samples the machine's memory, and what it starts; vCPUs go to their own CPUs
    // themselves.
    let rest = plan.performance.placement.as_ref().map(|placement| CpuSet::from([placement.rest]));
    let kept = rest.map(|rest| keep_on(&rest)).transpose()?;
    spec.performance = Some(plan.performance);
    Ok(Prepared { missing, _lease: lease, kept, shared: None })
}

fn host(settings: &Settings) -> Result<Host> {
    let (topology, usable) = shares::capped(settings)?;
    let huge_pages = ktstr_host::free_huge_pages(Path::new("/sys"))?;
    Ok(Host { topology, usable, realtime: ktstr_host::realtime(), huge_pages })
}

/// A place that nobody else has, on whichever of the host's LLCs; waits for one.
fn take(
    locks: &Locks,
    spec: &MachineSpec,
    host: &Host,
    patience: Duration,
) -> Result<Result<(Placement, Lease), Missing>> {
    let mut wait = Wait::new(patience);
    // Kept while it waits, so that nobody who comes later is quicker.
    let Some(_turn) = wait.for_turn(locks)? else {
        return Ok(Err(nobody_left("waited for their CPUs", patience)));
    };
    loop {
        let mut usable = host.usable.clone();
        let mut held = Vec::new();
        let nowhere = loop {
            let placement = match place(&spec.topology, &host.topology, &usable) {
                Ok(placement) => placement,
                Err(nowhere) => break nowhere,
            };
            match locks.try_take(&placement)? {
                Taken::All(lease) => return Ok(Ok((placement, lease))),
                Taken::Busy(wanted) => {
                    usable = usable.difference(&cpus_of(wanted, host));
                    held.push(wanted.to_string());
                }
            }
        };
        if held.is_empty() {
            return Ok(Err(nowhere.into()));
        }
        let held = held.join(", ");
        if !wait.goes_on(Duration::ZERO, &|| format!("other machines that are on {held}")) {
            return Ok(Err(nobody_left(&format!("had {held}"), patience)));
        }
    }
}

fn nobody_left(what: &str, patience: Duration) -> Missing {
    Missing {
        what: format!(
            "host CPUs to itself can't be had: other machines {what} for all of {} s",
            patience.as_secs()
        ),
        remedy: "run fewer tests at a time (`--test-threads=1`)".to_string(),
    }
}

/// The CPUs that can't be used while somebody else has that; never none, so that a search comes to its end.
fn cpus_of(wanted: Wanted, host: &Host) -> CpuSet {
    match wanted {
        Wanted::Llc(id) | Wanted::PartOfLlc(id) => {
            let llc = host.topology.llcs().iter().find(|llc| llc.id == id);
            llc.map(|llc| llc.cpus.clone()).unwrap_or_default()
        }
        Wanted::Cpu(cpu) => CpuSet::from([cpu]),
        // No part of the host, and never in the way of one who has it.
        Wanted::Turn => CpuSet::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ktstr_machine::{Accel, CommandLine, MachineError};
    use ktstr_topology::TestTopology;
    use std::collections::BTreeMap;
    use std::time::Instant;

    fn host(label: &str) -> Host {
        let topology = TestTopology::from_vm_topology(&label.parse().unwrap()).unwrap();
        let usable = topology.all_cpuset();
        Host { topology, usable, realtime: Ok(()), huge_pages: BTreeMap::new() }
    }

    fn spec_of(shape: &str) -> MachineSpec {
        MachineSpec {
            kernel: "/k".into(),
            initramfs: Vec::new(),
            cmdline: CommandLine::new(),
            topology: shape.parse().unwrap(),
            memory_mib: 256,
            accel: Accel::Kvm,
            seed: 0,
            verbose: false,
            kaslr: false,
            performance: None,
        }
    }

    #[test]
    fn machines_at_once_are_on_llcs_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let (locks, host, spec) = (Locks::new(dir.path()), host("1n3l4c1t"), spec_of("1n1l3c1t"));
        let take = || take(&locks, &spec, &host, Duration::from_millis(500)).unwrap();
        let taken: Vec<_> = (0..3).map(|_| take().unwrap()).collect();
        let llcs: Vec<_> = taken.iter().flat_map(|(placement, _)| placement.llcs.clone()).collect();
        assert_eq!(llcs, [0, 1, 2]);
        let text = take().unwrap_err().to_string();
        assert!(
            text.contains("had LLC 0, LLC 1, LLC 2 for all of") && text.contains("--test-threads=1"),
            "{text}"
        );
        drop(taken);
        assert_eq!(take().unwrap().0.llcs, [0]);
        let too_large = spec_of("1n1l5c1t");
        let text = super::take(&locks, &too_large, &host, PATIENCE).unwrap().unwrap_err().to_string();
        assert!(text.contains("1 LLCs of 5 CPUs") && text.contains("smaller machine"), "{text}");
    }

    #[test]
    fn a_machine_waits_for_another_ones_end() {
        let dir = tempfile::tempdir().unwrap();
        let (locks, host, spec) = (Locks::new(dir.path()), host("1n1l4c1t"), spec_of("1n1l2c1t"));
        let (_, first) = take(&locks, &spec, &host, PATIENCE).unwrap().unwrap();
        let (begin, held_for) = (Instant::now(), Duration::from_millis(300));
        let other = std::thread::spawn(move || {
            std::thread::sleep(held_for);
            drop(first);
        });
        take(&locks, &spec, &host, PATIENCE).unwrap().unwrap();
        assert!(begin.elapsed() >= held_for);
        other.join().unwrap();
    }

    /// A hypervisor that can do all of it and runs nothing.
    struct Able;

    impl Hypervisor for Able {
        fn describe(&self) -> Result<String, MachineError> {
            Ok("able".to_string())
        }

        fn performance(&self, _: Accel) -> Option<Vec<Missing>> {
            Some(Vec::new())
        }

        fn boot(&self, spec: &MachineSpec) -> Result<Box<dyn ktstr_machine::Vm>, MachineError> {
            Err(MachineError::Unsupported { accel: spec.accel, what: "no machines".to_string() })
        }
    }

    #[test]
    fn all_but_the_vcpus_stays_on_one_cpu_while_the_machine_has_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let before = ktstr_host::usable_cpus().unwrap();
        if before.len() < 2 {
            eprintln!("skipped: one CPU leaves none for a vCPU of its own");
            return;
        }
        let test = TestSpec { performance_mode: true, ..TestSpec::DEFAULT };
        for bypass_llc_locks in [false, true] {
            let lock_dir = dir.path().to_path_buf();
            let settings = Settings { lock_dir, bypass_llc_locks, ..Settings::default() };
            let mut spec = spec_of("1n1l1c1t");
            let prepared = prepare(&test, &settings, &Able, &mut spec).unwrap();
            let placement = spec.performance.unwrap().placement.unwrap();
            assert_eq!(ktstr_host::usable_cpus().unwrap(), CpuSet::from([placement.rest]));
            assert!(!placement.vcpus.contains(&placement.rest));
            drop(prepared);
            assert_eq!(ktstr_host::usable_cpus().unwrap(), before);
        }
        // Too large for any host: it shares the host with everybody, and says what it lacks.
        let settings = Settings { lock_dir: dir.path().to_path_buf(), ..Settings::default() };
        let large = prepare(&test, &settings, &Able, &mut spec_of("1n1l4000c1t")).unwrap();
        let notes: Vec<String> = large.notes().collect();
        assert!(notes[0].contains("4000 vCPUs and one CPU for everything else"), "{notes:?}");
        assert!(large.contended().is_none() && large.lacks().is_some());
    }
}
