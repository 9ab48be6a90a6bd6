"""What stands around the scheduler, by drgn: times of CPUs, softirqs, NUMA counters, pressure, modules, the locks that tasks
sleep for, dispatch queues inside of others; and the guest's own /proc/PID/stat."""
import bisect, re

import drgn
from drgn import Object
from drgn.helpers.linux.list import list_for_each_entry
from drgn.helpers.linux.percpu import per_cpu, per_cpu_ptr

# Functions that send the task which calls them to sleep; what stands above them on a stack says for what.
SLEEPS = {"__schedule", "__schedule_loop", "schedule", "schedule_preempt_disabled", "schedule_rtlock", "rt_mutex_schedule",
          "schedule_timeout", "schedule_timeout_uninterruptible", "io_schedule", "io_schedule_timeout"}
LOCKS = ("__mutex_lock", "mutex_lock", "__ww_mutex_lock", "ww_mutex_lock", "rwsem_down_", "down_read", "down_write", "__down",
         "percpu_rwsem_wait", "__percpu_down_", "rt_mutex_", "__rt_mutex_", "rtlock_slowlock")

def enumerators(prog, name):
    return {e.name: e.value for e in prog.type(name).enumerators}

def text(obj):
    return obj.string_().decode(errors="replace")

def times(prog, ours, cpus, check):
    """Idle time is what `get_cpu_idle_time_us` makes of it, at the last tick."""
    index = enumerators(prog, "enum cpu_usage_stat")
    tickless = prog["tick_nohz_active"].value_()
    for cpu, mine in zip(cpus, ours):
        stat = per_cpu(prog["kernel_cpustat"], cpu).cpustat
        for name in ("USER", "NICE", "SYSTEM", "IRQ", "SOFTIRQ", "STEAL", "GUEST", "GUEST_NICE"):
            check(f"time:{name}", mine[name], stat[index[f"CPUTIME_{name}"]].value_())
        idle, iowait = (stat[index[f"CPUTIME_{name}"]].value_() for name in ("IDLE", "IOWAIT"))
        if tickless:
            ts = per_cpu(prog["tick_cpu_sched"], cpu)
            idle, iowait = ts.idle_sleeptime.value_(), ts.iowait_sleeptime.value_()
            fields = {m.name for m in prog.type("struct tick_sched").members}
            active = ts.idle_active.value_() if "idle_active" in fields else ts.flags.value_() >> 2 & 1
            if active:
                lasting = max(prog["tick_next_period"].value_() - ts.idle_entrytime.value_(), 0)
                if per_cpu(prog["runqueues"], cpu).nr_iowait.counter.value_():
                    iowait += lasting
                else:
                    idle += lasting
        check("time:idle", mine["idle"], idle)
        check("time:iowait", mine["iowait"], iowait)

def nodes(prog, ours, cpus, check):
    items = enumerators(prog, "enum numa_stat_item")
    order = [items[f"NUMA_{n}"] for n in ("HIT", "MISS", "FOREIGN", "INTERLEAVE_HIT", "LOCAL", "OTHER")]
    check("walk:nodes", [node for node, _ in ours],
          [n for n in range(prog["nr_node_ids"].value_()) if prog["node_data"][n]])
    for node, mine in ours:
        sums = [0] * len(order)
        for zone in prog["node_data"][node].node_zones:
            for at, item in enumerate(order):
                sums[at] += zone.vm_numa_event[item].counter.value_()
                if zone.present_pages:
                    sums[at] += sum(per_cpu_ptr(zone.per_cpu_zonestats, cpu).vm_numa_event[item].value_() for cpu in cpus)
        check("numa", mine, sums)

def pressure(prog, ours, group, now, cpus, check, name):
    """Totals as `collect_percpu_times` would bring them up to date, averages as they stand."""
    states = enumerators(prog, "enum psi_states")
    nonidle = states["PSI_NONIDLE"]
    sums, weights = [0] * nonidle, 0
    for cpu in cpus:
        part, recent = per_cpu_ptr(group.pcpu, cpu), []
        mask, since = part.state_mask.value_(), part.state_start.value_()
        for state in range(nonidle + 1):
            time = part.times[state].value_()
            if mask >> state & 1:
                time += max(now - since, 0)
            recent.append((time - part.times_prev[0][state].value_()) & 0xffffffff)
        weights += recent[nonidle]
        for state in range(nonidle):
            sums[state] += recent[state] * recent[nonidle]
    for resource, some, full in ours:
        short = {"memory": "MEM"}.get(resource, resource.upper())
        for said, kind in ((some, "SOME"), (full, "FULL")):
            state = states.get(f"PSI_{short}_{kind}")
            check(f"{name}:has {kind.lower()} {resource}", said is not None, state is not None and state < nonidle)
            if said is not None:
                total = (group.total[0][state].value_() + sums[state] // max(weights, 1)) // 1000
                check(f"{name}:{resource} {kind.lower()} total", said["total_us"], total)
                averages = [group.avg[state][i].value_() * 100 >> 11 for i in range(3)]
                check(f"{name}:{resource} {kind.lower()} averages", said["averages"], averages)

def of_module(prog, module, address):
    """Name and distance of a module's symbol at or below an address; more than one where symbols share a place."""
    table = module.kallsyms
    if not table:
        return set()
    entries, end = [], table.num_symtab.value_()
    raw, names = prog.read(table.symtab.value_(), 24 * end), table.strtab.value_()
    for n in range(end):
        symbol = raw[24 * n:24 * n + 24]
        section, value = int.from_bytes(symbol[6:8], "little"), int.from_bytes(symbol[8:16], "little")
        name = prog.read_c_string(names + int.from_bytes(symbol[:4], "little")).decode()
        if section and name and not name.startswith(("$", ".L")):
            entries.append((value, name))
    entries.sort()
    at = bisect.bisect_right([value for value, _ in entries], address)
    if not at:
        return set()
    best = entries[at - 1][0]
    distance = address - best
    return {name + (f"+{distance:#x}" if distance else "") for value, name in entries if value == best}

def modules(prog, ours, check):
    there = list(list_for_each_entry("struct module", prog["modules"].address_of_(), "list"))
    check("walk:modules", [m["address"] for m in ours], [m.value_() for m in there])
    for mine, module in zip(ours, there):
        name = text(module.name)
        check("Module:name", mine["name"], name)
        fields = {m.name for m in prog.type("struct module").members}
        parts = list(module.mem) if "mem" in fields else [module.core_layout]
        check("Module:code", mine["symbols"][0][0], parts[0].base.value_())
        for place, said in mine["symbols"]:
            inside = place - parts[0].base.value_() < parts[0].size.value_()
            expected = {f"{symbol} [{name}]" for symbol in of_module(prog, module, place)} if inside else {None}
            check("Module:symbol", said in (expected or {f"[{name}]"}), True)

def lock(prog, task):
    """The function of a lock that a task sleeps in, by drgn's own unwinder."""
    slept = False
    for frame in prog.stack_trace(task):
        if frame.is_inline:
            continue
        try:
            name = frame.symbol().name.split(".")[0]
        except LookupError:
            name = ""
        if name in SLEEPS:
            slept = True
        elif slept:
            return name if name.startswith(LOCKS) else None
    return None

def locks(prog, ours, check):
    for task in ours:
        # Return addresses are looked at as x86 calls leave them.
        if isinstance(task["lock"], dict) and task["lock"]["error"] == "Absent":
            continue
        if task["lock"] != "awake":
            obj = Object(prog, "struct task_struct *", task["address"])
            expected = lock(prog, obj)
            check("Task:lock" if expected else "Task:no lock", task["lock"], expected)

def queues(prog, rq, ours, check, record, tasks_on):
    """The dispatch queues inside of a runqueue."""
    record(prog, ours["local_dsq"])
    check("LocalQueue:address", ours["local_dsq"]["address"], rq.scx.local_dsq.address_)
    check("LocalQueue:tasks", ours["local_dsq"]["tasks"], tasks_on(rq.scx.local_dsq))
    check("LocalQueue:name", ours["local_dsq"]["name"], "local")
    inside = any(m.name == "bypass_dsq" for m in rq.scx.type_.members)
    check("BypassQueue:there", "address" in ours["bypass_dsq"], inside)
    if inside:
        record(prog, ours["bypass_dsq"])
        check("BypassQueue:tasks", ours["bypass_dsq"]["tasks"], tasks_on(rq.scx.bypass_dsq))

def longest_wait(prog, ours, cpus, check):
    """Who has been runnable for longest: of equals the one that is found first."""
    if prog["scx_ops_enable_state_var"].counter.value_() != enumerators(prog, "enum scx_ops_enable_state")["SCX_OPS_ENABLED"]:
        return check("scx:longest_wait", ours, None)
    now, limit, longest = prog["jiffies"].value_(), prog["scx_watchdog_timeout"].value_(), None
    for cpu in cpus:
        runnable = per_cpu(prog["runqueues"], cpu).scx.runnable_list
        for task in list_for_each_entry("struct task_struct", runnable.address_of_(), "scx.runnable_node"):
            waited = max(now - task.scx.runnable_at.value_(), 0)
            if longest is None or waited > longest[2]:
                longest = [cpu, task.value_(), waited, limit]
    check("scx:longest_wait", ours, longest)

def against_drgn(prog, dump, cpus, check):
    ours = dump["around"]
    times(prog, ours["times"], cpus, check)
    for cpu, mine in zip(cpus, ours["softirqs"]):
        check("softirqs", mine, [n.value_() for n in per_cpu(prog["kstat"], cpu).softirqs])
    if isinstance(ours["nodes"], list):
        nodes(prog, ours["nodes"], cpus, check)
    check("clock", ours["clock"], max(per_cpu(prog["runqueues"], cpu).clock.value_() for cpu in cpus))
    if isinstance(ours["pressure"], list):
        pressure(prog, ours["pressure"], prog["psi_system"], ours["clock"], cpus, check, "pressure")
        irq = enumerators(prog, "enum psi_states").get("PSI_IRQ_FULL")
        check("pressure:irq", isinstance(ours["irq_pressure"], int), irq is not None)
        if irq is not None:
            of_group = [full["total_us"] for resource, _, full in ours["pressure"] if resource == "irq"]
            check("pressure:irq total", [ours["irq_pressure"]], of_group)
    for cgroup in dump["cgroups"]:
        if isinstance(cgroup["pressure"], list):
            group = Object(prog, "struct cgroup", address=cgroup["address"]).psi
            root = cgroup["address"] == prog["cgrp_dfl_root"].cgrp.address_
            pressure(prog, cgroup["pressure"], prog["psi_system"] if root else group, ours["clock"], cpus, check, "Cgroup pressure")
    if isinstance(ours["modules"], list):
        modules(prog, ours["modules"], check)
    else:
        check("walk:modules", ours["modules"]["error"], "Absent")
    locks(prog, dump["tasks"], check)

def against_guest(dump, said, check):
    """What /proc/PID/stat said: members 1 to 52 (man 5 proc), those that don't change as long as nobody asks for it."""
    by_pid = {t["fields"]["task_struct.pid"]: t["fields"] for t in dump["tasks"]}
    for line in said.get("/proc/PID/stat", []):
        whole = re.match(r"(\d+) \((.*)\) (\S) (.*)$", line)
        if not whole or int(whole[1]) not in by_pid:
            continue
        ours, rest = by_pid[int(whole[1])], whole[4].split()
        if ours["task_struct.comm"] != whole[2]:
            continue  # A worker of the kernel's that does something else by now, or a number that was used again.
        check("guest:ppid", ours["task_struct.real_parent->tgid"], int(rest[0]))
        check("guest:pgrp", ours["task_struct.signal->pids[2]->numbers[0].nr"], int(rest[1]))
        check("guest:session", ours["task_struct.signal->pids[3]->numbers[0].nr"], int(rest[2]))
        check("guest:rt_priority", ours["task_struct.rt_priority"], int(rest[36]))
        check("guest:policy", ours["task_struct.policy"], int(rest[37]))
        check("guest:nice", ours["task_struct.static_prio"] - 120, int(rest[15]))
        # Clock ticks of 10 ms, which the kernel may scale to what the task ran in all.
        ran = int(rest[10]) + int(rest[11])
        check("guest:ran not gone back", ours["task_struct.se.sum_exec_runtime"] // 10_000_000 >= ran - 1, True)
    text_of = {name: lines for name, lines in said.items() if name.startswith("/proc/pressure/")}
    pressures = {p[0]: p[1:] for p in dump["around"]["pressure"]} if isinstance(dump["around"]["pressure"], list) else {}
    for name, lines in text_of.items():
        for line in lines:
            kind, total = line.split()[0], int(re.search(r"total=(\d+)", line)[1])
            mine = pressures.get(name.rsplit("/", 1)[1], [None, None])[kind == "full"]
            if mine is not None:
                # The core was taken some seconds later.
                check("guest:pressure", total <= mine["total_us"] <= total + 20_000_000, True)
