//! `variable VMLINUX NAME…`: the sizes of variables by the types that DWARF tells, and how long that took.

use std::sync::Arc;
use std::time::Instant;

use ktstr_introspect_dwarf::{DebugSections, variable_types};
use ktstr_introspect_symbols::Vmlinux;
use ktstr_introspect_types::Btf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = Vmlinux::open(arguments.next().ok_or("usage: variable VMLINUX NAME…")?.as_ref())?;
    let base = Arc::new(Btf::from_elf(file.bytes())?);
    let start = Instant::now();
    let sections = DebugSections::read(file.bytes())?;
    let found = variable_types(&sections, &base)?;
    let bytes: usize = found.parts().iter().map(|part| part.len()).sum();
    println!(
        "{} variables, {} without a type, {} types beyond the kernel's {}, {bytes} bytes, in {:?}",
        found.len(),
        found.left_out(),
        found.types().len() - base.len(),
        base.len(),
        start.elapsed()
    );
    let symbols = file.symbols()?;
    for name in arguments {
        let at = symbols.lookup(&name).ok_or_else(|| format!("there is no symbol {name}"))?.address;
        match found.find(&name, at) {
            Some(ty) => println!("{name} at {at}: {} bytes", found.types().size_of(ty)?),
            None => println!("{name} at {at}: no type"),
        }
    }
    Ok(())
}
