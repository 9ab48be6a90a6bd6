//! Boots a kernel and prints its console: `boot KERNEL INITRAMFS [TOPOLOGY] [MIB]`.

use ktstr_vmm::{Config, Part, Vm};
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [kernel, initramfs, rest @ ..] = args.as_slice() else {
        return Err("usage: boot KERNEL INITRAMFS [TOPOLOGY] [MIB]".into());
    };
    let topology = rest.first().map_or("1n1l2c1t", String::as_str).parse()?;
    let mib = rest.get(1).map_or(Ok(512), |mib| mib.parse())?;
    let mut config = Config::new(File::open(kernel)?, topology, mib);
    config.initramfs = vec![Part::File(Arc::new(File::open(initramfs)?))];
    config.command_line = "console=ttyS0 rdinit=/init panic=-1".to_string();
    config.console = Box::new(|bytes: &[u8]| {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).expect("writing to standard output");
    });
    let end = Vm::boot(config)?.wait(Duration::from_secs(300));
    println!("ended: {end:?}");
    Ok(())
}
