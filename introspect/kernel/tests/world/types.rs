//! The types of the kernel written by hand: the members have the kernel's names, and a layout of our own.

use ktstr_introspect_types::{Btf, BtfBuilder, TypeId};

use super::Counters;

pub(super) fn btf(counters: Counters) -> Btf {
    let mut b = BtfBuilder::new();
    let [u8_, u32_, u64_] =
        [("u8", 1), ("u32", 4), ("u64", 8)].map(|(name, size)| b.integer(name, size, false));
    let (int, char_) = (b.integer("int", 4, true), b.integer("char", 1, true));
    let list = links(&mut b, [u8_, u32_, u64_]);
    bpf_objects(&mut b, [u8_, u32_, u64_, int, char_]);
    sched_ext(&mut b, [u8_, u32_, u64_, int], counters);
    let of_rq = b.structure("scx_rq", 16, &[("runnable_list", list, 0)]);
    b.structure("rq", 16, &[("scx", of_rq, 0)]);
    let of_task =
        b.structure("sched_ext_entity", 24, &[("runnable_node", list, 0), ("runnable_at", u64_, 16)]);
    b.structure("task_struct", 32, &[("scx", of_task, 8)]);
    Btf::parse(b.bytes()).expect("BTF written here")
}

fn links(b: &mut BtfBuilder, [u8_, u32_, u64_]: [TypeId; 3]) -> TypeId {
    let list = b.structure("list_head", 16, &[("next", u64_, 0), ("prev", u64_, 8)]);
    b.structure("hlist_head", 8, &[("first", u64_, 0)]);
    b.structure("hlist_node", 16, &[("next", u64_, 0), ("pprev", u64_, 8)]);
    b.structure(
        "rb_node",
        24,
        &[("__rb_parent_color", u64_, 0), ("rb_right", u64_, 8), ("rb_left", u64_, 16)],
    );
    let xarray = b.structure("xarray", 8, &[("xa_head", u64_, 0)]);
    let slots = b.array(u64_, 8);
    b.structure("xa_node", 72, &[("shift", u8_, 0), ("slots", slots, 8)]);
    b.structure("idr", 16, &[("idr_rt", xarray, 0)]);
    let rhead = b.structure("rhash_head", 8, &[("next", u64_, 0)]);
    let buckets = b.array(rhead, 0);
    b.structure("rhashtable", 8, &[("tbl", u64_, 0)]);
    b.structure(
        "bucket_table",
        64,
        &[("size", u32_, 0), ("nest", u32_, 4), ("future_tbl", u64_, 8), ("buckets", buckets, 16)],
    );
    let first = b.structure("hlist_nulls_head", 8, &[("first", u64_, 0)]);
    b.structure("hlist_nulls_node", 16, &[("next", u64_, 0), ("pprev", u64_, 8)]);
    b.structure("bucket", 16, &[("head", first, 0)]);
    list
}

fn bpf_objects(b: &mut BtfBuilder, [u8_, u32_, u64_, int, char_]: [TypeId; 5]) {
    let name = b.array(char_, 16);
    let text = b.pointer(char_);
    let btf = b.structure(
        "btf",
        64,
        &[
            ("data", u64_, 0),
            ("data_size", u32_, 8),
            ("id", u32_, 12),
            ("base_btf", u64_, 16),
            ("name", name, 32),
        ],
    );
    let btf = b.pointer(btf);
    let aux = b.structure(
        "bpf_prog_aux",
        128,
        &[
            ("id", u32_, 0),
            ("used_map_cnt", u32_, 4),
            ("used_maps", u64_, 8),
            ("name", name, 16),
            ("verified_insns", u32_, 32),
            ("btf", btf, 56),
            ("attach_func_name", text, 64),
        ],
    );
    let (aux, tag) = (b.pointer(aux), b.array(u8_, 8));
    b.structure(
        "bpf_prog",
        64,
        &[
            ("type", u32_, 0),
            ("jited_len", u32_, 8),
            ("tag", tag, 16),
            ("stats", u64_, 24),
            ("bpf_func", u64_, 32),
            ("aux", aux, 40),
        ],
    );
    let inner = b.structure("local64_t", 8, &[("a", u64_, 0)]);
    let counter = b.structure("u64_stats_t", 8, &[("v", inner, 0)]);
    b.structure("bpf_prog_stats", 24, &[("cnt", counter, 0), ("nsecs", counter, 8), ("misses", counter, 16)]);
    let map = b.structure(
        "bpf_map",
        128,
        &[
            ("map_type", u32_, 0),
            ("key_size", u32_, 4),
            ("value_size", u32_, 8),
            ("max_entries", u32_, 12),
            ("id", u32_, 16),
            ("name", name, 24),
            ("btf", btf, 40),
            ("btf_key_type_id", u32_, 48),
            ("btf_value_type_id", u32_, 52),
            ("btf_vmlinux_value_type_id", u32_, 56),
            ("map_flags", u32_, 60),
        ],
    );
    let bytes = b.array(char_, 0);
    let pointers = b.array(u64_, 0);
    b.structure(
        "bpf_array",
        136,
        &[("map", map, 0), ("elem_size", u32_, 128), ("value", bytes, 136), ("ptrs", pointers, 136)],
    );
    b.structure(
        "bpf_stack_map",
        136,
        &[("map", map, 0), ("n_buckets", u32_, 128), ("buckets", pointers, 136)],
    );
    b.structure("stack_map_bucket", 16, &[("nr", u32_, 12), ("data", pointers, 16)]);
    b.structure(
        "bpf_queue_stack",
        144,
        &[
            ("map", map, 0),
            ("head", u32_, 128),
            ("tail", u32_, 132),
            ("size", u32_, 136),
            ("elements", bytes, 140),
        ],
    );
    b.structure("bpf_htab", 144, &[("map", map, 0), ("buckets", u64_, 128), ("n_buckets", u32_, 136)]);
    b.structure("htab_elem", 24, &[("hash_node", u64_, 0), ("key", bytes, 24)]);
    let area = b.structure("vm_struct", 16, &[("addr", u64_, 0)]);
    let area = b.pointer(area);
    b.structure(
        "bpf_arena",
        160,
        &[("map", map, 0), ("user_vm_start", u64_, 128), ("user_vm_end", u64_, 136), ("kern_vm", area, 144)],
    );
    storage_and_rings(b, map, [u32_, u64_, bytes]);
    let common = b.structure("common", 4, &[("state", u32_, 0)]);
    let value = b.structure("bpf_struct_ops_value", 16, &[("common", common, 0)]);
    b.structure("bpf_struct_ops_map", 160, &[("map", map, 0), ("kvalue", value, 128), ("uvalue", u64_, 144)]);
    b.enumeration("bpf_prog_type", false, &[("BPF_PROG_TYPE_UNSPEC", 0), ("BPF_PROG_TYPE_STRUCT_OPS", 27)]);
    b.enumeration(
        "bpf_map_type",
        false,
        &[
            ("BPF_MAP_TYPE_HASH", 1),
            ("BPF_MAP_TYPE_ARRAY", 2),
            ("BPF_MAP_TYPE_PERCPU_ARRAY", 6),
            ("BPF_MAP_TYPE_QUEUE", 22),
            ("BPF_MAP_TYPE_RINGBUF", 27),
            ("BPF_MAP_TYPE_TASK_STORAGE", 29),
            ("BPF_MAP_TYPE_ARENA", 33),
        ],
    );
    b.enumeration(
        "bpf_struct_ops_state",
        false,
        &[("BPF_STRUCT_OPS_STATE_INIT", 0), ("BPF_STRUCT_OPS_STATE_INUSE", 1)],
    );
    let _ = int;
}

fn storage_and_rings(b: &mut BtfBuilder, map: TypeId, [u32_, u64_, bytes]: [TypeId; 3]) {
    b.structure(
        "bpf_local_storage_map",
        144,
        &[("map", map, 0), ("buckets", u64_, 128), ("bucket_log", u32_, 136)],
    );
    b.structure("bpf_local_storage_map_bucket", 16, &[("list", u64_, 0)]);
    let owner = b.structure("bpf_local_storage", 16, &[("owner", u64_, 8)]);
    let owner = b.pointer(owner);
    let data = b.structure("bpf_local_storage_data", 8, &[("smap", u64_, 0), ("data", bytes, 8)]);
    b.structure(
        "bpf_local_storage_elem",
        48,
        &[("map_node", u64_, 0), ("local_storage", owner, 16), ("sdata", data, 24)],
    );
    let ring = b.structure(
        "bpf_ringbuf",
        24,
        &[("mask", u64_, 0), ("consumer_pos", u64_, 8), ("producer_pos", u64_, 16)],
    );
    let ring = b.pointer(ring);
    b.structure("bpf_ringbuf_map", 136, &[("map", map, 0), ("rb", ring, 128)]);
}

/// As in kernels after 6.18: all in a `struct scx_sched`.
fn sched_ext(b: &mut BtfBuilder, [u8_, u32_, u64_, int]: [TypeId; 4], counters: Counters) {
    let prototype = b.prototype(int);
    let (operation, name) = (b.pointer(prototype), b.array(u32_, 4));
    let ops = b.structure(
        "sched_ext_ops",
        48,
        &[
            ("enqueue", operation, 0),
            ("dispatch", operation, 8),
            ("flags", u64_, 16),
            ("init", operation, 24),
            ("name", name, 32),
        ],
    );
    let common = b.structure("bpf_struct_ops_common_value", 4, &[("state", u32_, 0)]);
    b.structure("bpf_struct_ops_sched_ext_ops", 64, &[("common", common, 0), ("data", ops, 16)]);
    let count = b.structure("atomic_t", 4, &[("counter", int, 0)]);
    let table = b.structure("dsq_table", 8, &[("tbl", u64_, 0)]);
    let info = b.structure(
        "scx_exit_info",
        64,
        &[
            ("kind", int, 0),
            ("exit_code", u64_, 8),
            ("reason", u64_, 16),
            ("msg", u64_, 24),
            ("dump", u64_, 32),
            ("bt", u64_, 40),
            ("bt_len", u32_, 48),
        ],
    );
    let info = b.pointer(info);
    let mut members = vec![
        ("ops", ops, 0),
        ("dsq_hash", table, 48),
        ("pnode", u64_, 56),
        ("pcpu", u64_, 64),
        ("exit_kind", count, 72),
        ("exit_info", info, 80),
        ("watchdog_timeout", u64_, 88),
        ("aborting", u8_, 104),
    ];
    if counters == Counters::Pointer {
        members.push(("event_stats_cpu", u64_, 96));
    }
    b.structure("scx_sched", 128, &members);
    let (s64, pad) = (b.integer("s64", 8, true), b.array(u64_, 2));
    let stats = b.structure("scx_event_stats", 16, &[("SCX_EV_A", s64, 0), ("SCX_EV_B", s64, 8)]);
    b.enumeration(
        "scx_enable_state",
        false,
        &[("SCX_ENABLING", 0), ("SCX_ENABLED", 1), ("SCX_DISABLING", 2)],
    );
    b.enumeration(
        "scx_exit_kind",
        false,
        &[("SCX_EXIT_NONE", 0), ("SCX_EXIT_DONE", 1), ("SCX_EXIT_ERROR_STALL", 1026)],
    );
    b.enumeration64("scx_dsq_id_flags", &[("SCX_DSQ_GLOBAL", 1 << 63 | 1), ("SCX_DSQ_LOCAL", 1 << 63 | 2)]);
    b.enumeration("scx_ops_state", false, &[("SCX_OPSS_NONE", 0), ("SCX_OPSS_QUEUED", 2)]);
    b.enumeration("scx_task_state", false, &[("SCX_TASK_NONE", 0), ("SCX_TASK_ENABLED", 3)]);
    let node = b.structure("dsq_hash_node", 8, &[("next", u64_, 0)]);
    let queue =
        b.structure("scx_dispatch_q", 32, &[("id", u64_, 0), ("nr", u32_, 8), ("hash_node", node, 16)]);
    let mut members = vec![("pad", pad, 0), ("bypass_dsq", queue, 32)];
    if counters == Counters::Inside {
        members.push(("event_stats", stats, 16));
    }
    b.structure("scx_sched_pcpu", 64, &members);
    b.structure("scx_sched_pnode", 40, &[("pad", u64_, 0), ("global_dsq", queue, 8)]);
}
