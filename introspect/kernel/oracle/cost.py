#!/usr/bin/env python3
"""What drgn takes to open a core and to sample all runqueues of it: best and median of many in nanoseconds, as one line of
JSON with the keys of the `cost` example.

    cost.py CORE VMLINUX KASLR PHYS_BASE

KASLR and PHYS_BASE are what the `dump` example says; both 0 for a kernel booted with `nokaslr`.
"""
import json, sys, time

from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.percpu import per_cpu

from compare import program

def spread(times):
    times.sort()
    return {"best": times[0] * 1e9, "median": times[len(times) // 2] * 1e9}

def main():
    core, vmlinux = sys.argv[1:3]
    kaslr, phys_base = (int(word, 0) for word in sys.argv[3:5])
    image_offset = (phys_base - 0xffffffff80000000) % 2**64
    program(core, vmlinux, kaslr, image_offset)
    opening = []
    for _ in range(10):
        took = []
        prog = program(core, vmlinux, kaslr, image_offset, took)
        start = time.perf_counter()
        prog.type("struct rq"), prog["runqueues"]
        opening.append(took[0] + time.perf_counter() - start)
    rqs = [per_cpu(prog["runqueues"], cpu) for cpu in for_each_possible_cpu(prog)]
    scx = any(member.name == "scx" for member in prog.type("struct rq").members)
    sampling = []
    for _ in range(100):
        start = time.perf_counter()
        for _ in range(100):
            for rq in rqs:
                rq.nr_running.value_(), rq.clock.value_(), rq.nr_switches.value_()
                if scx:
                    rq.scx.local_dsq.nr.value_()
        sampling.append((time.perf_counter() - start) / 100)
    print(json.dumps({"symbols_and_types": spread(opening), "sample": spread(sampling), "cpus": len(rqs), "local_dsq": scx}))

main()
