//! Boots a kernel and an initramfs under KVM through the hypervisor port, and prints
//! what it says.
//!
//! usage: kvm_boot KERNEL INITRAMFS [TOPOLOGY]

use ktstr_kvm::Kvm;
use ktstr_machine::{Accel, Blob, CommandLine, Hypervisor, MachineSpec, VmEvent, memory_floor_mib};
use std::io::Write;
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, kernel, initramfs, rest @ ..] = args.as_slice() else {
        return Err("usage: kvm_boot KERNEL INITRAMFS [TOPOLOGY]".into());
    };
    let topology: ktstr_topology::Topology = rest.first().map_or("1n1l2c1t", String::as_str).parse()?;
    let spec = MachineSpec {
        kernel: kernel.into(),
        initramfs: vec![Blob::File(initramfs.into())],
        cmdline: CommandLine::new(),
        memory_mib: memory_floor_mib(topology.total_cpus(), 256),
        topology,
        accel: Accel::Kvm,
        seed: 0,
        verbose: false,
        kaslr: false,
        performance: None,
    };
    let mut vm = Kvm::new().boot(&spec)?;
    println!("setup took {:?}", vm.setup_time());
    loop {
        match vm.next_event(Duration::from_secs(60))? {
            Some(VmEvent::Console(bytes) | VmEvent::Output(bytes)) => std::io::stdout().write_all(&bytes)?,
            Some(VmEvent::LastWords(bytes)) => println!("last words: {}", String::from_utf8_lossy(&bytes)),
            Some(VmEvent::Data(bytes)) => println!("data: {} bytes", bytes.len()),
            Some(VmEvent::Exited(exit)) => {
                println!("ended: {exit:?}");
                return Ok(());
            }
            Some(VmEvent::Paused | VmEvent::Written { .. }) => {}
            None => return Err("the guest said nothing for a minute".into()),
        }
    }
}
