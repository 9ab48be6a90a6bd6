//! `index FOLDER KEY CORE [VMLINUX]`: opens a kernel through the index of that key, which is written when there is none
//! that fits, and says how long it took and what came of the index.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ktstr_introspect_kernel::{IndexFolder, IndexUse};
use ktstr_introspect_memory::ElfCore;
use ktstr_introspect_symbols::Vmlinux;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, key, core, rest @ ..] = &arguments[..] else {
        return Err("usage: index FOLDER KEY CORE [VMLINUX]".into());
    };
    let vmlinux = rest.first().map(|path| Vmlinux::open(Path::new(path))).transpose()?;
    let memory = Arc::new(ElfCore::open(Path::new(core))?);
    let start = Instant::now();
    let (kernel, used) = IndexFolder::new(folder).open_keyed(memory, vmlinux.as_ref(), key)?;
    let took = start.elapsed();
    match used {
        IndexUse::Used => println!("opened from the index in {took:?}"),
        IndexUse::Written(reason) => println!("opened and written in {took:?}: {reason}"),
        IndexUse::NotWritten(error) => println!("opened without an index in {took:?}: {error}"),
    }
    println!(
        "{:#x} moved, {} symbols, {} types, build id {}, {} tasks",
        kernel.placement().kaslr.0,
        kernel.symbols().len(),
        kernel.btf().len(),
        kernel.build_id()?.as_deref().unwrap_or("none"),
        kernel.tasks()?.len()
    );
    Ok(())
}
