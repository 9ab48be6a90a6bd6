//! What a machine is made of.

use crate::{Hit, Threads, VmEnd};
use ktstr_topology::Topology;
use ktstr_vmm_boot::Part;
use ktstr_vmm_devices::Sink;
use ktstr_vmm_devices::virtio::Port;
use ktstr_vmm_memory::RamOptions;
use std::fs::File;
use std::time::Duration;

/// Told of what vCPUs hit.
pub type OnTrap = Box<dyn FnMut(&[Hit]) + Send>;

/// A disk: `/dev/vda` for the first one.
pub struct Disk {
    /// A regular file or a memfd, whose bytes are the disk's; a multiple of 512 of them.
    pub file: File,
    /// True for a disk that the guest can't write to; the file need not be writable then.
    pub read_only: bool,
    /// What the guest reads in `/sys/block/vda/serial`; at most 20 bytes of ASCII.
    pub id: String,
}

/// A machine to boot.
pub struct Config {
    /// Kernel image: a bzImage or a vmlinux with a PVH note.
    pub kernel: File,
    /// Parts of the initramfs, concatenated.
    pub initramfs: Vec<Part>,
    /// Kernel command line, as it is.
    pub command_line: String,
    /// CPUs and NUMA nodes.
    pub topology: Topology,
    /// RAM in MiB, shared among the nodes that don't name their own size.
    pub memory_mib: u64,
    /// How RAM is backed.
    pub ram: RamOptions,
    /// True when each vCPU has a host CPU of its own: the guest is told that it is
    /// never preempted.
    pub realtime: bool,
    /// True to have a halted or spinning guest stay on its host CPU, as on a processor of its own, as far as KVM can
    /// ([`rests_in_guest`](crate::rests_in_guest)). What else wants to run there waits.
    pub rest_in_guest: bool,
    /// Where its threads run on the host.
    pub threads: Threads,
    /// How long a halted vCPU is waited for on its host CPU before that is given up
    /// (`KVM_CAP_HALT_POLL`); `None`, or an older kernel, leaves it to the host's `kvm.halt_poll_ns`.
    pub halt_poll: Option<Duration>,
    /// True to confine each of the machine's threads by a seccomp filter: it can run the guest, read, write, lock and
    /// wait, and no more. Sinks and `on_end` run on these threads and must get along with that. What is asked for
    /// all the same is refused (`EPERM`), and the machine ends with a reason that names it.
    pub confine: bool,
    /// Where the first serial port, `ttyS0`, goes.
    pub console: Box<dyn Sink>,
    /// Where the second serial port, `ttyS1`, goes.
    pub second_serial: Box<dyn Sink>,
    /// Where a terminal on the virtio console goes, `hvc0`, which takes input as port 0 of [`Vm::send`](crate::Vm::send);
    /// `None` for a machine without one.
    pub terminal: Option<Box<dyn Sink>>,
    /// Named ports of the virtio console, numbered from 1.
    pub ports: Vec<Port>,
    /// Disks, in the order of their letters.
    pub disks: Vec<Disk>,
    /// Told that breakpoints or watchpoints ([`Vm::watch`](crate::Vm::watch)) were hit; all vCPUs stand still then, until
    /// [`Vm::resume`](crate::Vm::resume), which must not be called from here.
    pub on_trap: OnTrap,
    /// Told once how the machine ended, after everything that it said was handed to
    /// the sinks.
    pub on_end: Box<dyn FnOnce(VmEnd) + Send>,
}

impl Config {
    /// A machine with this kernel, shape and RAM, that says nothing to no one.
    #[must_use]
    pub fn new(kernel: File, topology: Topology, memory_mib: u64) -> Self {
        Self {
            kernel,
            initramfs: Vec::new(),
            command_line: String::new(),
            topology,
            memory_mib,
            ram: RamOptions::default(),
            realtime: false,
            rest_in_guest: false,
            threads: Threads::default(),
            halt_poll: None,
            confine: false,
            console: Box::new(|_: &[u8]| {}),
            second_serial: Box::new(|_: &[u8]| {}),
            terminal: None,
            ports: Vec::new(),
            disks: Vec::new(),
            on_trap: Box::new(|_| {}),
            on_end: Box::new(|_| {}),
        }
    }
}
