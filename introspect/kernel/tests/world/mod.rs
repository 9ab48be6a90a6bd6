//! A kernel written by hand, with BPF programs, maps and a loaded scheduler: what tests and fuzz targets read.
//!
//! The members have the kernel's names and a layout of our own. All of it lies in one piece of memory, of which a
//! linear range maps `BASE`; tests change bytes of it before they open it.

// Each user of this module needs another part of it.
#![allow(dead_code)]

mod types;

use std::sync::Arc;

use ktstr_introspect_kernel::Kernel;
use ktstr_introspect_memory::{
    KernelOffset, LinearRange, PhysAddr, PhysicalMemory, SparseMemory, VirtAddr, VirtualMemory,
};
use ktstr_introspect_symbols::{Placement, SymbolKind, SymbolTableBuilder};
use ktstr_introspect_types::{BtfBuilder, TypeId};

pub(crate) const BASE: u64 = 0xffff_8880_0000_0000;
pub(crate) const SIZE: usize = 0x8000;

/// Where things lie, in bytes from `BASE`.
pub(crate) mod at {
    pub(crate) const PERCPU: usize = 0x40;
    pub(crate) const SCX_ROOT: usize = 0x80;
    pub(crate) const SCX_STATE: usize = 0x88;
    pub(crate) const PROG_IDR: usize = 0x100;
    pub(crate) const MAP_IDR: usize = 0x140;
    pub(crate) const BTF_IDR: usize = 0x180;
    pub(crate) const PROG_NODE: usize = 0x200;
    pub(crate) const MAP_NODE: usize = 0x280;
    pub(crate) const BTF_NODE: usize = 0x300;
    pub(crate) const PROGRAM: usize = 0x400;
    pub(crate) const AUX: usize = 0x440;
    pub(crate) const USED: usize = 0x4c0;
    pub(crate) const ATTACH: usize = 0x4d0;
    pub(crate) const STATS: usize = 0x500;
    pub(crate) const BSS: usize = 0x600;
    pub(crate) const HASH: usize = 0x800;
    pub(crate) const BUCKETS: usize = 0x900;
    pub(crate) const ELEMENTS: usize = 0x940;
    pub(crate) const PERCPU_ARRAY: usize = 0xa00;
    pub(crate) const PERCPU_VALUES: usize = 0xb00;
    pub(crate) const ARENA: usize = 0xc00;
    pub(crate) const AREA: usize = 0xd00;
    pub(crate) const STRUCT_OPS: usize = 0xe00;
    pub(crate) const UVALUE: usize = 0xf00;
    pub(crate) const BTF: usize = 0x1000;
    pub(crate) const SCHED: usize = 0x1100;
    pub(crate) const EXIT: usize = 0x1200;
    pub(crate) const TEXTS: usize = 0x1300;
    pub(crate) const EVENTS: usize = 0x1400;
    pub(crate) const QUEUE_TABLE: usize = 0x1600;
    pub(crate) const NODES: usize = 0x1680;
    pub(crate) const STORAGE: usize = 0x1700;
    pub(crate) const STORAGE_BUCKETS: usize = 0x17c0;
    pub(crate) const STORAGE_ELEMENT: usize = 0x1800;
    pub(crate) const STORAGE_OWNER: usize = 0x1840;
    pub(crate) const RING: usize = 0x1880;
    pub(crate) const RING_HEAD: usize = 0x1940;
    pub(crate) const RUNQUEUES: usize = 0x1a00;
    pub(crate) const JIFFIES: usize = 0x1ac0;
    pub(crate) const TASKS: usize = 0x1b00;
    pub(crate) const REFERENCES: usize = 0x1c00;
    pub(crate) const TRACES: usize = 0x1d00;
    pub(crate) const TRACE: usize = 0x1dc0;
    pub(crate) const QUEUE: usize = 0x1e00;
    pub(crate) const BTF_DATA: usize = 0x2000;
    /// The arena's window ends at `SIZE`: three pages of it exist.
    pub(crate) const WINDOW: usize = super::SIZE - 3 * 4096;
}

pub(crate) fn address(offset: usize) -> u64 {
    BASE + offset as u64
}

/// Types of a program: `.bss` with a counter, an array in a struct, and an exit record.
pub(crate) fn program_types() -> (BtfBuilder, TypeId) {
    let mut b = BtfBuilder::new();
    let (u32_, u64_) = (b.integer("unsigned int", 4, false), b.integer("unsigned long", 8, false));
    let (char_, long) = (b.integer("char", 1, true), b.integer("long", 8, true));
    let (kinds, text) = (b.array(u32_, 3), b.array(char_, 16));
    let stats = b.structure("stats", 16, &[("total", u32_, 0), ("by_kind", kinds, 4)]);
    let exit = b.structure(
        "user_exit_info",
        48,
        &[("kind", u32_, 0), ("exit_code", long, 8), ("reason", text, 16), ("msg", text, 32)],
    );
    let variables = [("nr", u64_), ("stats", stats), ("uei", exit), ("uei_dump", text)]
        .map(|(name, ty)| b.variable(name, ty));
    let section = b.section(
        ".bss",
        88,
        &[(variables[0], 0, 8), (variables[1], 8, 16), (variables[2], 24, 48), (variables[3], 72, 16)],
    );
    (b, section)
}

/// Where a kernel keeps sched_ext's event counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counters {
    /// A per-CPU variable: 6.14 and 6.15.
    Variable,
    /// Behind `scx_sched.event_stats_cpu`: 6.16 and 6.17.
    Pointer,
    /// In `scx_sched.pcpu`: later ones.
    Inside,
}

pub(crate) fn put(bytes: &mut [u8], words: &[(usize, u64)]) {
    for (at, word) in words {
        bytes[*at..at + 8].copy_from_slice(&word.to_le_bytes());
    }
}

fn put_text(bytes: &mut [u8], at: usize, text: &[u8]) {
    bytes[at..at + text.len()].copy_from_slice(text);
}

/// A map's head: kind, key and value size, entries, id, name.
fn map(bytes: &mut [u8], at: usize, [kind, key, value, entries, id]: [u32; 5], name: &[u8]) {
    for (slot, number) in [kind, key, value, entries, id].into_iter().enumerate() {
        bytes[at + slot * 4..at + slot * 4 + 4].copy_from_slice(&number.to_le_bytes());
    }
    put_text(bytes, at + 24, name);
}

/// The memory of a sound kernel.
pub(crate) fn healthy() -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    let (types, section) = program_types();
    let types = types.bytes();
    put_text(&mut bytes, at::BTF_DATA, &types);
    maps(&mut bytes, types.len() as u64, section);
    program(&mut bytes);
    scheduler(&mut bytes);
    // The second CPU's area is 0x40 further.
    put(
        &mut bytes,
        &[(at::PERCPU, 0), (at::PERCPU + 8, 0x40), (at::PERCPU + 0x10, 2), (at::PERCPU + 0x18, 0b11)],
    );
    bytes
}

fn maps(bytes: &mut [u8], types: u64, section: TypeId) {
    let a = address;
    map(bytes, at::BSS, [2, 4, 88, 1, 3], b"world.bss");
    map(bytes, at::HASH, [1, 4, 8, 2, 4], b"a_hash");
    map(bytes, at::PERCPU_ARRAY, [6, 4, 8, 2, 5], b"per_cpu");
    map(bytes, at::ARENA, [33, 0, 0, 3, 6], b"an_arena");
    map(bytes, at::STRUCT_OPS, [26, 4, 64, 1, 7], b"world_ops");
    map(bytes, at::STORAGE, [29, 4, 8, 0, 1], b"of_tasks");
    map(bytes, at::RING, [27, 0, 0, 4096, 2], b"a_ring");
    // These have no ID; tests go to them directly.
    map(bytes, at::REFERENCES, [3, 4, 4, 3, 8], b"programs");
    map(bytes, at::TRACES, [7, 4, 32, 2, 9], b"traces");
    map(bytes, at::QUEUE, [22, 0, 4, 3, 10], b"a_queue");
    put(
        bytes,
        &[
            // The second of three; a trace of two in the second bucket, with the end of an older one; 7, 8 of a ring that
            // began anew.
            (at::REFERENCES + 136 + 8, a(at::PROGRAM)),
            (at::TRACES + 128, 2),
            (at::TRACES + 136 + 8, a(at::TRACE)),
            (at::TRACE + 8, 2 << 32),
            (at::TRACE + 16, 0xffff_ffff_8100_0010),
            (at::TRACE + 24, 0xffff_ffff_8100_0020),
            (at::TRACE + 32, 0xffff_ffff_8100_0030),
            (at::QUEUE + 128, 1 | 3 << 32),
            (at::QUEUE + 136, 4 | 8 << 32),
            (at::QUEUE + 152, 7),
            (at::MAP_IDR, a(at::MAP_NODE) | 2),
            (at::MAP_NODE + 8 + 8, a(at::STORAGE)),
            (at::MAP_NODE + 8 + 2 * 8, a(at::RING)),
            // Two buckets, the second with the one element, of the owner 0x5555.
            (at::STORAGE + 128, a(at::STORAGE_BUCKETS)),
            (at::STORAGE + 136, 1),
            (at::STORAGE_BUCKETS + 16, a(at::STORAGE_ELEMENT)),
            (at::STORAGE_ELEMENT + 8, a(at::STORAGE_BUCKETS + 16)),
            (at::STORAGE_ELEMENT + 16, a(at::STORAGE_OWNER)),
            (at::STORAGE_ELEMENT + 32, 333),
            (at::STORAGE_OWNER + 8, 0x5555),
            (at::RING + 128, a(at::RING_HEAD)),
            (at::RING_HEAD, 4095),
            (at::RING_HEAD + 8, 100),
            (at::RING_HEAD + 16, 180),
            (at::MAP_NODE + 8 + 3 * 8, a(at::BSS)),
            (at::MAP_NODE + 8 + 4 * 8, a(at::HASH)),
            (at::MAP_NODE + 8 + 5 * 8, a(at::PERCPU_ARRAY)),
            (at::MAP_NODE + 8 + 6 * 8, a(at::ARENA)),
            (at::MAP_NODE + 8 + 7 * 8, a(at::STRUCT_OPS)),
            (at::BTF_IDR, a(at::BTF_NODE) | 2),
            (at::BTF_NODE + 8 + 8, a(at::BTF)),
            (at::BTF, a(at::BTF_DATA)),
            (at::BTF + 8, types | 1 << 32),
            // .bss: nr 77, stats.by_kind[2] 9, uei.
            (at::BSS + 40, a(at::BTF)),
            (at::BSS + 48, u64::from(section.0) << 32),
            (at::BSS + 128, 88),
            (at::BSS + 136, 77),
            (at::BSS + 136 + 8 + 8, 9 << 32),
            (at::BSS + 136 + 24, 1026),
            (at::BSS + 136 + 32, 0u64.wrapping_sub(5)),
            // Two buckets: the first with two elements, the second empty.
            (at::HASH + 128, a(at::BUCKETS)),
            (at::HASH + 136, 2),
            (at::BUCKETS, a(at::ELEMENTS)),
            (at::BUCKETS + 16, 1 << 1 | 1),
            (at::ELEMENTS, a(at::ELEMENTS + 0x40)),
            (at::ELEMENTS + 8, a(at::BUCKETS)),
            (at::ELEMENTS + 24, 11),
            (at::ELEMENTS + 32, 1111),
            (at::ELEMENTS + 0x40, 1),
            (at::ELEMENTS + 0x48, a(at::ELEMENTS)),
            (at::ELEMENTS + 0x40 + 24, 22),
            (at::ELEMENTS + 0x40 + 32, 2222),
            // Values 0x10, 0x20 for the first CPU and 0x30, 0x40 for the second.
            (at::PERCPU_ARRAY + 136, a(at::PERCPU_VALUES)),
            (at::PERCPU_ARRAY + 144, a(at::PERCPU_VALUES + 8)),
            (at::PERCPU_VALUES, 0x10),
            (at::PERCPU_VALUES + 8, 0x20),
            (at::PERCPU_VALUES + 0x40, 0x30),
            (at::PERCPU_VALUES + 0x48, 0x40),
            // User space has the arena at 0x7000_0000_0000.
            (at::ARENA + 128, 0x7000_0000_0000),
            (at::ARENA + 136, 0x7000_0000_3000),
            (at::ARENA + 144, a(at::AREA)),
            (at::AREA, a(at::WINDOW) - 0x8000),
            (at::WINDOW + 4096, 0xa2ea),
            (at::STRUCT_OPS + 128, 1),
            (at::STRUCT_OPS + 144, a(at::UVALUE)),
            // The code of `init`, as the loaded scheduler has it; that of others lies under `uvalue` here.
            (at::STRUCT_OPS + 144 + 24, 0xffff_ffff_c000_0020),
            (at::UVALUE + 16, 2),
            (at::UVALUE + 16 + 24, 2),
        ],
    );
    put_text(bytes, at::BSS + 136 + 40, b"stalled");
    put_text(bytes, at::BSS + 136 + 56, b"a task waits");
    put_text(bytes, at::BSS + 136 + 72, b"a dump");
    let ops = types::btf(Counters::Inside).composite("bpf_struct_ops_sched_ext_ops").map_or(0, |id| id.0);
    bytes[at::STRUCT_OPS + 56..at::STRUCT_OPS + 60].copy_from_slice(&ops.to_le_bytes());
}

fn program(bytes: &mut [u8]) {
    let a = address;
    put(
        bytes,
        &[
            (at::PROG_IDR, a(at::PROG_NODE) | 2),
            (at::PROG_NODE + 8 + 2 * 8, a(at::PROGRAM)),
            (at::PROGRAM, 27),
            (at::PROGRAM + 8, 0x100),
            (at::PROGRAM + 16, 0x0807_0605_0403_0201),
            (at::PROGRAM + 24, a(at::STATS)),
            (at::PROGRAM + 32, 0xffff_ffff_c000_0000),
            (at::PROGRAM + 40, a(at::AUX)),
            (at::AUX, 2 | 1 << 32),
            (at::AUX + 8, a(at::USED)),
            (at::AUX + 32, 123),
            (at::AUX + 56, a(at::BTF)),
            (at::AUX + 64, a(at::ATTACH)),
            (at::USED, a(at::BSS)),
            (at::STATS, 5),
            (at::STATS + 8, 500),
            (at::STATS + 0x40, 7),
            (at::STATS + 0x48, 700),
            (at::STATS + 0x50, 1),
        ],
    );
    put_text(bytes, at::AUX + 16, b"world_enqueue");
    put_text(bytes, at::ATTACH, b"enqueue");
}

fn scheduler(bytes: &mut [u8]) {
    let a = address;
    put(
        bytes,
        &[
            (at::SCX_ROOT, a(at::SCHED)),
            (at::SCX_STATE, 1),
            (at::SCHED, 0xffff_ffff_c000_0010),
            (at::SCHED + 24, 0xffff_ffff_c000_0020),
            (at::SCHED + 48, a(at::QUEUE_TABLE)),
            (at::SCHED + 56, a(at::NODES)),
            (at::NODES, a(at::NODES + 16)),
            (at::NODES + 24, 1 << 63 | 1),
            (at::SCHED + 64, a(at::EVENTS)),
            (at::SCHED + 72, 1026),
            (at::SCHED + 80, a(at::EXIT)),
            (at::EVENTS + 16, 3),
            (at::EVENTS + 24, 4),
            (at::EVENTS + 0x40 + 16, 30),
            (at::EVENTS + 0x40 + 24, 40),
            (at::EXIT, 1026),
            (at::EXIT + 8, 0u64.wrapping_sub(110)),
            (at::EXIT + 16, a(at::TEXTS)),
            (at::EXIT + 24, a(at::TEXTS + 0x20)),
            (at::EXIT + 32, a(at::TEXTS + 0x40)),
            (at::EXIT + 40, a(at::TEXTS + 0x80)),
            (at::EXIT + 48, 2),
            (at::TEXTS + 0x80, 0xffff_ffff_8100_0010),
            (at::TEXTS + 0x88, 0xffff_ffff_8100_0020),
            // One bucket with one queue of id 99.
            (at::QUEUE_TABLE, 1),
            (at::QUEUE_TABLE + 16, a(at::QUEUE_TABLE + 0x40 + 16) | 1),
            (at::QUEUE_TABLE + 0x40, 99),
            (at::QUEUE_TABLE + 0x40 + 16, 1),
            (at::SCHED + 88, 400),
            // Where `Counters::Pointer` has it.
            (at::SCHED + 96, a(at::EVENTS + 16)),
            (at::SCHED + 104, 1),
            (at::JIFFIES, 1000),
        ],
    );
    runnable(bytes, at::RUNQUEUES, &[(at::TASKS, 900), (at::TASKS + 0x40, 700)]);
    runnable(bytes, at::RUNQUEUES + 0x40, &[(at::TASKS + 0x80, 950)]);
    put_text(bytes, at::TEXTS, b"runnable task stall");
    put_text(bytes, at::TEXTS + 0x20, b"work[7] failed to run");
    put_text(bytes, at::TEXTS + 0x40, b"CPU states\n----------");
}

/// Tasks on the runnable list of a runqueue, each with the jiffies since when.
fn runnable(bytes: &mut [u8], rq: usize, tasks: &[(usize, u64)]) {
    let mut last = rq;
    for (task, since) in tasks {
        put(bytes, &[(last, address(task + 8)), (task + 16, address(last)), (task + 24, *since)]);
        last = task + 8;
    }
    put(bytes, &[(last, address(rq)), (rq + 8, address(last))]);
}

/// A kernel over `bytes`.
pub(crate) fn kernel(bytes: Vec<u8>) -> Kernel {
    let mut physical = SparseMemory::new();
    physical.insert(PhysAddr(0), bytes);
    over(Arc::new(physical))
}

/// A sound kernel that keeps its event counters there.
pub(crate) fn counting(counters: Counters) -> Kernel {
    let mut physical = SparseMemory::new();
    physical.insert(PhysAddr(0), healthy());
    of_types(Arc::new(physical), counters)
}

/// A kernel over any memory whose first `SIZE` bytes are its own.
pub(crate) fn over(physical: Arc<dyn PhysicalMemory>) -> Kernel {
    of_types(physical, Counters::Inside)
}

fn of_types(physical: Arc<dyn PhysicalMemory>, counters: Counters) -> Kernel {
    let direct = LinearRange { start: VirtAddr(BASE), length: 1 << 30, physical: PhysAddr(0) };
    let memory = VirtualMemory::new(physical).with_linear(direct);
    let mut symbols = SymbolTableBuilder::default();
    for (name, at) in [
        ("__per_cpu_offset", at::PERCPU),
        ("nr_cpu_ids", at::PERCPU + 0x10),
        ("__cpu_possible_mask", at::PERCPU + 0x18),
        ("scx_root", at::SCX_ROOT),
        ("scx_enable_state_var", at::SCX_STATE),
        ("runqueues", at::RUNQUEUES),
        ("jiffies", at::JIFFIES),
        ("prog_idr", at::PROG_IDR),
        ("map_idr", at::MAP_IDR),
        ("btf_idr", at::BTF_IDR),
    ] {
        symbols.push(name.as_bytes(), VirtAddr(address(at)), 8, SymbolKind::Object);
    }
    if counters == Counters::Variable {
        let at = VirtAddr(address(at::EVENTS + 16));
        symbols.push(b"event_stats_cpu", at, 16, SymbolKind::Object);
    }
    let placement = Placement::x86_64(KernelOffset(0), 0);
    Kernel::from_parts(memory, symbols.build(), placement, Arc::new(types::btf(counters)))
        .expect("types are there")
}
