//! `tasks CORE [VMLINUX]`: the threads in an ELF core, much as `ps` shows them. Without a vmlinux, symbols and types
//! are read out of the guest's own memory.

use std::path::Path;
use std::sync::Arc;

use ktstr_introspect_kernel::{Kernel, Task};
use ktstr_introspect_memory::ElfCore;
use ktstr_introspect_symbols::Vmlinux;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let core = ElfCore::open(Path::new(&arguments.next().ok_or("usage: tasks CORE [VMLINUX]")?))?;
    let vmlinux = arguments.next().map(|path| Vmlinux::open(Path::new(&path))).transpose()?;
    let kernel = Kernel::open(Arc::new(core), vmlinux.as_ref())?;
    println!("{:>7} {:>7} {:16} {:>3} {:>5} {:>4} CLASS", "PID", "TGID", "COMM", "CPU", "STATE", "PRIO");
    for address in kernel.tasks()? {
        let task = Task::read(&kernel, address);
        let class = kernel.class_of(&task)?;
        let (comm, state) = (task.comm?, task.state?);
        println!(
            "{:>7} {:>7} {comm:16} {:>3} {state:#5x} {:>4} {class}",
            task.pid?, task.tgid?, task.cpu?, task.prio?
        );
    }
    Ok(())
}
