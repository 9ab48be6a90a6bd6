#!/usr/bin/env python3
"""Checks the `dump` example against drgn, field by field.

    compare.py DUMP_BINARY CORE VMLINUX [--bare]

drgn finds the objects by itself (its own helpers, its own walks, DWARF for layout) and reads each member path with its
own object model; only the paths come from the dump. `--bare` runs the dump without the vmlinux, so that symbols and
types come out of guest memory. With `-` for the vmlinux, as for a distribution's image without one, drgn can't be asked
and only what the guest said of itself is checked. Exit code 1 on any mismatch.
"""
import collections, json, re, struct, subprocess, sys, time

import compare_bpf
import compare_variables
import drgn
from drgn import Object, cast
from drgn.helpers.linux.cgroup import css_for_each_descendant_pre, cgroup_path
from drgn.helpers.linux.cpumask import cpumask_to_cpulist, for_each_possible_cpu
from drgn.helpers.linux.list import list_for_each_entry
from drgn.helpers.linux.percpu import per_cpu, per_cpu_ptr
from drgn.helpers.linux.pid import for_each_task
from drgn.helpers.linux.rbtree import rbtree_inorder_for_each_entry

TYPES = {
    "Task": "struct task_struct", "Runqueue": "struct rq", "RunqueueSchedstat": "struct rq",
    "SchedDomain": "struct sched_domain", "DomainSchedstat": "struct sched_domain",
    "DomainShared": "struct sched_domain_shared", "SchedGroup": "struct sched_group", "Cgroup": "struct cgroup",
    "CpuGroup": "struct task_group", "Cpuset": "struct cpuset", "Pids": "struct pids_cgroup",
    "DispatchQueue": "struct scx_dispatch_q", "SchedExtOps": "struct sched_ext_ops", "ExitInfo": "struct scx_exit_info",
    "BpfProgram": "struct bpf_prog", "BpfMap": "struct bpf_map", "BpfTypeInfo": "struct btf",
}
agree, differ, absent = collections.Counter(), [], collections.Counter()

def program(core, vmlinux, kaslr, image_offset, took=None):
    """QEMU's core has no VMCOREINFO; make one from the vmlinux and where the kernel lies."""
    symbols = {}
    for line in subprocess.run(["nm", vmlinux], capture_output=True, text=True, check=True).stdout.splitlines():
        value, _, name = line.split(" ", 2) if line[0] != " " else ("0", "", "")
        symbols[name] = int(value, 16)
    data = open(vmlinux, "rb").read()
    release = re.search(rb"Linux version (\S+) ", data).group(1).decode()
    info = (f"OSRELEASE={release}\nPAGESIZE=4096\nSYMBOL(_stext)={symbols['_stext'] + kaslr:x}\n"
            f"KERNELOFFSET={kaslr:x}\n")
    if "kimage_voffset" in symbols:
        # 48-bit addresses with 4 KiB pages, as Debian builds; not where KASLR moved the direct map.
        info += (f"SYMBOL(swapper_pg_dir)={symbols['swapper_pg_dir'] + kaslr:x}\nNUMBER(VA_BITS)=48\n"
                 f"NUMBER(TCR_EL1_T1SZ)=0x10\nNUMBER(kimage_voffset)={-image_offset % 2**64:#x}\n"
                 f"NUMBER(PHYS_OFFSET)=0x40000000\n")
    else:
        five = 1 if "__pgtable_l5_enabled" in symbols else 0
        phys_base = (image_offset + 0xffffffff80000000) % 2**64
        info += (f"SYMBOL(swapper_pg_dir)={symbols['init_top_pgt'] + kaslr:x}\n"
                 f"NUMBER(phys_base)={struct.unpack('<q', struct.pack('<Q', phys_base))[0]}\n"
                 f"NUMBER(pgtable_l5_enabled)={five}\nNUMBER(KERNEL_IMAGE_SIZE)=1073741824\n")
    start = time.perf_counter()
    prog = drgn.Program(vmcoreinfo=info.encode())
    prog.set_core_dump(core)
    prog.load_debug_info([vmlinux])
    if took is not None:
        took.append(time.perf_counter() - start)
    return prog

class NullPointer(Exception):
    pass

def follow(obj, path):
    for dot, name, index in re.findall(r"(\.|->)([A-Za-z_0-9]+)|\[(\d+)\]", path):
        if dot == "->" and not obj.value_():
            raise NullPointer(path)
        obj = obj[int(index)] if index else obj.member_(name)
    return obj

def plain(obj, like):
    """The value of a drgn object in the shape that the dump uses."""
    kind = obj.type_
    while kind.kind == drgn.TypeKind.TYPEDEF:
        kind = kind.type
    if kind.kind in (drgn.TypeKind.STRUCT, drgn.TypeKind.ARRAY) and isinstance(like, dict):
        raw = obj.to_bytes_()
        return {"bits": [i for i in range(len(raw) * 8) if raw[i // 8] >> (i % 8) & 1]}
    if kind.kind == drgn.TypeKind.ARRAY:
        return obj.string_().decode(errors="replace")
    if kind.kind == drgn.TypeKind.STRUCT:
        return obj.counter.value_()
    return int(obj.value_())

def check(name, ours, theirs):
    if ours == theirs:
        agree[name] += 1
    else:
        differ.append((name, ours, theirs))

def record(prog, dump):
    """Every field of a record against drgn's reading of the same path."""
    type_name = TYPES[dump["kind"]]
    obj = Object(prog, type_name, address=dump["address"])
    for path, ours in dump["fields"].items():
        name = f"{dump['kind']}:{path}"
        rest = path[len(path.split(".", 1)[0]):]
        try:
            theirs = follow(obj, rest)
            theirs = plain(theirs, ours)
        except (LookupError, AttributeError, TypeError) as error:
            theirs = {"error": "Absent", "text": str(error)}
        except NullPointer as error:
            theirs = {"error": "Null", "text": str(error)}
        except drgn.FaultError as error:
            theirs = {"error": "Unmapped", "text": str(error)}
        if isinstance(ours, dict) and "error" in ours:
            # A field that we call absent must be absent for drgn, too: not merely unreadable.
            if isinstance(theirs, dict) and theirs.get("error") == ours["error"]:
                absent[f"{name} ({ours['error']})"] += 1
            else:
                differ.append((name, ours, theirs))
        else:
            check(name, ours, theirs)

def text(kernel_string):
    return kernel_string.string_().decode(errors="replace")

def value_of(objects):
    return [o.value_() for o in objects]

def around(prog, ours, cpus):
    """CPU times but for idle ones, which depend on what time it is; softirqs; pages by node; pressure."""
    index = {e.name: e.value for e in prog.type("enum cpu_usage_stat").enumerators}
    for cpu, mine in zip(cpus, ours["times"]):
        stat = per_cpu(prog["kernel_cpustat"], cpu).cpustat
        for name in ("USER", "NICE", "SYSTEM", "IRQ", "SOFTIRQ", "STEAL", "GUEST", "GUEST_NICE"):
            check(f"time:{name}", mine[name], stat[index[f"CPUTIME_{name}"]].value_())
        ts = per_cpu(prog["tick_cpu_sched"], cpu)
        for name, floor in (("idle", ts.idle_sleeptime), ("iowait", ts.iowait_sleeptime)):
            check(f"time:{name}", mine[name] >= floor.value_(), True)
    for cpu, mine in zip(cpus, ours["softirqs"]):
        check("softirqs", mine, [n.value_() for n in per_cpu(prog["kstat"], cpu).softirqs])
    if isinstance(ours["nodes"], list):
        items = {e.name: e.value for e in prog.type("enum numa_stat_item").enumerators}
        order = [items[f"NUMA_{n}"] for n in ("HIT", "MISS", "FOREIGN", "INTERLEAVE_HIT", "LOCAL", "OTHER")]
        for node, mine in ours["nodes"]:
            sums = [0] * len(order)
            for zone in prog["node_data"][node].node_zones:
                for at, item in enumerate(order):
                    sums[at] += zone.vm_numa_event[item].counter.value_()
                    if zone.present_pages:
                        sums[at] += sum(per_cpu_ptr(zone.per_cpu_zonestats, cpu).vm_numa_event[item].value_() for cpu in cpus)
            check("numa", mine, sums)
    if isinstance(ours["pressure"], list):
        states = {e.name: e.value for e in prog.type("enum psi_states").enumerators}
        for resource, some, full in ours["pressure"]:
            short = {"memory": "MEM"}.get(resource, resource.upper())
            for said, name in ((some, f"PSI_{short}_SOME"), (full, f"PSI_{short}_FULL")):
                if said is not None:
                    averaged = prog["psi_system"].total[0][states[name]].value_() // 1000
                    check("pressure", averaged <= said <= averaged + 10_000_000, True)

def main():
    binary, core, vmlinux = sys.argv[1:4]
    bare = "--bare" in sys.argv or vmlinux == "-"
    dump = json.loads(subprocess.run([binary, core] + ([] if bare else [vmlinux]), capture_output=True, check=True).stdout)
    if vmlinux == "-":
        compare_bpf.against_guest(core, dump, check)
        return finish()
    prog = program(core, vmlinux, dump["kaslr"], dump["image_offset"])
    scx_kernel = any(m.name == "scx" for m in prog.type("struct rq").members)

    # Tasks: same set, same class, every field.
    theirs = {t.value_(): t for t in for_each_task(prog)}
    check("walk:tasks", sorted(t["address"] for t in dump["tasks"] if t["fields"]["task_struct.pid"] != 0), sorted(theirs))
    check("walk:tasks_by_pid", dump["by_pid"], sorted([t.pid.value_(), at] for at, t in theirs.items()))
    for task in dump["tasks"]:
        record(prog, task)
        obj = Object(prog, "struct task_struct", address=task["address"])
        cls = prog.symbol(obj.sched_class.value_()).name
        if scx_kernel:
            states = {e.value: e.name for e in prog.type("enum scx_task_state").enumerators}
            check("Task:scx_state", "SCX_TASK_" + task["scx_state"].upper(), states[obj.scx.flags.value_() >> 8 & 3])
            states = {e.value: e.name for e in prog.type("enum scx_ops_state").enumerators}
            word = obj.scx.ops_state.counter.value_()
            check("Task:scx_ops_state", ["SCX_OPSS_" + task["scx_ops_state"][0].upper(), task["scx_ops_state"][1]],
                  [states[word & 3], word >> 2])
        check("Task:class", task["class"] + "_sched_class", cls)

    # Runqueues, their queues, domains and groups.
    cpus = list(for_each_possible_cpu(prog))
    check("walk:cpus", [rq["fields"]["rq.cpu"] for rq in dump["rqs"]], cpus)
    for cpu, ours in zip(cpus, dump["rqs"]):
        rq = per_cpu(prog["runqueues"], cpu)
        check("walk:rq", ours["address"], rq.address_)
        record(prog, ours); record(prog, ours["schedstat"])
        check("walk:cfs_tasks", ours["cfs_tasks"], value_of(
            list_for_each_entry("struct task_struct", rq.cfs_tasks.address_of_(), "se.group_node")))
        check("walk:cfs_timeline", ours["cfs_timeline"], value_of(rbtree_inorder_for_each_entry(
            "struct sched_entity", rq.cfs.tasks_timeline.rb_root.address_of_(), "run_node")))
        check("walk:dl_entities", ours["dl_entities"], value_of(rbtree_inorder_for_each_entry(
            "struct sched_dl_entity", rq.dl.root.rb_root.address_of_(), "rb_node")))
        servers = any(m.name == "dl_server" for m in prog.type("struct sched_dl_entity").members)
        check("walk:dl_tasks", ours["dl_tasks"], [
            drgn.container_of(e, "struct task_struct", "dl").value_() for e in rbtree_inorder_for_each_entry(
                "struct sched_dl_entity", rq.dl.root.rb_root.address_of_(), "rb_node") if not (servers and e.dl_server)])
        check("walk:rt_tasks", ours["rt_tasks"], [t.value_() for p in range(100) for t in list_for_each_entry(
            "struct task_struct", rq.rt.active.queue[p].address_of_(), "rt.run_list")])
        if scx_kernel:
            check("walk:scx_runnable", ours["scx_runnable"], value_of(list_for_each_entry(
                "struct task_struct", rq.scx.runnable_list.address_of_(), "scx.runnable_node")))
            check("walk:local_dsq", ours["local_dsq_tasks"], value_of(list_for_each_entry(
                "struct task_struct", rq.scx.local_dsq.list.address_of_(), "scx.dsq_list.node")))
        sd, chain = rq.sd, []
        while sd:
            chain.append(sd); sd = sd.parent
        check("walk:domains", [d["address"] for d in ours["domains"]], value_of(chain))
        for mine, sd in zip(ours["domains"], chain):
            record(prog, mine); record(prog, mine["schedstat"])
            check("SchedDomain:name", mine["name"], text(sd.name))
            span = lambda mask: [c for c in cpus if mask[c // 64].value_() >> (c % 64) & 1]
            check("SchedDomain:span", mine["span"], span(sd.span))
            if sd.shared:
                record(prog, mine["shared"])
            group, groups = sd.groups, []
            while group and group.value_() not in [g.value_() for g in groups]:
                groups.append(group); group = group.next
            check("walk:groups", [g["address"] for g in mine["groups"]], value_of(groups))
            for g, group in zip(mine["groups"], groups):
                record(prog, g)
                check("SchedGroup:cpumask", g["cpus"], span(group.cpumask))

    around(prog, dump["around"], cpus)

    # Cgroups.
    root = prog["cgrp_dfl_root"].cgrp
    theirs = {}
    for css in css_for_each_descendant_pre(root.self.address_of_()):
        theirs[css.cgroup.value_()] = css.cgroup
    check("walk:cgroups", sorted(c["address"] for c in dump["cgroups"]), sorted(theirs))
    ids = prog.type("enum cgroup_subsys_id")
    index = {e.name: e.value for e in ids.enumerators}
    for ours in dump["cgroups"]:
        cgroup = theirs[ours["address"]]
        record(prog, ours)
        populated = cgroup.nr_populated_csets + cgroup.nr_populated_domain_children + cgroup.nr_populated_threaded_children
        check("Cgroup:populated", ours["populated"], bool(populated))
        check("Cgroup:frozen", ours["frozen"], bool(cgroup.flags.value_() >> prog["CGRP_FROZEN"].value_() & 1))
        check("Cgroup:online", ours["online"], bool(cgroup.self.flags & prog["CSS_ONLINE"]))
        check("Cgroup:path", ours["path"], cgroup_path(cgroup).decode())
        members = []
        for link in list_for_each_entry("struct cgrp_cset_link", cgroup.cset_links.address_of_(), "cset_link"):
            members += value_of(list_for_each_entry("struct task_struct", link.cset.tasks.address_of_(), "cg_list"))
        check("walk:cgroup_tasks", ours["tasks"], members)
        for part, kind in (("cpu", "struct task_group"), ("cpuset", "struct cpuset"), ("pids", "struct pids_cgroup")):
            css = cgroup.subsys[index[f"{part}_cgrp_id"]]
            check(f"Cgroup:has_{part}", part in ours, bool(css))
            if css:
                obj = drgn.container_of(css, kind, "css")
                check(f"walk:{part}", ours[part]["address"], obj.value_())
                record(prog, ours[part])
                if part == "cpuset":
                    for mask in ("cpus_allowed", "effective_cpus"):
                        bits = obj.member_(mask)[0].bits
                        check(f"Cpuset:{mask}", ours[part][mask],
                              [c for c in range(prog["nr_cpu_ids"].value_()) if bits[c // 64].value_() >> (c % 64) & 1])

    # sched_ext.
    if scx_kernel:
        scx = dump["scx"]
        names = {e.value: e.name for e in prog.type("enum scx_ops_enable_state").enumerators}
        check("scx:state", "SCX_OPS_" + scx["state"].upper(), names[prog["scx_ops_enable_state_var"].counter.value_()])
        check("scx:switch_all", int(scx["switch_all"]), int(prog["scx_switching_all"].value_()))
        for ours, name in (("nr_rejected", "scx_nr_rejected"), ("hotplug_seq", "scx_hotplug_seq"), ("enable_seq", "scx_enable_seq")):
            check(f"scx:{ours}", scx[ours], prog[name].counter.value_())
        for ours, name in (("bypass_depth", "scx_ops_bypass_depth"), ("watchdog_timestamp", "scx_watchdog_timestamp"), ("watchdog_timeout", "scx_watchdog_timeout")):
            check(f"scx:{ours}", scx[ours], prog[name].value_())
        check("scx:ops", scx["ops"]["address"], prog["scx_ops"].address_)
        record(prog, scx["ops"])
        if prog["scx_exit_info"]:
            check("scx:exit_info", scx["exit_info"]["address"], prog["scx_exit_info"].value_())
            record(prog, scx["exit_info"])
            info, said = prog["scx_exit_info"], scx["exit_report"]
            for name, key in (("reason", "reason"), ("msg", "message"), ("dump", "dump")):
                at = info.member_(name)
                check(f"scx:exit {name}", said[key], text(at) if at else "")
            check("scx:exit trace", said["trace"], [info.bt[i].value_() for i in range(info.bt_len)])
            check("scx:exit kind", "SCX_EXIT_" + said["kind"].upper(), info.kind.format_(type_name=False))
        check("scx:exit_kind", "SCX_EXIT_" + scx["exit_kind"].upper(),
              {e.value: e.name for e in prog.type("enum scx_exit_kind").enumerators}[prog["scx_exit_kind"].counter.value_()])
        ops = prog["scx_ops"]
        has = [[m.name, ops.member_(m.name).value_()] for m in ops.type_.members
               if m.type.kind == drgn.TypeKind.POINTER and ops.member_(m.name)]
        check("scx:operations", scx["operations"], has)
        queues = []
        if prog["global_dsqs"]:
            queues = [prog["global_dsqs"][n].value_() for n in range(prog["nr_node_ids"].value_())]
        table = prog["dsq_hash"].tbl
        if table:
            for bucket in range(table.size):
                at = table.buckets[bucket].value_() & ~1
                while at and not at & 1:
                    queues.append(drgn.container_of(Object(prog, "struct rhash_head *", at), "struct scx_dispatch_q", "hash_node").value_())
                    at = Object(prog, "struct rhash_head *", at).next.value_()
        ours = scx["queues"] if isinstance(scx["queues"], list) else []
        check("walk:queues", [q["address"] for q in ours], queues)
        for mine in ours:
            record(prog, mine)
            queue = Object(prog, "struct scx_dispatch_q", address=mine["address"])
            check("walk:queued_by_vtime", mine["by_vtime"], value_of(rbtree_inorder_for_each_entry(
                "struct task_struct", queue.priq.address_of_(), "scx.dsq_priq")))
            check("walk:queued", mine["tasks"], value_of(
                list_for_each_entry("struct task_struct", queue.list.address_of_(), "scx.dsq_list.node")))

    if dump["variables"]:
        compare_variables.against_drgn(prog, dump["variables"], check, follow, plain)
    compare_bpf.against_drgn(prog, dump, check, record, cpus)
    compare_bpf.against_guest(core, dump, check)
    finish()

def finish():
    kinds = collections.Counter(name.split(":")[0] for name in agree)
    print(f"{len(agree)} different fields agree in {sum(agree.values())} comparisons: {dict(kinds)}")
    print(f"absent or null for both: {len(absent)} fields: {sorted(absent)}")
    print(f"mismatches: {len(differ)}")
    for name, ours, theirs in differ[:40]:
        print("  ", name, "ours", str(ours)[:200], "drgn", str(theirs)[:200])
    sys.exit(bool(differ))

if __name__ == "__main__":
    main()
