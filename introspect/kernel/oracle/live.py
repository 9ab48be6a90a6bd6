#!/usr/bin/env python3
"""Reads a guest that runs: boots one whose RAM is a shared file, under load and with tasks and cgroups coming and
going, BPF hashes written and emptied, and runs the `live` example over that file.

    live.py LIVE_BINARY KERNEL ["extra kernel arguments"]
"""
import os, subprocess, sys, tempfile
from take_core import boot

def main():
    binary, kernel = sys.argv[1:3]
    extra = sys.argv[3] if len(sys.argv) > 3 else "scx maps churn"
    with tempfile.TemporaryDirectory() as tmp:
        ram = os.path.join(tmp, "ram")
        memory = ["-object", f"memory-backend-file,id=ram,size=512M,mem-path={ram},share=on",
                  "-machine", "memory-backend=ram"]
        vm, _ = boot(kernel, extra, os.path.join(tmp, "console"), tmp, memory)
        try:
            sys.exit(subprocess.run([binary, ram]).returncode)
        finally:
            vm.kill()
            vm.wait()

main()
