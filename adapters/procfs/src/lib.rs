//! What the running system says of itself: CPU topology from sysfs, kernel release, what a process is doing; and which
//! CPUs take which interrupt, which is written as well.
//!
//! Works the same on a host and inside a guest; nothing is cached, every call reads
//! again.

mod error;
mod irq;
mod kallsyms;
mod process;
mod read;
mod render;
mod sysfs;

pub use error::SystemError;
pub use irq::Irqs;
pub use kallsyms::resolve_func_ip;
pub use process::HostProcesses;
pub use render::render_topology;
pub use sysfs::{ObservedTopology, observe_topology, test_topology_from_sysfs};

use ktstr_topology::CpuSet;
use std::path::Path;

/// The running kernel's release, such as `6.12.1` (`/proc/sys/kernel/osrelease`).
///
/// # Errors
/// [`SystemError::Read`] when `/proc` is not mounted.
pub fn kernel_release() -> Result<String, SystemError> {
    let path = Path::new("/proc/sys/kernel/osrelease");
    read::required("reading the kernel release", path)
}

/// The CPUs that are online (`/sys/devices/system/cpu/online`).
///
/// # Errors
/// [`SystemError`] when `/sys` is not mounted or the file holds no cpulist.
pub fn online_cpus() -> Result<CpuSet, SystemError> {
    sysfs::online(Path::new("/sys"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_release_and_a_cpu() {
        assert!(kernel_release().unwrap().starts_with(|c: char| c.is_ascii_digit()));
        assert!(!online_cpus().unwrap().is_empty());
    }

    #[test]
    fn this_machine_has_a_topology() {
        let topology = test_topology_from_sysfs(Path::new("/sys")).unwrap();
        assert_eq!(topology.all_cpuset(), online_cpus().unwrap());
    }
}
