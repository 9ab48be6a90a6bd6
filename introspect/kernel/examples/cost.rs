//! `cost CORE VMLINUX`: what opening a kernel and sampling its runqueues costs, the best and the median of many.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ktstr_introspect_kernel::{Kernel, RunqueueSampler};
use ktstr_introspect_memory::ElfCore;
use ktstr_introspect_symbols::Vmlinux;
use ktstr_introspect_types::Btf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [core, vmlinux] = &arguments[..] else { return Err("usage: cost CORE VMLINUX".into()) };
    let (core, vmlinux) = (Path::new(core), Path::new(vmlinux));
    timed("open vmlinux and its symbols", 20, || {
        Vmlinux::open(vmlinux).and_then(|file| file.symbols()).map(|_| ())
    })?;
    let file = Vmlinux::open(vmlinux)?;
    let bytes = file.section(".BTF").ok_or("no BTF")?;
    timed("open types", 20, || Btf::parse(bytes).map(|btf| btf.named("rq").count()).map(|_| ()))?;
    let open = || -> Result<Kernel, Box<dyn std::error::Error>> {
        Ok(Kernel::open(Arc::new(ElfCore::open(core)?), Some(&Vmlinux::open(vmlinux)?))?)
    };
    timed("open the whole kernel", 20, || open().map(|_| ()))?;
    let sampler = RunqueueSampler::new(&open()?)?;
    let mut samples = Vec::new();
    timed("1000 samples of all CPUs", 200, || (0..1000).try_for_each(|_| sampler.sample(&mut samples)))?;
    println!("{samples:?}");
    Ok(())
}

fn timed<E>(what: &str, times: usize, mut run: impl FnMut() -> Result<(), E>) -> Result<(), E> {
    let mut took: Vec<Duration> = Vec::with_capacity(times);
    for _ in 0..times {
        let start = Instant::now();
        run()?;
        took.push(start.elapsed());
    }
    took.sort();
    println!("{what}: best {:?}, median {:?}", took[0], took[times / 2]);
    Ok(())
}
