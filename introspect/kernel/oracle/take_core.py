#!/usr/bin/env python3
"""Boot a kernel with load.c as /init under QEMU (TCG, 4 CPUs, 2 LLCs, 2 nodes) and take an ELF core of it.

    take_core.py KERNEL OUT.core ["extra kernel arguments"]

Words in the extra arguments: `scx` attaches the sched_ext scheduler, `maps` makes BPF maps and has the host's bpftool
list them in the guest, `symbols` prints /proc/kallsyms, `nokaslr` as ever. With MODULE in the environment, that kernel
module (.ko or .ko.xz) is loaded; with SCHEDULER, that program of the host is started with those arguments before the
load, and the core is taken when its scheduler runs. With STOP_AT (and VMLINUX, `nokaslr` among the arguments), gdb lets
the guest run until that place, such as `*0xffffffff81234567 if $rdi == 7`, and the core is taken there: a scheduler's end
is in memory for a moment only. The console goes to OUT.core.console.
"""
import json, lzma, os, shutil, socket, subprocess, sys, tempfile, time

def cpio(files):
    out = bytearray()
    for i, (name, mode, data) in enumerate(files + [("TRAILER!!!", 0, b"")]):
        fields = [i + 1, mode, 0, 0, 1, 0, len(data), 0, 0, 5 if mode & 0o170000 == 0o020000 else 0,
                  1 if mode & 0o170000 == 0o020000 else 0, len(name) + 1, 0]
        out += b"070701" + b"".join(b"%08X" % f for f in fields) + name.encode() + b"\0"
        out += b"\0" * (-len(out) % 4) + data
        out += b"\0" * (-len(out) % 4)
    return bytes(out)

def with_libraries(program, name=None):
    """A program of the host and the libraries that it is linked to, for the guest."""
    name = name or program
    path = shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin")
    if not path:
        print(f"no {program} on this host: it is left out")
        return []
    files, folders = [(name, 0o100755, open(path, "rb").read())], set()
    for line in subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout.splitlines():
        library = next((word for word in line.split() if word.startswith("/")), None)
        if library:
            folder = os.path.dirname(library).strip("/")
            parts = folder.split("/")
            folders |= {"/".join(parts[:n]) for n in range(1, len(parts) + 1)}
            files.append((library.strip("/"), 0o100755, open(library, "rb").read()))
    return [(folder, 0o040755, b"") for folder in sorted(folders)] + files

# Of aarch64 no `-cpu max`: QEMU 7.2 writes cores of CPUs with SVE that are shorter than their headers say.
MACHINES = {
    "x86_64": {"gcc": "gcc", "qemu": ["qemu-system-x86_64", "-M", "q35", "-cpu", "max"], "console": "ttyS0"},
    "aarch64": {"gcc": "aarch64-linux-gnu-gcc", "qemu": ["qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a72"],
                "console": "ttyAMA0"},
}

def qmp(sock, command, **arguments):
    sock.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
    for line in sock.makefile("r"):
        reply = json.loads(line)
        if "return" in reply or "error" in reply:
            return reply

def connect(sock):
    s = socket.socket(socket.AF_UNIX)
    s.connect(sock)
    s.makefile("r").readline()
    qmp(s, "qmp_capabilities")
    return s

def stopped(vm, sock, place, vmlinux):
    """Waits until gdb has the guest where it was told to stop it; gdb then holds it until the guest is killed."""
    while not os.path.exists(sock + ".gdb") and vm.poll() is None:
        time.sleep(0.1)
    here = sock + ".there"
    gdb = ["gdb", "-batch", "-nx", "-ex", f"target remote {sock}.gdb", "-ex", f"hbreak {place}", "-ex", "continue",
           "-ex", f"shell touch {here}; while test -e {here}; do sleep 0.2; done", vmlinux]
    process = subprocess.Popen(gdb, stdin=subprocess.DEVNULL)
    limit = time.time() + 300
    while not os.path.exists(here) and time.time() < limit and process.poll() is None:
        time.sleep(0.2)
    if not os.path.exists(here):
        vm.kill()
        sys.exit(f"the guest never came to {place}")
    return vm, connect(sock)

def boot(kernel, extra, console, tmp, memory):
    """Starts the guest and waits for it to say READY; returns it with its QMP socket."""
    if os.path.exists(console):
        os.remove(console)
    here = os.path.dirname(os.path.abspath(__file__))
    init, initrd, sock = (os.path.join(tmp, n) for n in ("init", "initrd", "qmp"))
    machine = MACHINES[os.environ.get("ARCH", "x86_64")]
    subprocess.run([machine["gcc"], "-static", "-O1", "-w", "-o", init, os.path.join(here, "load.c")], check=True)
    files = [("dev", 0o040755, b""), ("dev/console", 0o020600, b""), ("init", 0o100755, open(init, "rb").read())]
    module = os.environ.get("MODULE")
    if module:
        data = open(module, "rb").read()
        files.append(("module.ko", 0o100644, lzma.decompress(data) if module.endswith(".xz") else data))
    scheduler = os.environ.get("SCHEDULER", "").split()
    if scheduler:
        files += with_libraries(scheduler[0], "scheduler")
        files.append(("scheduler.args", 0o100644, "\n".join(scheduler[1:]).encode()))
    if "maps" in extra.split():
        files += with_libraries("bpftool")
    with open(initrd, "wb") as f:
        # Libraries of two programs may be the same.
        f.write(cpio(list({file[0]: file for file in files}.values())))
    vm = subprocess.Popen([
        *machine["qemu"], "-accel", "tcg,thread=multi", "-m", "512M",
        "-smp", "4,sockets=2,cores=2", "-display", "none", "-no-reboot", "-nodefaults", *memory,
        "-serial", f"file:{console}", "-qmp", f"unix:{sock},server=on,wait=off", "-kernel", kernel,
        "-initrd", initrd, "-append", f"console={machine['console']} quiet panic=-1 {extra}",
        *(["-gdb", f"unix:{sock}.gdb,server=on,wait=off", "-S"] if "STOP_AT" in os.environ else [])])
    limit = time.time() + 300
    if "STOP_AT" in os.environ:
        return stopped(vm, sock, os.environ["STOP_AT"], os.environ["VMLINUX"])
    while time.time() < limit and vm.poll() is None:
        if os.path.exists(console) and b"READY" in open(console, "rb").read():
            return vm, connect(sock)
        time.sleep(0.2)
    vm.kill()
    vm.wait()
    sys.exit(f"the guest never said READY, see {console}")

NODES = ["-object", "memory-backend-ram,id=m0,size=256M", "-object", "memory-backend-ram,id=m1,size=256M",
         "-numa", "node,nodeid=0,cpus=0-1,memdev=m0", "-numa", "node,nodeid=1,cpus=2-3,memdev=m1"]

def main():
    kernel, out = sys.argv[1], os.path.abspath(sys.argv[2])
    extra = sys.argv[3] if len(sys.argv) > 3 else "nokaslr"
    with tempfile.TemporaryDirectory() as tmp:
        vm, s = boot(kernel, extra, out + ".console", tmp, NODES)
        try:
            time.sleep(1)
            print(qmp(s, "stop"), qmp(s, "dump-guest-memory", paging=False, protocol=f"file:{out}"))
        finally:
            vm.kill()
            vm.wait()

if __name__ == "__main__":
    main()
