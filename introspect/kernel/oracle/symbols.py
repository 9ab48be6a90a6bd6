#!/usr/bin/env python3
"""Checks symbols decoded out of a core's memory against what the guest's own /proc/kallsyms said on its console.

    symbols.py SYMBOL_BINARY CORE        (a core taken by take_core.py with the word `symbols`)
"""
import re, subprocess, sys

binary, core = sys.argv[1:3]
console = open(core + ".console", errors="replace").read()
theirs = re.findall(r"^sym ([0-9a-f]+) \S (\S+)\r?$", console, re.M)
total = int(re.search(r"^symbols (\d+)", console, re.M).group(1))
out = subprocess.run([binary, core] + sorted({name for _, name in theirs}), capture_output=True, text=True, check=True).stdout
ours = {(line.split()[0], line.split()[1]) for line in out.splitlines()[2:]}
count = int(re.search(r"^(\d+) symbols", out, re.M).group(1))
wrong = [(address, name) for address, name in theirs if (hex(int(address, 16)), name) not in ours]
print(f"{count} symbols, the guest has {total}; {len(theirs) - len(wrong)} of {len(theirs)} compared agree", wrong[:5])
sys.exit(bool(wrong) or count != total)
