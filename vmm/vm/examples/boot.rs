//! Boots a kernel and prints its console and its ports.
//!
//! usage: boot KERNEL INITRAMFS [TOPOLOGY] [MIB] [KERNEL ARGUMENT...]

use ktstr_vmm::{Config, Part, Port, Vm};
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn print(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).expect("writing to standard output");
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [kernel, initramfs, rest @ ..] = args.as_slice() else {
        return Err("usage: boot KERNEL INITRAMFS [TOPOLOGY] [MIB] [KERNEL ARGUMENT...]".into());
    };
    let topology = rest.first().map_or("1n1l2c1t", String::as_str).parse()?;
    let mib = rest.get(1).map_or(Ok(512), |mib| mib.parse())?;
    let mut config = Config::new(File::open(kernel)?, topology, mib);
    config.initramfs = vec![Part::File(Arc::new(File::open(initramfs)?))];
    config.command_line =
        format!("console=ttyS0 rdinit=/init panic=-1 {}", rest.get(2..).unwrap_or(&[]).join(" "));
    config.console = Box::new(print);
    config.ports = vec![Port::new("ktstr.data", Box::new(print)), Port::new("ktstr.stdio", Box::new(print))];
    let begin = Instant::now();
    let vm = Vm::boot(config)?;
    for step in vm.setup() {
        println!("{:>10.3?}  {}", step.took, step.what);
    }
    let end = vm.wait(Duration::from_secs(300));
    println!("ended after {:.3?}: {end:?}", begin.elapsed());
    Ok(())
}
