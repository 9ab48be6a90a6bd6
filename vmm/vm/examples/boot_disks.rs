//! Boots a kernel and prints its console and its ports, and what its disks have done.
//!
//! usage: boot [--disk FILE]... KERNEL INITRAMFS [TOPOLOGY] [MIB] [KERNEL ARGUMENT...]

use ktstr_vmm::{Config, Disk, Part, Port, Vm};
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn print(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).expect("writing to standard output");
}

/// Takes the files that options name from the beginning of `args`, as disks.
fn disks(args: &mut &[String]) -> std::io::Result<Vec<Disk>> {
    let mut disks = Vec::new();
    while let [option, path, rest @ ..] = *args
        && option == "--disk"
    {
        let file = File::options().read(true).write(true).open(path)?;
        disks.push(Disk { file, read_only: false, id: format!("disk-{}", disks.len()) });
        *args = rest;
    }
    Ok(disks)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut args = args.as_slice();
    let disks = disks(&mut args)?;
    let [kernel, initramfs, rest @ ..] = args else {
        return Err(
            "usage: boot [--disk FILE]... KERNEL INITRAMFS [TOPOLOGY] [MIB] [KERNEL ARGUMENT...]".into()
        );
    };
    let topology = rest.first().map_or("1n1l2c1t", String::as_str).parse()?;
    let mib = rest.get(1).map_or(Ok(512), |mib| mib.parse())?;
    let mut config = Config::new(File::open(kernel)?, topology, mib);
    config.initramfs = vec![Part::File(Arc::new(File::open(initramfs)?))];
    config.command_line =
        format!("console=ttyS0 rdinit=/init panic=-1 {}", rest.get(2..).unwrap_or(&[]).join(" "));
    config.console = Box::new(print);
    config.ports = vec![Port::new("ktstr.data", Box::new(print)), Port::new("ktstr.stdio", Box::new(print))];
    let count = disks.len();
    config.disks = disks;
    let begin = Instant::now();
    let vm = Vm::boot(config)?;
    for step in vm.setup() {
        println!("{:>10.3?}  {}", step.took, step.what);
    }
    let end = vm.wait(Duration::from_secs(300));
    println!("ended after {:.3?}: {end:?}", begin.elapsed());
    for counts in (0..count).filter_map(|disk| vm.disk_counts(disk)) {
        println!("{counts:?}");
    }
    Ok(())
}
