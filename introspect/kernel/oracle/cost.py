#!/usr/bin/env python3
"""What a sample of all runqueues and opening a kernel cost, here and with drgn, in one run over one core.

    cost.py COST_BINARY CORE VMLINUX KASLR PHYS_BASE

The binary is the `cost` example, built with optimisation; KASLR and PHYS_BASE are what the `dump` example says.
"""
import subprocess, sys, time
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.percpu import per_cpu
from compare import program

def spread(label, times, unit=1e6):
    times.sort()
    print(f"{label}: best {times[0] * unit:.1f} us, median {times[len(times) // 2] * unit:.1f} us")

def main():
    binary, core, vmlinux = sys.argv[1:4]
    kaslr, phys_base = (int(word, 0) for word in sys.argv[4:6])
    print(subprocess.run([binary, core, vmlinux], capture_output=True, text=True, check=True).stdout)
    program(core, vmlinux, kaslr, phys_base)
    opening = []
    for _ in range(10):
        prog = program(core, vmlinux, kaslr, phys_base, opening)
        prog.type("struct rq")
    spread("drgn, set_core_dump and load_debug_info", opening)
    rqs = [per_cpu(prog["runqueues"], cpu) for cpu in for_each_possible_cpu(prog)]
    scx = any(member.name == "scx" for member in prog.type("struct rq").members)
    sampling = []
    for _ in range(200):
        start = time.perf_counter()
        for _ in range(100):
            for rq in rqs:
                rq.nr_running.value_(), rq.clock.value_(), rq.nr_switches.value_()
                if scx:
                    rq.scx.local_dsq.nr.value_()
        sampling.append((time.perf_counter() - start) / 100)
    spread(f"drgn, one sample of {len(rqs)} CPUs", sampling)

main()
