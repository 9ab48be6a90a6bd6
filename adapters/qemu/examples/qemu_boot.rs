//! Boots a kernel and an initramfs under QEMU and prints the console.
//!
//! usage: qemu_boot KERNEL INITRAMFS [TOPOLOGY] [tcg|deterministic]

use ktstr_machine::{
    Accel, AccelChoice, Blob, CommandLine, Hypervisor, MachineSpec, VmEvent, memory_floor_mib,
};
use ktstr_qemu::Qemu;
use std::io::Write;
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, kernel, initramfs, rest @ ..] = args.as_slice() else {
        return Err("usage: qemu_boot KERNEL INITRAMFS [TOPOLOGY] [tcg|deterministic]".into());
    };
    let topology: ktstr_topology::Topology = rest.first().map_or("1n1l2c1t", String::as_str).parse()?;
    let accel = match rest.get(1).map(|a| a.parse()).transpose()? {
        Some(AccelChoice::Only(accel)) => accel,
        _ => Accel::Tcg,
    };
    let spec = MachineSpec {
        kernel: kernel.into(),
        initramfs: vec![Blob::File(initramfs.into())],
        cmdline: CommandLine::new(),
        memory_mib: memory_floor_mib(topology.total_cpus(), 512),
        topology,
        accel,
        seed: 0,
        verbose: false,
        kaslr: false,
        performance: None,
    };
    let qemu = Qemu::find(None, std::env::var("PATH").ok().as_deref())?;
    let mut vm = qemu.boot(&spec)?;
    loop {
        match vm.next_event(Duration::from_secs(60))? {
            Some(VmEvent::Console(bytes)) => std::io::stdout().write_all(&bytes)?,
            Some(VmEvent::Output(bytes)) => std::io::stdout().write_all(&bytes)?,
            Some(VmEvent::Paused) => println!("stopped by the guest"),
            Some(VmEvent::Written { address }) => println!("stopped at a write to {address:#x}"),
            Some(VmEvent::LastWords(bytes)) => println!("last words: {}", String::from_utf8_lossy(&bytes)),
            Some(VmEvent::Data(bytes)) => println!("data: {} bytes", bytes.len()),
            Some(VmEvent::Exited(exit)) => {
                println!("ended: {exit:?}");
                return Ok(());
            }
            None => return Err("the guest said nothing for a minute".into()),
        }
    }
}
