//! Machines that have the host's CPUs to themselves.

use ktstr_machine::{Missing, Performance};
use ktstr_topology::CpuSet;
use ktstr_vmm::{Config, Pages, Threads};
use std::time::Duration;

/// What this host's KVM can't do of it.
pub(crate) fn lacks() -> Vec<Missing> {
    let missing = |what: String, remedy: &str| vec![Missing { what, remedy: remedy.to_string() }];
    match ktstr_vmm::rests_in_guest() {
        Ok(true) => Vec::new(),
        Ok(false) => missing(
            "KVM can't leave HLT and PAUSE to the guest (KVM_CAP_X86_DISABLE_EXITS)".to_string(),
            "a host that is no virtual machine itself, or a newer kernel there, can",
        ),
        Err(e) => missing(format!("what KVM can leave to the guest can't be told: {e}"), "mend that first"),
    }
}

/// Adds it to a machine.
pub(crate) fn apply(performance: &Performance, config: &mut Config) {
    config.ram.prefault = true;
    if performance.huge_pages {
        config.ram.pages = Pages::Huge2M;
    }
    let Some(placement) = &performance.placement else { return };
    config.ram.host_nodes.clone_from(&placement.memory);
    config.threads = Threads {
        vcpus: placement.vcpus.iter().map(|cpu| CpuSet::from([*cpu])).collect(),
        events: CpuSet::from([placement.rest]),
        fifo: performance.realtime,
    };
    // Told only where it is true: nothing takes a CPU away from a vCPU.
    config.realtime = performance.realtime;
    // A vCPU that waits has its CPU all the same, so there is no use in leaving the guest, or in polling outside.
    config.rest_in_guest = true;
    config.halt_poll = Some(Duration::ZERO);
}

#[cfg(test)]
mod tests {
    use super::*;
    use ktstr_machine::Placement;

    fn config() -> Config {
        Config::new(std::fs::File::open("/dev/null").unwrap(), ktstr_topology::Topology::DEFAULT, 256)
    }

    #[test]
    fn a_machine_gets_what_is_there_for_it() {
        let placement =
            Placement { vcpus: vec![4, 2], rest: 7, llcs: vec![0], shared_llc: None, memory: vec![vec![1]] };
        let mut all = config();
        apply(
            &Performance { placement: Some(placement.clone()), realtime: true, huge_pages: true },
            &mut all,
        );
        let threads =
            Threads { vcpus: [4, 2].map(|cpu| [cpu].into()).to_vec(), events: CpuSet::from([7]), fifo: true };
        assert_eq!((all.threads, all.ram.pages), (threads, Pages::Huge2M));
        assert_eq!((all.ram.host_nodes, all.ram.prefault), (vec![vec![1]], true));
        assert!(all.realtime && all.rest_in_guest && all.halt_poll == Some(Duration::ZERO));
        // Somebody may take the CPUs away: the guest isn't told otherwise.
        let mut some = config();
        apply(&Performance { placement: Some(placement), realtime: false, huge_pages: false }, &mut some);
        assert!(!some.realtime && some.rest_in_guest && !some.threads.fifo && some.ram.pages == Pages::Small);
        let mut none = config();
        apply(&Performance::default(), &mut none);
        assert_eq!((none.threads, none.rest_in_guest, none.halt_poll), (Threads::default(), false, None));
    }
}
