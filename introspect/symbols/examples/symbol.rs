//! `symbol CORE [--vmlinux FILE] NAME|ADDRESS…`: looks symbols up in the kernel of an ELF core; without a vmlinux they
//! are read out of the guest's own kallsyms.

use std::path::Path;

use ktstr_introspect_memory::{ElfCore, VirtAddr};
use ktstr_introspect_symbols::{Kallsyms, Placement, Vmlinux};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).peekable();
    let core =
        ElfCore::open(Path::new(&arguments.next().ok_or("usage: symbol CORE [--vmlinux FILE] NAME…")?))?;
    let (symbols, placement) = if arguments.next_if_eq("--vmlinux").is_some() {
        let vmlinux = Vmlinux::open(Path::new(&arguments.next().ok_or("--vmlinux wants a file")?))?;
        let symbols = vmlinux.symbols()?;
        let placement = Placement::find(&vmlinux, &symbols, &core)?;
        (symbols.with_offset(placement.kaslr), placement)
    } else {
        let found = Kallsyms::find(&core)?;
        println!("kallsyms {:?}, tokens at {}", found.layout, found.tokens_at);
        let placement = Placement::find_runtime(&found.symbols, &core)?;
        (found.symbols, placement)
    };
    let (kernel, kaslr) = (placement.architecture, placement.kaslr);
    println!(
        "{} symbols of {kernel}, kaslr {kaslr}, image offset {:#x}",
        symbols.len(),
        placement.image_offset
    );
    for word in arguments {
        if let Some(hex) = word.strip_prefix("0x") {
            match symbols.at(VirtAddr(u64::from_str_radix(hex, 16)?)) {
                Some((symbol, offset)) => println!("{word} {}+{offset:#x}", symbol.name),
                None => println!("{word} is in no symbol"),
            }
        } else {
            for symbol in symbols.lookup_all(&word) {
                println!("{} {} {:?} size {}", symbol.address, symbol.name, symbol.kind, symbol.size);
            }
        }
    }
    Ok(())
}
