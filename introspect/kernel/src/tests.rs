//! A kernel written here: a handful of objects with the members that the walks need, whole and damaged.

use std::sync::Arc;

use ktstr_introspect_memory::{KernelOffset, LinearRange, PhysAddr, SparseMemory, VirtAddr, VirtualMemory};
use ktstr_introspect_symbols::{Placement, SymbolKind, SymbolTableBuilder};
use ktstr_introspect_types::{Btf, BtfBuilder, TypeId};
use proptest::prelude::*;

use crate::{ErrorKind, Kernel, KernelError, Runqueue, RunqueueSampler, Task};

const BASE: u64 = 0xffff_8880_0000_0000;
const SIZE: usize = 0x4000;

/// Types with the kernel's member names and a layout of our own.
fn btf() -> Btf {
    let mut b = BtfBuilder::new();
    let (u8_, u32_, u64_) =
        (b.integer("u8", 1, false), b.integer("u32", 4, false), b.integer("u64", 8, false));
    let int = b.integer("int", 4, true);
    let comm = b.array(u8_, 16);
    let list = b.structure("list_head", 16, &[("next", u64_, 0), ("prev", u64_, 8)]);
    let hlist = b.structure("hlist_head", 8, &[("first", u64_, 0)]);
    let hnode = b.structure("hlist_node", 16, &[("next", u64_, 0), ("pprev", u64_, 8)]);
    let rb = b.structure(
        "rb_node",
        24,
        &[("__rb_parent_color", u64_, 0), ("rb_right", u64_, 8), ("rb_left", u64_, 16)],
    );
    let xarray = b.structure("xarray", 8, &[("xa_head", u64_, 0)]);
    let slots = b.array(u64_, 8);
    b.structure("xa_node", 72, &[("shift", u8_, 0), ("slots", slots, 8)]);
    let (hlists, hnodes) = (b.array(hlist, 4), b.array(hnode, 4));
    b.structure("pid", 40, &[("tasks", hlists, 8)]);
    let idr = b.structure("idr", 16, &[("idr_rt", xarray, 0)]);
    b.structure("pid_namespace", 16, &[("idr", idr, 0)]);
    let signal = b.structure("signal_struct", 32, &[("thread_head", list, 16)]);
    let signal = b.pointer(signal);
    let task = b.structure(
        "task_struct",
        224,
        &[
            ("pid", int, 0),
            ("prio", int, 4),
            ("comm", comm, 8),
            ("tasks", list, 24),
            ("thread_node", list, 40),
            ("signal", signal, 56),
            ("pid_links", hnodes, 64),
            ("sched_class", u64_, 128),
            ("cg_list", list, 136),
        ],
    );
    domains_and_cgroups(&mut b, [u32_, u64_, list, task]);
    sched_ext(&mut b, [u32_, u64_, list]);
    let _ = rb;
    Btf::parse(b.bytes()).expect("BTF written here")
}

fn domains_and_cgroups(b: &mut BtfBuilder, [u32_, u64_, list, task]: [TypeId; 4]) {
    let mask = b.array(u64_, 0);
    b.structure("sched_domain", 64, &[("parent", u64_, 0), ("groups", u64_, 8), ("span", mask, 16)]);
    b.structure("sched_group", 64, &[("next", u64_, 0), ("cpumask", mask, 8)]);
    let curr = b.pointer(task);
    b.structure(
        "rq",
        256,
        &[
            ("nr_running", u32_, 0),
            ("clock", u64_, 8),
            ("nr_switches", u64_, 16),
            ("sd", u64_, 24),
            ("curr", curr, 32),
            ("cfs_tasks", list, 40),
        ],
    );
    let css = b.structure(
        "cgroup_subsys_state",
        48,
        &[("sibling", list, 0), ("children", list, 16), ("parent", u64_, 32), ("flags", u32_, 40)],
    );
    let char_ = b.integer("char", 1, true);
    let name = b.pointer(char_);
    let kn = b.structure("kernfs_node", 16, &[("name", name, 8)]);
    let kn = b.pointer(kn);
    let cgroup = b.structure("cgroup", 128, &[("self", css, 0), ("kn", kn, 48), ("cset_links", list, 56)]);
    b.structure("cgroup_root", 160, &[("cgrp", cgroup, 16)]);
    b.structure("cgrp_cset_link", 32, &[("cset", u64_, 0), ("cset_link", list, 8)]);
    b.structure("css_set", 32, &[("tasks", list, 0)]);
}

fn sched_ext(b: &mut BtfBuilder, [u32_, u64_, list]: [TypeId; 3]) {
    let rhead = b.structure("rhash_head", 8, &[("next", u64_, 0)]);
    let buckets = b.array(rhead, 0);
    b.structure("rhashtable", 8, &[("tbl", u64_, 0)]);
    b.structure(
        "bucket_table",
        64,
        &[("size", u32_, 0), ("nest", u32_, 4), ("future_tbl", u64_, 8), ("buckets", buckets, 16)],
    );
    b.structure(
        "scx_dispatch_q",
        64,
        &[("list", list, 0), ("nr", u32_, 16), ("id", u64_, 24), ("hash_node", rhead, 32)],
    );
}

/// A kernel over `bytes` at `BASE`. Symbols, in bytes from there: init_task 0x100, its signal 0x300, one more task
/// 0x400, per-CPU offsets 0x600, masks 0x620, runqueues 0x700 and 0x900, cgrp_dfl_root 0xb00, init_pid_ns 0xd00,
/// sched_ext's tables 0xe00.
fn kernel(bytes: Vec<u8>) -> Kernel {
    let mut physical = SparseMemory::new();
    physical.insert(PhysAddr(0), bytes);
    let direct = LinearRange { start: VirtAddr(BASE), length: 1 << 30, physical: PhysAddr(0) };
    let memory = VirtualMemory::new(Arc::new(physical)).with_linear(direct);
    let mut symbols = SymbolTableBuilder::default();
    for (name, at) in [
        ("init_task", 0x100),
        ("__per_cpu_offset", 0x600),
        ("nr_cpu_ids", 0x618),
        ("__cpu_possible_mask", 0x620),
        ("runqueues", 0x700),
        ("cgrp_dfl_root", 0xb00),
        ("init_pid_ns", 0xd00),
        ("dsq_hash", 0xe00),
        ("global_dsqs", 0xe08),
        ("fair_sched_class", 0x3f00),
    ] {
        symbols.push(name.as_bytes(), VirtAddr(BASE + at), 8, SymbolKind::Object);
    }
    let placement = Placement::x86_64(KernelOffset(0), 0);
    Kernel::from_parts(memory, symbols.build(), placement, Arc::new(btf())).expect("types are there")
}

fn put(bytes: &mut [u8], words: &[(usize, u64)]) {
    for (at, word) in words {
        bytes[*at..at + 8].copy_from_slice(&word.to_le_bytes());
    }
}

/// Two processes of one thread each, two CPUs, three cgroups.
fn healthy() -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    let at = |offset: u64| BASE + offset;
    put(
        &mut bytes,
        &[
            // init_task, pid 0, and task 7 at 0x400, in a ring through `tasks`; each alone on its thread list.
            (0x118, at(0x418)),
            (0x120, at(0x418)),
            (0x418, at(0x118)),
            (0x420, at(0x118)),
            (0x400, 7 | 120 << 32),
            (0x138, at(0x300)),
            (0x310, at(0x128)),
            (0x318, at(0x128)),
            (0x128, at(0x310)),
            (0x130, at(0x310)),
            (0x438, at(0x340)),
            (0x350, at(0x428)),
            (0x358, at(0x428)),
            (0x428, at(0x350)),
            (0x430, at(0x350)),
            (0x480, at(0x3f00)),
            // The IDR's one node at 0x1000, slot 7: the pid at 0x1100, whose thread is task 7.
            (0xd00, at(0x1000) | 2),
            (0x1008 + 7 * 8, at(0x1100)),
            (0x1108, at(0x440)),
            (0x448, at(0x1108)),
            // Two CPUs; the second's area is 0x200 further.
            (0x608, 0x200),
            (0x618, 2),
            (0x620, 0b11),
            (0x900, 3),
            (0x908, 1_000_000),
            (0x910, 55),
            (0x920, at(0x400)),
            // Root cgroup at 0xb10 with children at 0x1200 and 0x1300; the first has one at 0x1400.
            (0xb20, at(0x1200)),
            (0xb28, at(0x1300)),
            (0x1200, at(0x1300)),
            (0x1208, at(0xb20)),
            (0x1300, at(0xb20)),
            (0x1308, at(0x1200)),
            (0x1220, at(0xb10)),
            (0x1228, 1 << 1),
            (0x1320, at(0xb10)),
            (0x1210, at(0x1400)),
            (0x1218, at(0x1400)),
            (0x1400, at(0x1210)),
            (0x1408, at(0x1210)),
            (0x1420, at(0x1200)),
            (0x1230, at(0x1500)),
            (0x1330, at(0x1500)),
            (0x1430, at(0x1500)),
            (0x1508, at(0x1520)),
        ],
    );
    for head in [0x1310usize, 0x1410] {
        put(&mut bytes, &[(head, at(head as u64)), (head + 8, at(head as u64))]);
    }
    bytes[0x408..0x40c].copy_from_slice(b"work");
    bytes[0x1520..0x1523].copy_from_slice(b"sub");
    bytes
}

#[test]
fn tasks_are_found_by_list_and_by_number() {
    let kernel = kernel(healthy());
    assert_eq!(kernel.tasks().unwrap(), [VirtAddr(BASE + 0x100), VirtAddr(BASE + 0x400)]);
    assert_eq!(kernel.tasks_by_pid().unwrap(), [(7, VirtAddr(BASE + 0x400))]);
    let task = Task::read(&kernel, VirtAddr(BASE + 0x400));
    assert_eq!((*task.pid.as_ref().unwrap(), task.comm.as_deref().unwrap()), (7, "work"));
    assert_eq!(kernel.class_of(&task).unwrap(), "fair");
}

#[test]
fn absent_null_and_unmapped_are_told_apart_field_by_field() {
    let kernel = kernel(healthy());
    let task = Task::read(&kernel, VirtAddr(BASE + 0x400));
    assert_eq!(task.scx_slice.unwrap_err().kind(), ErrorKind::Absent);
    let rq = Runqueue::read(&kernel, kernel.runqueue(0).unwrap());
    assert_eq!(rq.curr_comm.unwrap_err().kind(), ErrorKind::Null);
    let outside = Task::read(&kernel, VirtAddr(BASE + SIZE as u64));
    let error = outside.pid.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unmapped);
    assert!(error.to_string().contains("0xffff888000004000"), "{error}");
    assert_eq!(kernel.symbol("scx_root").unwrap_err().kind(), ErrorKind::Absent);
}

#[test]
fn a_list_changed_on_the_way_is_torn_with_its_address() {
    let mut bytes = healthy();
    put(&mut bytes, &[(0x420, BASE + 0x9999)]);
    let error = kernel(bytes).tasks().unwrap_err();
    assert!(
        matches!(error, KernelError::Torn { at, seen, .. } if at.0 == BASE + 0x418 && seen == BASE + 0x9999)
    );
}

#[test]
fn samples_are_per_cpu_and_a_kernel_without_sched_ext_has_no_queue_depth() {
    let kernel = kernel(healthy());
    let sampler = RunqueueSampler::new(&kernel).unwrap();
    let mut samples = Vec::new();
    sampler.sample(&mut samples).unwrap();
    assert_eq!(samples.len(), 2);
    let second = samples[1];
    assert_eq!((second.cpu, second.nr_running, second.clock, second.nr_switches), (1, 3, 1_000_000, 55));
    assert_eq!(second.local_dsq_nr, None);
    assert!(kernel.per_cpu("runqueues", 2).is_err());
}

#[test]
fn cgroups_come_with_paths_parents_first_and_a_foreign_child_is_torn() {
    let mut bytes = healthy();
    let found = kernel(bytes.clone()).cgroups().unwrap();
    let paths: Vec<_> = found.iter().map(|node| node.path.as_str()).collect();
    assert_eq!(paths, ["/", "/sub", "/sub/sub", "/sub"]);
    let online: Vec<_> = found.iter().map(|node| node.online).collect();
    assert_eq!(online, [true, true, false, false], "only the first child has CSS_ONLINE");
    put(&mut bytes, &[(0x1420, BASE + 0x1300)]);
    assert_eq!(kernel(bytes).cgroups().unwrap_err().kind(), ErrorKind::Torn);
}

proptest! {
    /// A kernel with words overwritten by pointers into itself, small numbers or noise: all that can be asked ends.
    #[test]
    fn a_damaged_kernel_is_refused_or_answered(damage in proptest::collection::vec((0usize..SIZE / 8, 0u8..4, any::<u64>()), 0..200)) {
        let mut bytes = healthy();
        for (at, kind, value) in damage {
            let word = match kind {
                0 => BASE + value % SIZE as u64,
                1 => BASE + (value % (SIZE as u64 / 8)) * 8,
                2 => value % 64,
                _ => value,
            };
            put(&mut bytes, &[(at * 8, word)]);
        }
        let kernel = kernel(bytes);
        let _ = (kernel.tasks(), kernel.tasks_by_pid(), kernel.cgroups(), kernel.possible_cpus());
        for cpu in 0..2 {
            if let Ok(rq) = kernel.runqueue(cpu) {
                let _ = (kernel.cfs_tasks(rq), Runqueue::read(&kernel, rq));
                for domain in kernel.domains(rq).unwrap_or_default() {
                    let _ = (kernel.domain_span(domain), kernel.domain_groups(domain));
                }
            }
        }
        let _ = (kernel.cgroup_tasks(VirtAddr(BASE + 0xb10)), kernel.dispatch_queues(), kernel.sched_ext());
        if let Ok(sampler) = RunqueueSampler::new(&kernel) {
            let _ = sampler.sample(&mut Vec::new());
        }
    }
}
