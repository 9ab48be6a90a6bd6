//! Boots a kernel with sched_ext and lets scx-fixture schedule it, under software
//! emulation: how the table in README.md was made.
//!
//! usage: in_vm KERNEL_IMAGE tcg|deterministic nothing|cpuset|affinity|hotplug|second SECONDS [ARGUMENT OF SCX-FIXTURE]…
//!
//! Build first: `cargo build -p scx-fixture --bins --examples`.

use ktstr_initramfs::{Archive, LibrarySearch, closure};
use ktstr_machine::{AccelChoice, Blob, CommandLine, Hypervisor, MachineSpec, VmEvent, memory_floor_mib};
use ktstr_qemu::Qemu;
use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, kernel, accel, plan @ ..] = args.as_slice() else {
        return Err("usage: in_vm KERNEL_IMAGE ACCEL DISTURBANCE SECONDS [ARGUMENT]…".into());
    };
    let AccelChoice::Only(accel) = accel.parse()? else { return Err("tcg or deterministic".into()) };
    let topology: ktstr_topology::Topology = "1n1l4c1t".parse()?;
    let mut cmdline = CommandLine::new();
    cmdline.push("loglevel=7")?;
    let spec = MachineSpec {
        kernel: kernel.into(),
        initramfs: vec![Blob::Bytes(Arc::new(image(plan)?))],
        cmdline,
        memory_mib: memory_floor_mib(topology.total_cpus(), 512),
        topology,
        accel,
        seed: 0,
        verbose: false,
        kaslr: false,
        performance: None,
    };
    let mut vm = Qemu::find(None, std::env::var("PATH").ok().as_deref())?.boot(&spec)?;
    loop {
        match vm.next_event(Duration::from_secs(60))? {
            Some(VmEvent::Console(bytes) | VmEvent::Output(bytes)) => std::io::stdout().write_all(&bytes)?,
            Some(VmEvent::Exited(exit)) => {
                println!("ended: {exit:?}");
                return Ok(());
            }
            Some(_) => {}
            None => return Err("the guest said nothing for a minute".into()),
        }
    }
}

fn image(plan: &[String]) -> Result<Vec<u8>, Box<dyn Error>> {
    // target/<profile>/examples/in_vm
    let exe = std::env::current_exe()?;
    let examples = exe.parent().ok_or("this program is nowhere")?;
    let programs =
        [(examples.join("guest"), "/init"), (examples.with_file_name("scx-fixture"), "/bin/scx-fixture")];
    let search = LibrarySearch::of_system(std::env::var("LD_LIBRARY_PATH").ok().as_deref());
    let mut archive = Archive::new();
    archive.char_device("/dev/console", 5, 1)?;
    archive.file("/plan", 0o644, plan.join("\n").as_bytes())?;
    for (program, at) in &programs {
        add(&mut archive, program, at)?;
        for library in closure(program, &search)? {
            if !archive.contains(&library.destination) {
                add(&mut archive, &library.source, &library.destination)?;
            }
        }
    }
    for dir in ["proc", "sys"] {
        archive.dir(dir)?;
    }
    Ok(archive.finish())
}

fn add(archive: &mut Archive, from: &Path, to: &str) -> Result<(), Box<dyn Error>> {
    let content = std::fs::read(from).map_err(|error| format!("reading {}: {error}", from.display()))?;
    Ok(archive.file(to, 0o755, &ktstr_initramfs::without_debug(&content))?)
}
