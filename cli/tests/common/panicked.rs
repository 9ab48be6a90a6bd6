//! A guest that is alive and holds still: its kernel found no root file system, panicked
//! and stays there.

use ktstr_machine::{Accel, CommandLine, ConsoleTail, Hypervisor, MachineSpec, Vm, VmEvent};
use ktstr_qemu::Qemu;
use std::time::{Duration, Instant};

/// How long a machine may take to get there.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Boots the kernel that tests run on, without an initramfs, and waits for its panic.
pub(crate) fn panicked_machine() -> Box<dyn Vm> {
    let kernel = ktstr::find_kernel().expect("looking for a kernel").expect("a kernel");
    let mut cmdline = CommandLine::new();
    cmdline.extend(["panic=0", "root=/dev/none"]).expect("kernel arguments");
    let spec = MachineSpec {
        kernel,
        initramfs: Vec::new(),
        cmdline,
        topology: ktstr::topology::Topology::uniform(1, 1, 2, 1),
        memory_mib: 256,
        accel: Accel::Tcg,
        seed: 0,
        verbose: false,
        kaslr: false,
        performance: None,
    };
    let qemu = Qemu::find(None, std::env::var("PATH").ok().as_deref()).expect("QEMU");
    let mut vm = qemu.boot(&spec).expect("booting");
    let deadline = Instant::now() + PATIENCE;
    let mut console = ConsoleTail::new(50);
    while console.find_last("Kernel panic").is_none() {
        assert!(Instant::now() < deadline, "no panic on the console: {:?}", console.last(10));
        match vm.next_event(Duration::from_secs(1)).expect("an event") {
            Some(VmEvent::Console(bytes)) => console.push(&bytes),
            Some(VmEvent::Exited(exit)) => panic!("the machine ended: {exit:?}, {:?}", console.last(10)),
            _ => {}
        }
    }
    vm
}
