//! `cost CORE VMLINUX`: what opening a kernel and sampling its runqueues costs, best and median of many in nanoseconds, as
//! one line of JSON. `cargo xtask bench introspect` runs it beside drgn.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ktstr_introspect_kernel::{Index, IndexFolder, IndexUse, Kernel, RunqueueSampler};
use ktstr_introspect_memory::ElfCore;
use ktstr_introspect_symbols::Vmlinux;
use ktstr_introspect_types::Btf;
use serde_json::{Map, Value, json};

const OPENINGS: usize = 20;
const BATCHES: usize = 200;
const BATCH: u64 = 1000;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [core, vmlinux] = &arguments[..] else { return Err("usage: cost CORE VMLINUX".into()) };
    let (core, vmlinux) = (Path::new(core), Path::new(vmlinux));
    let mut out = Map::new();
    let folder = std::env::temp_dir().join(format!("ktstr-index-cost-{}", std::process::id()));
    let outcome = measure(core, vmlinux, &folder, &mut out);
    // Of no use to anyone, and in a folder that the system empties.
    let _ = std::fs::remove_dir_all(&folder);
    outcome?;
    println!("{}", Value::from(out));
    Ok(())
}

fn measure(
    core: &Path,
    vmlinux: &Path,
    folder: &Path,
    out: &mut Map<String, Value>,
) -> Result<(), Box<dyn Error>> {
    let symbols_and_types = || -> Result<(), Box<dyn Error>> {
        let file = Vmlinux::open(vmlinux)?;
        let symbols = file.symbols()?;
        let types = Btf::parse(file.section(".BTF").ok_or("no BTF")?)?;
        (symbols.lookup("runqueues").is_some() && types.plan("rq.nr_running").is_ok())
            .then_some(())
            .ok_or("no rq".into())
    };
    out.insert("symbols_and_types".into(), timed(OPENINGS, 1, symbols_and_types)?);
    let memory = || -> Result<Arc<ElfCore>, Box<dyn Error>> { Ok(Arc::new(ElfCore::open(core)?)) };
    let open =
        || -> Result<Kernel, Box<dyn Error>> { Ok(Kernel::open(memory()?, Some(&Vmlinux::open(vmlinux)?))?) };
    out.insert("kernel".into(), timed(OPENINGS, 1, || open().map(|_| ()))?);

    let indexes = IndexFolder::new(folder);
    let file = Vmlinux::open(vmlinux)?;
    let (kernel, used) = indexes.open(memory()?, &file)?;
    let IndexUse::Written(_) = used else { return Err(format!("no index was written: {used:?}").into()) };
    let path = indexes.path(&kernel.build_id()?.ok_or("no build id")?)?;
    let from_index = || -> Result<(), Box<dyn Error>> {
        let index = Index::open(&path)?;
        let found =
            index.symbols().lookup("runqueues").is_some() && index.types().plan("rq.nr_running").is_ok();
        found.then_some(()).ok_or("no rq".into())
    };
    out.insert("index".into(), timed(OPENINGS, 1, from_index)?);
    let indexed = || -> Result<(), Box<dyn Error>> {
        let (_, used) = indexes.open(memory()?, &Vmlinux::open(vmlinux)?)?;
        matches!(used, IndexUse::Used).then_some(()).ok_or("the index wasn't used".into())
    };
    out.insert("kernel_from_index".into(), timed(OPENINGS, 1, indexed)?);
    out.insert("index_bytes".into(), std::fs::metadata(&path)?.len().into());

    let sampler = RunqueueSampler::new(&kernel)?;
    let mut samples = Vec::new();
    let sample = || (0..BATCH).try_for_each(|_| sampler.sample(&mut samples));
    out.insert("sample".into(), timed(BATCHES, BATCH, sample)?);
    out.insert("cpus".into(), samples.len().into());
    out.insert("local_dsq".into(), samples.iter().all(|sample| sample.local_dsq_nr.is_some()).into());
    Ok(())
}

/// Best and median of `times` runs, each of which does `each` things.
fn timed<E>(times: usize, each: u64, mut run: impl FnMut() -> Result<(), E>) -> Result<Value, E> {
    let mut took: Vec<f64> = Vec::with_capacity(times);
    for _ in 0..times {
        let start = Instant::now();
        run()?;
        took.push(start.elapsed().as_nanos() as f64 / each as f64);
    }
    took.sort_by(f64::total_cmp);
    Ok(json!({ "best": took[0], "median": took[times / 2] }))
}
