//! `peek CORE PHYSICAL [BYTES]`: prints physical memory of an ELF core in hexadecimal.

use std::path::Path;

use ktstr_introspect_memory::{ElfCore, PhysAddr, PhysicalMemory};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [core, address, rest @ ..] = &arguments[..] else {
        return Err("usage: peek CORE PHYSICAL [BYTES]".into());
    };
    let core = ElfCore::open(Path::new(core))?;
    let address = u64::from_str_radix(address.trim_start_matches("0x"), 16)?;
    let length = rest.first().map_or(Ok(64), |text| text.parse())?;
    let mut bytes = vec![0; length];
    core.read(PhysAddr(address), &mut bytes)?;
    for (row, line) in bytes.chunks(16).enumerate() {
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        println!("{:#014x}  {}", address + row as u64 * 16, hex.join(" "));
    }
    Ok(())
}
