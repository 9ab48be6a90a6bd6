//! Performance mode: has a machine the host's CPUs to itself, as far as the host can.

use crate::settings::Settings;
use anyhow::{Context, Result};
use ktstr_host::{Lease, Locks, Taken, Wanted};
use ktstr_machine::{Host, Hypervisor, MachineSpec, Missing, Placement, place, plan};
use ktstr_topology::CpuSet;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long another machine may keep what this one wants: many times what most tests take.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often it is looked whether that is over.
const LOOK: Duration = Duration::from_millis(200);

/// What a machine runs with.
#[derive(Default)]
pub(super) struct Prepared {
    /// What it does without.
    pub(super) missing: Vec<Missing>,
    /// Held until the machine has ended.
    _lease: Option<Lease>,
}

impl Prepared {
    /// What is missing, for a report; `None` if nothing is.
    pub(super) fn lacks(&self) -> Option<String> {
        let texts: Vec<String> = self.missing.iter().map(ToString::to_string).collect();
        if texts.is_empty() { None } else { Some(texts.join("; ")) }
    }
}

/// Gives the machine what can be had.
///
/// # Errors
/// A host whose files can't be read, or locks that can't be used.
pub(super) fn prepare(
    settings: &Settings,
    hypervisor: &dyn Hypervisor,
    spec: &mut MachineSpec,
) -> Result<Prepared> {
    let Some(mut missing) = hypervisor.performance(spec.accel) else {
        let what = format!("a machine under {} can't have the host's processor to itself", spec.accel);
        let remedy = "use --accel kvm on a host with hardware virtualization".to_string();
        return Ok(Prepared { missing: vec![Missing { what, remedy }], ..Prepared::default() });
    };
    let host = host().context("looking what the host has for performance mode")?;
    let (placement, lease) = match take(&Locks::new(&settings.lock_dir), spec, &host, PATIENCE)? {
        Ok((placement, lease)) => (Ok(placement), Some(lease)),
        Err(lacks) => (Err(lacks), None),
    };
    let mut plan = plan(&spec.topology, spec.memory_mib, placement, &host);
    missing.append(&mut plan.missing);
    spec.memory_mib = plan.memory_mib;
    spec.performance = Some(plan.performance);
    Ok(Prepared { missing, _lease: lease })
}

fn host() -> Result<Host> {
    let sys = Path::new("/sys");
    Ok(Host {
        topology: ktstr_procfs::test_topology_from_sysfs(sys)?,
        usable: ktstr_host::usable_cpus()?,
        realtime: ktstr_host::realtime(),
        huge_pages: ktstr_host::free_huge_pages(sys)?,
    })
}

/// A place that nobody else has, on whichever of the host's LLCs; waits for one.
fn take(
    locks: &Locks,
    spec: &MachineSpec,
    host: &Host,
    patience: Duration,
) -> Result<Result<(Placement, Lease), Missing>> {
    let begin = Instant::now();
    let mut said = false;
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
        if begin.elapsed() > patience {
            return Ok(Err(Missing {
                what: format!(
                    "host CPUs to itself can't be had: others in performance mode had {held} for all of {} s",
                    patience.as_secs()
                ),
                remedy: "run fewer tests at a time (`--test-threads=1`)".to_string(),
            }));
        }
        if !said {
            eprintln!("ktstr: waiting for a machine in performance mode that has {held}");
            said = true;
        }
        std::thread::sleep(LOOK);
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ktstr_machine::{Accel, CommandLine};
    use ktstr_topology::TestTopology;
    use std::collections::BTreeMap;

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
}
