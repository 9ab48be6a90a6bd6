//! temporary
fn main() {
    let mut a = std::env::args().skip(1);
    let core = ktstr_introspect_memory::ElfCore::open(std::path::Path::new(&a.next().unwrap())).unwrap();
    let v = ktstr_introspect_symbols::Vmlinux::open(std::path::Path::new(&a.next().unwrap())).unwrap();
    let k = ktstr_introspect_kernel::Kernel::open(std::sync::Arc::new(core), Some(&v)).unwrap();
    for _ in 0..6 {
        let t = std::time::Instant::now();
        let s = ktstr_live_kernel::kernel_state(&k, &[]);
        let t1 = t.elapsed();
        let t = std::time::Instant::now();
        let w = k.scx_longest_wait();
        println!("{t1:?} maps {} wait {:?} {:?}", s.sched_ext.map_or(0, |s| s.maps.len()), t.elapsed(), w.map(|w| w.map(|w| w.waited)));
    }
}
