//! `offset VMLINUX PATH…`: what a member path compiles to on that kernel.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = std::fs::read(arguments.next().ok_or("usage: offset VMLINUX PATH…")?)?;
    let btf = ktstr_introspect_types::Btf::from_elf(&file)?;
    println!("{btf:?}");
    for path in arguments {
        match btf.plan(&path) {
            Ok(plan) => match plan.offset() {
                Some(offset) => println!("{path}: offset {offset}, {} bytes, {:?}", plan.size(), plan.leaf()),
                None => println!("{path}: through pointers, {} bytes, {:?}", plan.size(), plan.leaf()),
            },
            Err(error) => println!("{path}: {error}"),
        }
    }
    Ok(())
}
