"""BPF and cgroup readings of the dump against drgn on the same core, and against what the guest's kernel told bpftool,
cgroupfs and /sys/kernel before the core was taken (its console)."""
import json, os, re

import drgn
from drgn import Object
from drgn.helpers.linux.bpf import bpf_btf_for_each, bpf_map_for_each, bpf_prog_for_each
from drgn.helpers.linux.list import hlist_for_each_entry, list_for_each_entry
from drgn.helpers.linux.list_nulls import hlist_nulls_for_each_entry
from drgn.helpers.linux.percpu import per_cpu_ptr

def text(obj):
    return obj.string_().decode()

def number(obj):
    """The number inside structs of one member (u64_stats_t, local_t, atomic_t)."""
    kind = obj.type_
    while kind.kind == drgn.TypeKind.TYPEDEF:
        kind = kind.type
    return number(obj.member_(kind.members[0].name)) if kind.kind == drgn.TypeKind.STRUCT else obj.value_()

def of_kind(prog, enum, name, prefix):
    found = [e.value for e in prog.type(enum).enumerators if e.name == prefix + name.upper()]
    return found[0] if found else None

def pages_of(prog, arena, ours):
    start = arena.kern_vm.addr.value_() + (1 << 15)
    return [[user, prog.read(start + (user & 0xffffffff), 4096).hex()] for user, _ in ours]

def at_key_end(prog, at, cpus):
    """Whether a per-CPU hash keeps its pointer unaligned (before 6.15 and some stable kernels); bpftool has the last word."""
    pointer = int.from_bytes(prog.read(at, 8), "little")
    try:
        return pointer % 8 == 0 and all(prog.read(per_cpu_ptr(Object(prog, "void *", pointer), cpu).value_(), 1) for cpu in cpus)
    except drgn.FaultError:
        return False

def entries_of(prog, map_, cpus):
    """An array's or hash's entries in the dump's shape, by drgn; None for other kinds."""
    kind = int(map_.map_type)
    key_size, size = map_.key_size.value_(), map_.value_size.value_()
    shared = lambda at: {"value": prog.read(at, size).hex()}
    each = lambda pointer: {"values": [[cpu, prog.read(per_cpu_ptr(Object(prog, "void *", pointer), cpu).value_(), size).hex()]
                                       for cpu in cpus]}
    if kind in (2, 6):
        array = drgn.container_of(map_, "struct bpf_array", "map")
        found = []
        for index in range(map_.max_entries.value_()):
            key = {"key": index.to_bytes(4, "little").hex()}
            if kind == 2:
                at = array.value.address_ + array.elem_size.value_() * index
                found.append(key | shared(at))
            else:
                found.append(key | each(array.pptrs[index].value_()))
        return found
    if kind in (1, 9, 5, 10):
        table = drgn.container_of(map_, "struct bpf_htab", "map")
        found = []
        for bucket in range(table.n_buckets):
            for elem in hlist_nulls_for_each_entry("struct htab_elem", table.buckets[bucket].head.address_of_(), "hash_node"):
                at = elem.key.address_
                key = {"key": prog.read(at, key_size).hex()}
                if kind in (5, 10) and key_size % 8 and at_key_end(prog, at + key_size, cpus):
                    at += key_size
                else:
                    at += (key_size + 7) // 8 * 8
                found.append(key | (shared(at) if kind in (1, 9) else each(prog.read_u64(at))))
        return found
    if kind in (3, 4, 8, 12):
        array = drgn.container_of(map_, "struct bpf_array", "map")
        of = {3: ("struct bpf_prog *", lambda p: p.aux.id), 8: ("struct cgroup *", lambda p: p.kn.id),
              12: ("struct bpf_map *", lambda p: p.id)}
        found = []
        for index in range(map_.max_entries.value_()):
            at = array.ptrs[index].value_()
            id_ = of[kind][1](Object(prog, of[kind][0], at)).value_() if at and kind in of else None
            if at:
                found.append({"key": index.to_bytes(4, "little").hex(), "target": at, "id": id_})
        return found
    if kind == 13:
        table = drgn.container_of(map_, "struct bpf_htab", "map")
        found = []
        for bucket in range(table.n_buckets):
            for elem in hlist_nulls_for_each_entry("struct htab_elem", table.buckets[bucket].head.address_of_(), "hash_node"):
                at = prog.read_u64(elem.key.address_ + (key_size + 7) // 8 * 8)
                found.append({"key": prog.read(elem.key.address_, key_size).hex(), "target": at,
                              "id": Object(prog, "struct bpf_map *", at).id.value_()})
        return found
    if kind == 7:
        table = drgn.container_of(map_, "struct bpf_stack_map", "map")
        found = []
        for index in range(table.n_buckets):
            bucket = table.buckets[index]
            if bucket:
                frames = prog.read(bucket.data.address_, bucket.nr.value_() * 8) + bytes(size)
                found.append({"key": index.to_bytes(4, "little").hex(), "value": frames[:size].hex()})
        return found
    if kind in (22, 23):
        queue = drgn.container_of(map_, "struct bpf_queue_stack", "map")
        head, tail, ring = queue.head.value_(), queue.tail.value_(), queue.size.value_()
        order = []
        while tail != head:
            order.append(tail)
            tail = (tail + 1) % ring
        values = [prog.read(queue.elements.address_ + size * index, size).hex() for index in order]
        return [{"key": n.to_bytes(4, "little").hex(), "value": value}
                for n, value in enumerate(values if kind == 22 else reversed(values))]
    if kind in (24, 28, 29, 32):
        table = drgn.container_of(map_, "struct bpf_local_storage_map", "map")
        found = []
        for bucket in range(1 << table.bucket_log.value_()):
            for elem in hlist_for_each_entry("struct bpf_local_storage_elem", table.buckets[bucket].list.address_of_(), "map_node"):
                owner = elem.local_storage.owner.value_().to_bytes(8, "little").hex()
                found.append({"key": owner} | shared(elem.sdata.data.address_))
        return found
    return None

def against_drgn(prog, dump, check, record, cpus):
    bpf = dump["bpf"]
    programs = list(bpf_prog_for_each(prog))
    check("walk:bpf_programs", [p["address"] for p in bpf["programs"]], [p.value_() for p in programs])
    for ours, theirs in zip(bpf["programs"], programs):
        record(prog, ours)
        check("BpfProgram:tag", ours["tag"], bytes(theirs.tag.value_()).hex())
        check("BpfProgram:kind", of_kind(prog, "enum bpf_prog_type", ours["kind_name"], "BPF_PROG_TYPE_"), int(theirs.type))
        used = [theirs.aux.used_maps[i].value_() for i in range(theirs.aux.used_map_cnt)]
        check("BpfProgram:maps", ours["maps"], used)
        for name in ("cnt", "nsecs", "misses"):
            each = [number(per_cpu_ptr(theirs.stats, cpu).member_(name)) for cpu in cpus]
            check(f"BpfProgram:stats.{name}", ours["stats"][name], sum(each))
        if theirs.aux.attach_func_name:
            check("BpfProgram:implements", ours["implements"], text(theirs.aux.attach_func_name))
    maps = list(bpf_map_for_each(prog))
    check("walk:bpf_maps", [m["address"] for m in bpf["maps"]], [m.value_() for m in maps])
    ids = {p.aux.id.value_(): text(p.aux.attach_func_name) for p in programs if p.aux.attach_func_name}
    for ours, theirs in zip(bpf["maps"], maps):
        record(prog, ours)
        kind = ours["kind_name"]
        check("BpfMap:kind", of_kind(prog, "enum bpf_map_type", kind, "BPF_MAP_TYPE_"), int(theirs.map_type))
        entries = entries_of(prog, theirs, cpus)
        if entries is not None:
            check(f"BpfMap:entries of {kind}", ours["contents"]["entries"], entries)
        if "ring" in ours:
            ring = drgn.container_of(theirs, "struct bpf_ringbuf_map", "map").rb
            check("BpfMap:ring", ours["ring"], [ring.producer_pos.value_(), ring.consumer_pos.value_(), ring.mask.value_() + 1])
        if kind == "arena":
            arena = drgn.container_of(theirs, "struct bpf_arena", "map")
            check("BpfMap:arena.start", ours["arena"]["start"], arena.user_vm_start.value_())
            check("BpfMap:arena.end", ours["arena"]["end"], arena.user_vm_end.value_())
            check("BpfMap:arena.pages", ours["arena"]["pages"], pages_of(prog, arena, ours["arena"]["pages"]))
            if text(theirs.name) == "o_arena":
                # What load.c wrote.
                start, touched = ours["arena"]["start"], (0, 3, 70, 255, 256, 699)
                written = [[start + n * 4096, bytes((n + b * 3) & 255 for b in range(4096)).hex()] for n in touched]
                check("BpfMap:arena.written", ours["arena"]["pages"], written)
        if kind == "struct_ops":
            check("BpfMap:struct_ops.programs", sorted(name for name, _ in ours["struct_ops"]["programs"]),
                  sorted(ids[number] for _, number in ours["struct_ops"]["programs"]))
            whole = drgn.container_of(theirs, "struct bpf_struct_ops_map", "map")
            check("BpfMap:struct_ops.state", "BPF_STRUCT_OPS_STATE_" + ours["struct_ops"]["state"].upper(),
                  whole.kvalue.common.state.format_(type_name=False))
            check("BpfMap:struct_ops.interface", ours["struct_ops"]["interface"], text(whole.st_ops_desc.st_ops.name))
        for variable in ours["variables"]:
            array = drgn.container_of(theirs, "struct bpf_array", "map")
            inside = variable["at"] - array.value.address_
            check("BpfMap:variable place", 0 <= inside <= theirs.value_size.value_() - variable["size"], True)
            if variable["physical"] is not None:
                check("BpfMap:variable physical", prog.read(variable["physical"], variable["size"], True),
                      prog.read(variable["at"], variable["size"]))
    btfs = list(bpf_btf_for_each(prog))
    check("walk:bpf_btfs", [b["address"] for b in bpf["btfs"]], [b.value_() for b in btfs])
    for ours, theirs in zip(bpf["btfs"], btfs):
        record(prog, ours)
        # `nr_types` counts own types, of unsplit BTF `void` among them.
        check("BpfTypeInfo:types", ours["types"], theirs.start_id.value_() + theirs.nr_types.value_())
    if isinstance(bpf["modules"], list):
        modules = [text(m.btf.name) for m in list_for_each_entry("struct btf_module", prog["btf_modules"].address_of_(), "list")]
        check("walk:btf_modules", [m["name"] for m in bpf["modules"]], modules)
    else:
        try:
            there = bool(prog["btf_modules"].address_)
        except KeyError:
            there = False
        check("walk:btf_modules", there, False)

def sections(console):
    found, name = {}, None
    for line in open(console, errors="replace").read().replace("\r", "").splitlines():
        if line.startswith("== "):
            name = line[3:]
            found.setdefault(name, [])
        elif name and not re.match(r"\[ *\d+\.\d+\] ", line):
            found[name].append(line)
    return found

def listing(lines):
    """bpftool's JSON among lines of the console."""
    for line in lines:
        if line.startswith(("[", "{")):
            return json.loads(line)
    return None

def hexed(bytes_):
    return "".join(b[2:] for b in bytes_)

def against_guest(core, dump, check):
    console = core + ".console"
    if not os.path.exists(console):
        return
    said, bpf = sections(console), dump["bpf"]
    state = said.get("/sys/kernel/sched_ext/state")
    if state:
        check("guest:scx state", dump["scx"]["state"], state[0])
        name = (said.get("/sys/kernel/sched_ext/root/ops") or [""])[0]
        if state[0] == "enabled":
            check("guest:scx ops", dump["scx"]["ops"]["fields"]["sched_ext_ops.name"], name)
    for line in (line for line in said.get("btf sums", []) if line.startswith("btfsum ")):
        _, name, size, checksum = line.split(" ")
        if name == "vmlinux":
            check("guest:btf vmlinux size", bpf["btfs"][0]["fields"]["btf.data_size"], int(size))
        else:
            ours = [m for m in bpf["modules"] if m["name"] == name]
            check("guest:btf of modules", [m["checksum"] for m in ours], [int(checksum)])
    for cgroup in dump["cgroups"]:
        at = "/sys/fs/cgroup" + cgroup["path"]
        events = said.get(at + "/cgroup.events")
        if not events:
            continue
        check("guest:cgroup.events", [f"populated {int(cgroup['populated'])}", f"frozen {int(cgroup['frozen'])}"], events[:2])
        weight = said[at + "/cpu.weight"]
        if weight:
            check("guest:cpu.weight", cgroup["weight"], int(weight[0]))
        cpus = said[at + "/cpuset.cpus.effective"]
        if cpus and "cpuset" in cgroup:
            listed = [c for part in cpus[0].split(",") for a, _, b in [part.partition("-")] for c in range(int(a), int(b or a) + 1)]
            check("guest:cpuset.cpus.effective", cgroup["cpuset"]["effective_cpus"], listed)
        pids = {t["address"]: t["fields"]["task_struct.tgid"] for t in dump["tasks"]}
        check("guest:cgroup.procs", sorted({pids[at] for at in cgroup["tasks"]}), sorted(int(p) for p in said[at + "/cgroup.procs"]))
    programs = {p["fields"]["bpf_prog.aux->id"]: p for p in bpf["programs"]} if isinstance(bpf["programs"], list) else {}
    for theirs in listing(said.get("bpftool prog", [])) or []:
        ours = programs.get(theirs["id"])
        if not ours:
            continue  # bpftool's own, gone with it.
        of = ours["fields"]
        check("guest:prog name", ours["name"], theirs["name"])
        check("guest:prog type", ours["kind_name"], theirs["type"])
        check("guest:prog tag", ours["tag"], theirs["tag"])
        check("guest:prog bytes_jited", of["bpf_prog.jited_len"], theirs["bytes_jited"])
        check("guest:prog bytes_xlated", of["bpf_prog.len"] * 8, theirs["bytes_xlated"])
        check("guest:prog run_cnt not gone back", ours["stats"]["cnt"] >= theirs.get("run_cnt", 0), True)
        names = {m["address"]: m["fields"]["bpf_map.id"] for m in bpf["maps"]}
        check("guest:prog map_ids", [names[m] for m in ours["maps"]], theirs.get("map_ids", []))
    maps = {m["fields"]["bpf_map.id"]: m for m in bpf["maps"]} if isinstance(bpf["maps"], list) else {}
    for theirs in listing(said.get("bpftool map", [])) or []:
        ours = maps.get(theirs["id"])
        if not ours:
            continue
        of = ours["fields"]
        for mine, name in (("name", "name"), ("key_size", "bytes_key"), ("value_size", "bytes_value"),
                           ("max_entries", "max_entries"), ("map_flags", "flags"), ("frozen", "frozen")):
            check(f"guest:map {name}", of[f"bpf_map.{mine}"], theirs[name])
        # The host's bpftool may be older than the guest's kernel and print a number.
        check("guest:map type", ours["kind_name"], theirs["type"] if isinstance(theirs["type"], str) else ours["kind_name"])
        dumped = listing(said.get(f"bpftool dump {theirs['name']}", []))
        if dumped and theirs["name"] != "oracle.bss":
            if theirs["name"] in ("o_progs", "o_maps", "o_maphash"):
                # User space is shown IDs; places without one are errors to bpftool.
                given = {hexed(e["key"]): int.from_bytes(bytes.fromhex(hexed(e["value"])), "little")
                         for e in dumped if isinstance(e.get("value"), list)}
                check(f"guest:ids in {theirs['type']}", {e["key"]: e["id"] for e in ours["contents"]["entries"]}, given)
                continue
            order = lambda entries: sorted(json.dumps(e) for e in entries)
            shape = lambda e: {"key": hexed(e["key"])} | (
                {"value": hexed(e["value"])} if "value" in e else
                {"values": [[v["cpu"], hexed(v["value"])] for v in e["values"]]})
            check(f"guest:dump of {theirs['type']}", order(ours["contents"]["entries"]), order(map(shape, dumped)))
        if dumped and theirs["name"] == "oracle.bss":
            formatted = dumped[0].get("formatted")
            section = formatted["value"] if formatted else None
            if section:
                values = {k: v for part in section.values() for each in part for k, v in each.items()}
                ours_by = {v["name"]: v["value"] for v in ours["variables"]}
                check("guest:bss variables", sorted(ours_by), sorted(values))
                shown = "{seen = %d, sum = [%s]}" % (values["stats"]["seen"], ", ".join(map(str, values["stats"]["sum"])))
                check("guest:bss struct", ours_by["stats"], shown)
                check("guest:bss counter not gone back", int(ours_by["nr_enqueued"]) >= values["nr_enqueued"], True)
