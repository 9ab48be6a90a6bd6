//! What stands around the scheduler: modules, CPU times, softirqs, pressure, NUMA counters, locks slept on, out of a kernel
//! written by hand.

use std::sync::Arc;

use ktstr_introspect_kernel::{DomainSchedstat, ErrorKind, Kernel, Task};
use ktstr_introspect_memory::{KernelOffset, LinearRange, PhysAddr, SparseMemory, VirtAddr, VirtualMemory};
use ktstr_introspect_symbols::{Placement, SymbolKind, SymbolTableBuilder};
use ktstr_introspect_types::{Btf, BtfBuilder, TypeId};
use proptest::prelude::*;

const BASE: u64 = 0xffff_8880_0000_0000;
const SIZE: usize = 0x4000;
/// Of the second CPU's area, from the first's.
const CPU: usize = 0x40;

/// Where things lie, in bytes from `BASE`.
mod at {
    pub(super) const PERCPU: usize = 0x40;
    pub(super) const TEXT: usize = 0x100;
    pub(super) const MODULES: usize = 0x300;
    pub(super) const MODULE: usize = 0x340;
    pub(super) const KALLSYMS: usize = 0x400;
    pub(super) const SYMTAB: usize = 0x440;
    pub(super) const STRTAB: usize = 0x500;
    pub(super) const CPUSTAT: usize = 0x600;
    pub(super) const KSTAT: usize = 0x700;
    pub(super) const TICK: usize = 0x800;
    pub(super) const NOHZ: usize = 0x900;
    pub(super) const RUNQUEUES: usize = 0xa00;
    pub(super) const NODE_DATA: usize = 0xb00;
    pub(super) const NODE: usize = 0xb80;
    pub(super) const ZONE_STATS: usize = 0xc00;
    pub(super) const PSI: usize = 0xd00;
    pub(super) const PSI_CPU: usize = 0xe00;
    pub(super) const TASK: usize = 0x1000;
    pub(super) const STACK: usize = 0x2000;
    pub(super) const DOMAIN: usize = 0x3000;
}

fn address(offset: usize) -> u64 {
    BASE + offset as u64
}

fn links(b: &mut BtfBuilder, u64_: TypeId) -> TypeId {
    let list = b.structure("list_head", 16, &[("next", u64_, 0), ("prev", u64_, 8)]);
    b.structure("hlist_head", 8, &[("first", u64_, 0)]);
    b.structure("hlist_node", 16, &[("next", u64_, 0), ("pprev", u64_, 8)]);
    let of_tree = [("__rb_parent_color", u64_, 0), ("rb_right", u64_, 8), ("rb_left", u64_, 16)];
    b.structure("rb_node", 24, &of_tree);
    list
}

fn btf() -> Btf {
    let mut b = BtfBuilder::new();
    let [char_, u32_, u64_] =
        [("char", 1), ("u32", 4), ("u64", 8)].map(|(name, size)| b.integer(name, size, false));
    let list = links(&mut b, u64_);
    let name = b.array(char_, 16);
    let part = b.structure("module_memory", 16, &[("base", u64_, 0), ("size", u32_, 8)]);
    let parts = b.array(part, 3);
    let members = [
        ("state", u32_, 0),
        ("list", list, 8),
        ("name", name, 24),
        ("mem", parts, 40),
        ("kallsyms", u64_, 88),
    ];
    b.structure("module", 96, &members);
    b.enumeration("mod_mem_type", false, &[("MOD_TEXT", 0), ("MOD_DATA", 1), ("MOD_INIT_TEXT", 2)]);
    b.structure("mod_kallsyms", 24, &[("symtab", u64_, 0), ("num_symtab", u32_, 8), ("strtab", u64_, 16)]);
    times(&mut b, [u32_, u64_]);
    memory_nodes(&mut b, [char_, u64_]);
    pressure(&mut b, [u32_, u64_]);
    let thread = b.structure("thread_struct", 8, &[("sp", u64_, 0)]);
    b.structure("task_struct", 16, &[("stack", u64_, 0), ("thread", thread, 8)]);
    let by_type = b.array(u32_, 3);
    b.structure("sched_domain", 16, &[("lb_hot_gained", by_type, 0), ("alb_failed", u32_, 12)]);
    let idle = [("__CPU_NOT_IDLE", 0), ("CPU_IDLE", 1), ("CPU_NEWLY_IDLE", 2), ("CPU_MAX_IDLE_TYPES", 3)];
    b.enumeration("cpu_idle_type", false, &idle);
    Btf::parse(b.bytes()).expect("BTF written here")
}

fn times(b: &mut BtfBuilder, [u32_, u64_]: [TypeId; 2]) {
    // The kernel's own order, so that no number is taken for another by its place.
    let names =
        ["USER", "NICE", "SYSTEM", "SOFTIRQ", "IRQ", "IDLE", "IOWAIT", "STEAL", "GUEST", "GUEST_NICE"];
    let names = names.map(|name| format!("CPUTIME_{name}"));
    let values: Vec<(&str, i32)> = names.iter().map(String::as_str).zip(0..).collect();
    b.enumeration("cpu_usage_stat", false, &values);
    let of_cpu = b.array(u64_, 10);
    b.structure("kernel_cpustat", 80, &[("cpustat", of_cpu, 0)]);
    let softirqs = b.array(u32_, 10);
    b.structure("kernel_stat", 48, &[("irqs_sum", u64_, 0), ("softirqs", softirqs, 8)]);
    let members = [
        ("idle_sleeptime", u64_, 0),
        ("iowait_sleeptime", u64_, 8),
        ("idle_entrytime", u64_, 16),
        ("flags", u64_, 24),
    ];
    b.structure("tick_sched", 32, &members);
    let count = b.structure("atomic_t", 4, &[("counter", u32_, 0)]);
    b.structure("rq", 16, &[("clock", u64_, 0), ("nr_iowait", count, 8)]);
}

fn memory_nodes(b: &mut BtfBuilder, [char_, u64_]: [TypeId; 2]) {
    let events = b.array(u64_, 6);
    b.structure("per_cpu_zonestat", 56, &[("stat_threshold", char_, 0), ("vm_numa_event", events, 8)]);
    let members = [("present_pages", u64_, 0), ("per_cpu_zonestats", u64_, 8), ("vm_numa_event", events, 16)];
    let zone = b.structure("zone", 64, &members);
    let zones = b.array(zone, 2);
    b.structure("pglist_data", 128, &[("node_zones", zones, 0)]);
    let items = ["HIT", "MISS", "FOREIGN", "INTERLEAVE_HIT", "LOCAL", "OTHER"].map(|n| format!("NUMA_{n}"));
    let items: Vec<(&str, i32)> = items.iter().map(String::as_str).zip(0..).collect();
    b.enumeration("numa_stat_item", false, &items);
}

/// States of the CPU, of some and of all, and the one that tells whether anything ran.
fn pressure(b: &mut BtfBuilder, [u32_, u64_]: [TypeId; 2]) {
    b.enumeration("psi_states", false, &[("PSI_CPU_SOME", 0), ("PSI_CPU_FULL", 1), ("PSI_NONIDLE", 2)]);
    let (row, totals) = (b.array(u64_, 3), b.array(u64_, 2));
    let (averages, aggregators) = (b.array(row, 2), b.array(totals, 2));
    let members = [("avg", averages, 0), ("total", aggregators, 48), ("pcpu", u64_, 80)];
    b.structure("psi_group", 88, &members);
    let times = b.array(u32_, 3);
    let previous = b.array(times, 2);
    let members = [
        ("state_mask", u32_, 0),
        ("times", times, 4),
        ("state_start", u64_, 16),
        ("times_prev", previous, 24),
    ];
    b.structure("psi_group_cpu", 48, &members);
}

fn put(bytes: &mut [u8], words: &[(usize, u64)]) {
    for (at, word) in words {
        bytes[*at..at + 8].copy_from_slice(&word.to_le_bytes());
    }
}

fn put32(bytes: &mut [u8], words: &[(usize, u32)]) {
    for (at, word) in words {
        bytes[*at..at + 4].copy_from_slice(&word.to_le_bytes());
    }
}

/// Writes a call of what is at `target`, and tells where it returns to.
fn call(bytes: &mut [u8], at: usize, target: usize) -> u64 {
    bytes[at] = 0xe8;
    bytes[at + 1..at + 5].copy_from_slice(&((target as i32) - (at as i32 + 5)).to_le_bytes());
    address(at + 5)
}

fn healthy() -> Vec<u8> {
    let a = address;
    let mut bytes = vec![0; SIZE];
    put(
        &mut bytes,
        &[(at::PERCPU, 0), (at::PERCPU + 8, CPU as u64), (at::PERCPU + 16, 2), (at::PERCPU + 24, 3)],
    );
    // A module of two functions at 0xffffffffc0000000, the second of which has the mark of an assembler beside it.
    let module = at::MODULE;
    put(
        &mut bytes,
        &[
            (at::MODULES, a(module + 8)),
            (at::MODULES + 8, a(module + 8)),
            (module + 8, a(at::MODULES)),
            (module + 16, a(at::MODULES)),
            (module + 40, 0xffff_ffff_c000_0000),
            (module + 48, 0x100),
            (module + 88, a(at::KALLSYMS)),
            (at::KALLSYMS, a(at::SYMTAB)),
            (at::KALLSYMS + 8, 4),
            (at::KALLSYMS + 16, a(at::STRTAB)),
        ],
    );
    bytes[module + 24..module + 28].copy_from_slice(b"work");
    bytes[at::STRTAB..at::STRTAB + 21].copy_from_slice(b"\0first\0second\0$x\0own\0");
    for (index, (name, section, value)) in
        [(0u32, 0u16, 0u64), (1, 1, 0), (14, 1, 0x40), (7, 1, 0x40)].into_iter().enumerate()
    {
        let symbol = at::SYMTAB + index * 24;
        put32(&mut bytes, &[(symbol, name)]);
        bytes[symbol + 6..symbol + 8].copy_from_slice(&section.to_le_bytes());
        put(&mut bytes, &[(symbol + 8, 0xffff_ffff_c000_0000 + value)]);
    }
    counters(&mut bytes);
    sleeper(&mut bytes);
    bytes
}

fn counters(bytes: &mut [u8]) {
    let a = address;
    // The k-th number of the first CPU is k, of the second (in its area) the one 8 words on.
    let numbers: Vec<(usize, u64)> = (0..18).map(|k| (at::CPUSTAT + k * 8, k as u64)).collect();
    put(bytes, &numbers);
    let counts: Vec<(usize, u32)> = (0..26).map(|k| (at::KSTAT + 8 + k * 4, k as u32)).collect();
    put32(bytes, &counts);
    // The first CPU is idle since 900; the second waits for I/O since 950 and has `nr_iowait` 1. It is 1000.
    put(
        bytes,
        &[
            (at::NOHZ, 1),
            (at::NOHZ + 8, 1000),
            (at::TICK, 10),
            (at::TICK + 8, 20),
            (at::TICK + 16, 900),
            (at::TICK + 24, 1 << 2),
            (at::TICK + CPU, 30),
            (at::TICK + CPU + 8, 40),
            (at::TICK + CPU + 16, 950),
            (at::TICK + CPU + 24, 1 << 2),
            (at::RUNQUEUES, 5_000),
            (at::RUNQUEUES + CPU, 7_000),
            (at::RUNQUEUES + CPU + 8, 1),
            // Node 0 has one zone with pages; node 1 isn't there.
            (at::NODE_DATA, a(at::NODE)),
            (at::NODE_DATA + 0x20, 2),
            (at::NODE, 100),
            (at::NODE + 8, a(at::ZONE_STATS)),
            (at::NODE + 16, 1000),
            (at::NODE + 16 + 5 * 8, 3),
            (at::NODE + 64 + 8, a(at::ZONE_STATS)),
            (at::ZONE_STATS + 8, 20),
            (at::ZONE_STATS + CPU + 8, 4),
            // Some were stalled for 3 ms and 1.28 % of the last ten seconds.
            (at::PSI, 1 << 11 | 600),
            (at::PSI + 48, 3_000_000),
            (at::PSI + 80, a(at::PSI_CPU)),
        ],
    );
    // Since the last averaging the first CPU was stalled for 2000 of 4000 ns, the second for 1000 of 1000 and goes on.
    put32(
        bytes,
        &[
            (at::PSI_CPU + 4, 2_500),
            (at::PSI_CPU + 24, 500),
            (at::PSI_CPU + 12, 4_000),
            (at::PSI_CPU + CPU, 0b101),
            (at::PSI_CPU + CPU + 4, 0),
        ],
    );
    put(bytes, &[(at::PSI_CPU + CPU + 16, 6_000)]);
}

/// A task that a mutex's slow path sent to sleep, through two functions of the scheduler.
fn sleeper(bytes: &mut [u8]) {
    let inner = call(bytes, at::TEXT + 0x48, at::TEXT);
    let middle = call(bytes, at::TEXT + 0x88, at::TEXT + 0x40);
    let outer = call(bytes, at::TEXT + 0xc8, at::TEXT + 0x80);
    put(
        bytes,
        &[
            (at::TASK, address(at::STACK)),
            (at::TASK + 8, address(at::STACK + 0x100)),
            // Between the frames: data, and where something else was called.
            (at::STACK + 0x108, 0x1234),
            (at::STACK + 0x110, inner),
            (at::STACK + 0x120, address(at::TEXT + 0xe0)),
            (at::STACK + 0x128, middle),
            (at::STACK + 0x300, outer),
        ],
    );
    put32(bytes, &[(at::DOMAIN, 1), (at::DOMAIN + 4, 2), (at::DOMAIN + 8, 3), (at::DOMAIN + 12, 4)]);
}

/// A kernel over `bytes` in which whoever called the scheduler has that name.
fn kernel_with(bytes: Vec<u8>, sleeper: &str) -> Kernel {
    let mut physical = SparseMemory::new();
    physical.insert(PhysAddr(0), bytes);
    let direct = LinearRange { start: VirtAddr(BASE), length: 1 << 30, physical: PhysAddr(0) };
    let memory = VirtualMemory::new(Arc::new(physical)).with_linear(direct);
    let mut symbols = SymbolTableBuilder::default();
    for (name, at) in [
        ("__per_cpu_offset", at::PERCPU),
        ("nr_cpu_ids", at::PERCPU + 16),
        ("__cpu_possible_mask", at::PERCPU + 24),
        ("__cpu_online_mask", at::PERCPU + 24),
        ("_stext", at::TEXT),
        ("_etext", at::TEXT + 0x100),
        ("modules", at::MODULES),
        ("kernel_cpustat", at::CPUSTAT),
        ("kstat", at::KSTAT),
        ("tick_nohz_active", at::NOHZ),
        ("tick_next_period", at::NOHZ + 8),
        ("tick_cpu_sched", at::TICK),
        ("runqueues", at::RUNQUEUES),
        ("node_data", at::NODE_DATA),
        ("nr_node_ids", at::NODE_DATA + 0x20),
        ("psi_system", at::PSI),
    ] {
        symbols.push(name.as_bytes(), VirtAddr(address(at)), 8, SymbolKind::Object);
    }
    for (name, at) in
        [("__schedule", 0), ("schedule", 0x40), ("schedule_preempt_disabled", 0x80), (sleeper, 0xc0)]
    {
        symbols.push(name.as_bytes(), VirtAddr(address(at::TEXT + at)), 0x40, SymbolKind::Function);
    }
    let placement = Placement::x86_64(KernelOffset(0), 0);
    Kernel::from_parts(memory, symbols.build(), placement, Arc::new(btf())).expect("types are there")
}

fn kernel(bytes: Vec<u8>) -> Kernel {
    kernel_with(bytes, "__mutex_lock.constprop.0")
}

#[test]
fn code_of_modules_is_named_with_the_module() {
    let kernel = kernel(healthy());
    let named = |at: u64| kernel.module_symbol(VirtAddr(0xffff_ffff_c000_0000 + at)).unwrap();
    assert_eq!(named(0).as_deref(), Some("first [work]"));
    assert_eq!(named(0x3f).as_deref(), Some("first+0x3f [work]"));
    assert_eq!(named(0xff).as_deref(), Some("second+0xbf [work]"));
    assert_eq!(named(0x100), None);
    // One that is only being made has no names yet.
    let mut bytes = healthy();
    put32(&mut bytes, &[(at::MODULE, 3)]);
    assert_eq!(self::kernel(bytes).module_symbol(VirtAddr(0xffff_ffff_c000_0000)).unwrap(), None);
    let mut bytes = healthy();
    put32(&mut bytes, &[(at::KALLSYMS + 8, 1 << 21)]);
    let refused = self::kernel(bytes).module_symbol(VirtAddr(0xffff_ffff_c000_0000)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Torn, "{refused}");
}

#[test]
fn times_are_by_name_and_idle_ones_by_the_tickless_clock() {
    let times = kernel(healthy()).cpu_times().unwrap();
    let (first, second) = (times[0].1, times[1].1);
    assert_eq!((first.user, first.nice, first.system, first.softirq, first.irq), (0, 1, 2, 3, 4));
    assert_eq!((second.user, second.steal, second.guest, second.guest_nice), (8, 15, 16, 17));
    assert_eq!((first.idle, first.iowait), (10 + 100, 20));
    assert_eq!((second.idle, second.iowait), (30, 40 + 50));
    let mut bytes = healthy();
    put(&mut bytes, &[(at::NOHZ, 0)]);
    let ticked = kernel(bytes).cpu_times().unwrap();
    assert_eq!((ticked[0].1.idle, ticked[0].1.iowait), (5, 6));
    let softirqs = kernel(healthy()).softirqs().unwrap();
    assert_eq!((softirqs[0].1[1], softirqs[1].1[9]), (("TIMER", 1), ("RCU", 25)));
}

#[test]
fn nodes_count_what_their_zones_and_their_cpus_have() {
    let nodes = kernel(healthy()).numa_counters().unwrap();
    let [(0, counters)] = nodes.as_slice() else { panic!("{nodes:?}") };
    assert_eq!(counters[0], ("numa_hit", 1024), "the zone without pages has another's CPUs");
    assert_eq!(counters[5], ("other_node", 3));
}

#[test]
fn pressure_is_brought_up_to_date_by_what_each_cpu_has_seen_since() {
    let kernel = kernel(healthy());
    let now = kernel.newest_clock().unwrap();
    assert_eq!(now, 7_000);
    let pressure = kernel.pressure(kernel.system_psi_group().unwrap(), now).unwrap();
    let [cpu] = pressure.as_slice() else { panic!("{pressure:?}") };
    let (some, full) = (cpu.some.unwrap(), cpu.full.unwrap());
    // 2000 and 1000 ns, weighed by 4000 and 1000 ns of not being idle: 1800 ns.
    assert_eq!((cpu.resource, some.total_us, some.averages), ("cpu", 3_001, [129, 0, 0]));
    assert_eq!(full.total_us, 0);
    assert_eq!(kernel.irq_pressure().unwrap_err().kind(), ErrorKind::Absent);
}

#[test]
fn a_sleeper_is_told_with_the_slow_path_that_sent_it_to_sleep() {
    let slept = |sleeper: &str, bytes: Vec<u8>| {
        let kernel = kernel_with(bytes, sleeper);
        kernel.lock_slow_path(&Task::read(&kernel, VirtAddr(address(at::TASK))))
    };
    assert_eq!(slept("__mutex_lock.constprop.0", healthy()).unwrap().as_deref(), Some("__mutex_lock"));
    assert_eq!(slept("do_nanosleep", healthy()).unwrap(), None);
    // Without the call that would have led there, it is a leftover.
    let mut bytes = healthy();
    bytes[at::TEXT + 0xc8] = 0x90;
    assert_eq!(slept("__mutex_lock", bytes).unwrap(), None);
    let mut bytes = healthy();
    put(&mut bytes, &[(at::TASK + 8, address(at::STACK) - 8)]);
    assert_eq!(slept("__mutex_lock", bytes).unwrap_err().kind(), ErrorKind::Torn);
}

#[test]
fn balancing_counters_are_by_what_the_cpu_was_doing() {
    let kernel = kernel(healthy());
    assert_eq!(kernel.idle_types(), ["not_idle", "idle", "newly_idle"]);
    let counters = DomainSchedstat::read(&kernel, VirtAddr(address(at::DOMAIN)));
    assert_eq!((counters.lb_hot_gained_2.unwrap(), counters.alb_failed.unwrap()), (3, 4));
    assert_eq!(counters.lb_imbalance_0.unwrap_err().kind(), ErrorKind::Absent);
}

proptest! {
    /// Words overwritten by pointers into the kernel itself, small numbers or noise: all that can be asked ends.
    #[test]
    fn damage_is_refused_or_answered(damage in proptest::collection::vec((0usize..0x3100 / 8, 0u8..3, any::<u64>()), 0..40)) {
        let mut bytes = healthy();
        for (at, kind, value) in damage {
            let word = match kind {
                0 => address(value as usize % SIZE),
                1 => value % 64,
                _ => value,
            };
            put(&mut bytes, &[(at * 8, word)]);
        }
        let kernel = kernel(bytes);
        let _ = (kernel.cpu_times(), kernel.softirqs(), kernel.numa_counters(), kernel.modules());
        let _ = kernel.module_symbol(VirtAddr(0xffff_ffff_c000_0041));
        let _ = (kernel.pressure(VirtAddr(address(at::PSI)), 9_000), kernel.newest_clock());
        let _ = kernel.lock_slow_path(&Task::read(&kernel, VirtAddr(address(at::TASK))));
    }
}
