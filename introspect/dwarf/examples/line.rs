//! `line VMLINUX ADDRESS…`: the source lines of link addresses, inlined functions first.

use ktstr_introspect_dwarf::{DebugSections, SourceLines};
use ktstr_introspect_memory::{Mapping, VirtAddr};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: line VMLINUX ADDRESS…")?;
    let file = Mapping::open(path.as_ref())?;
    let sections = DebugSections::read(file.stable_bytes())?;
    let lines = SourceLines::open(&sections)?;
    for address in arguments {
        let at = VirtAddr(u64::from_str_radix(address.trim_start_matches("0x"), 16)?);
        for frame in lines.frames(at)? {
            let (function, file) = (frame.function.unwrap_or("??".into()), frame.file.unwrap_or("??".into()));
            println!("{address} {function} {file}:{}", frame.line.unwrap_or(0));
        }
    }
    Ok(())
}
