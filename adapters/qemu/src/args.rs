//! The QEMU command line of a machine.
//!
//! Everything is a function of the specification and of descriptor numbers, so
//! that it can be looked at in a snapshot.

use crate::host_tsc::DETERMINISTIC_KHZ;
use ktstr_machine::mailbox::layout::STOP_SLOT;
use ktstr_machine::{Accel, CommandLine, MachineError, MachineSpec};
use ktstr_topology::Topology;
use std::os::fd::RawFd;

/// Most vCPUs that q35 takes without an IOMMU (8-bit APIC ids).
const MAX_VCPUS: u32 = 255;

/// Everything that is emulated but fast string instructions: those are a byte at a
/// time here, and with the flags gone kernel and C library copy by words.
const CPU: &str = "max,-erms,-fsrm";

/// Descriptor numbers as the child inherits them.
#[derive(Debug, Clone)]
pub(crate) struct ChildFds {
    /// One memfd a NUMA node.
    pub(crate) ram: Vec<RawFd>,
    pub(crate) initramfs: RawFd,
    pub(crate) console: RawFd,
    pub(crate) last_words: RawFd,
    pub(crate) data: RawFd,
    pub(crate) stdio: RawFd,
    pub(crate) qmp: RawFd,
    /// Where the guest rings, in deterministic mode.
    pub(crate) bell: Option<RawFd>,
    /// The library that makes its main loop take turns with the vCPUs, in deterministic mode.
    pub(crate) turns: Option<RawFd>,
}

/// How a machine begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Boots, to run a test.
    Boot,
    /// Boots, to be saved when its init stops it.
    Prepare,
    /// Goes on from a saved state.
    Resume,
}

/// All arguments after the program's name. `tsc_khz` is the rate of the host's time stamp
/// counter, where that is known.
pub(crate) fn build(
    spec: &MachineSpec,
    fds: &ChildFds,
    start: Start,
    tsc_khz: Option<u32>,
) -> Result<Vec<String>, MachineError> {
    let topology = &spec.topology;
    check_limits(spec)?;
    let mut args: Vec<String> = Vec::new();
    let mut add = |flag: &str, value: String| args.extend([flag.to_string(), value]);
    machine(spec, &mut add);
    cpus(topology, &mut add);
    memory(spec, fds, &mut add)?;
    distances(topology, &mut add);
    add("-kernel", spec.kernel.display().to_string());
    if start != Start::Resume {
        add("-initrd", fd_path(fds.initramfs));
        add("-append", command_line(spec, start, tsc_khz)?);
    }
    channels(fds, &mut add);
    saving(start, &mut add);
    args.extend(["-nodefaults", "-no-user-config"].map(String::from));
    // At its end the machine stands still, so that its vCPUs can be looked at; the thread that
    // serves QEMU lets it go then.
    args.extend(["-action", "reboot=shutdown,shutdown=pause"].map(String::from));
    args.extend(["-display", "none"].map(String::from));
    Ok(args)
}

fn check_limits(spec: &MachineSpec) -> Result<(), MachineError> {
    spec.topology.validate()?;
    let unsupported = |what: String| Err(MachineError::Unsupported { accel: spec.accel, what });
    let cpus = spec.topology.total_cpus();
    if cpus > MAX_VCPUS {
        return unsupported(format!(
            "{cpus} vCPUs asked for, at most {MAX_VCPUS} under QEMU; use fewer LLCs or cores"
        ));
    }
    let attributed = |n: &ktstr_topology::NumaNode| {
        n.latency_ns.is_some() || n.bandwidth_mbs.is_some() || n.mem_side_cache.is_some()
    };
    if spec.topology.nodes.iter().flat_map(|n| n.iter()).any(attributed) {
        return unsupported(
            "latency, bandwidth and memory-side caches of a node (ACPI HMAT) are not passed on under QEMU; \
             leave them out or use kvm"
                .to_string(),
        );
    }
    Ok(())
}

fn machine(spec: &MachineSpec, add: &mut impl FnMut(&str, String)) {
    add("-machine", "q35,usb=off,sata=off,smbus=off,vmport=off".to_string());
    match spec.accel {
        Accel::Deterministic => {
            add("-accel", "tcg,thread=single".to_string());
            // One instruction is one nanosecond of guest time; idle time is skipped.
            add("-icount", "shift=0,sleep=off,align=off".to_string());
            add("-rtc", "base=2026-01-01T00:00:00,clock=vm".to_string());
            // The host's entropy would differ from run to run.
            add("-cpu", format!("{CPU},-rdrand,-rdseed"));
        }
        Accel::Tcg | Accel::Kvm => {
            add("-accel", "tcg,thread=multi".to_string());
            add("-cpu", CPU.to_string());
        }
    }
}

/// One socket an LLC: QEMU shares the L3 among a socket's cores, and Linux takes
/// LLC and package ids from there on Intel and AMD models alike.
fn cpus(topology: &Topology, add: &mut impl FnMut(&str, String)) {
    let (llcs, cores, threads) = (topology.num_llcs(), topology.cores_per_llc, topology.threads_per_core);
    let total = topology.total_cpus();
    add("-smp", format!("cpus={total},sockets={llcs},cores={cores},threads={threads},maxcpus={total}"));
}

fn memory(
    spec: &MachineSpec,
    fds: &ChildFds,
    add: &mut impl FnMut(&str, String),
) -> Result<(), MachineError> {
    add("-m", format!("{}M", spec.memory_mib));
    for (node, mib) in spec.topology.node_memory_mib(spec.memory_mib)?.into_iter().enumerate() {
        let path = fd_path(fds.ram[node]);
        add("-object", format!("memory-backend-file,id=ram{node},size={mib}M,mem-path={path},share=on"));
        add("-numa", format!("node,nodeid={node},memdev=ram{node}"));
        for llc in spec.topology.llcs_in_node(node as u32) {
            add("-numa", format!("cpu,node-id={node},socket-id={llc}"));
        }
    }
    Ok(())
}

fn distances(topology: &Topology, add: &mut impl FnMut(&str, String)) {
    let nodes = topology.num_numa_nodes();
    for src in 0..nodes {
        for dst in (0..nodes).filter(|d| *d != src) {
            add("-numa", format!("dist,src={src},dst={dst},val={}", topology.distance(src, dst)));
        }
    }
}

fn channels(fds: &ChildFds, add: &mut impl FnMut(&str, String)) {
    add("-add-fd", format!("fd={},set=1,opaque=console", fds.console));
    add("-chardev", "file,id=console,path=/dev/fdset/1,append=on".to_string());
    add("-serial", "chardev:console".to_string());
    // The second one, where a guest says what it can say nowhere else.
    add("-add-fd", format!("fd={},set=5,opaque=last-words", fds.last_words));
    add("-chardev", "file,id=last-words,path=/dev/fdset/5,append=on".to_string());
    add("-serial", "chardev:last-words".to_string());
    add("-add-fd", format!("fd={},set=2,opaque=data", fds.data));
    add("-chardev", "file,id=data,path=/dev/fdset/2,append=on".to_string());
    // Without ioeventfd a kick is served by the vCPU itself, at a guest-determined
    // instant; with it the main loop would serve it whenever the host gets there.
    let ports = if fds.bell.is_some() { 4 } else { 3 };
    add("-device", format!("virtio-serial-pci,ioeventfd=off,max_ports={ports}"));
    add("-device", "virtserialport,chardev=data,name=ktstr.data,nr=1".to_string());
    add("-add-fd", format!("fd={},set=3,opaque=stdio", fds.stdio));
    add("-chardev", "file,id=stdio,path=/dev/fdset/3,append=on".to_string());
    add("-device", "virtserialport,chardev=stdio,name=ktstr.stdio,nr=2".to_string());
    if let Some(bell) = fds.bell {
        // QEMU writes what goes to a device's log where the guest's write is carried out, and
        // waits there until it is taken: the one vCPU thread with it, so that the guest stands
        // still at an instant of its own (chardev/char.c, `qemu_chr_write_log`).
        add("-add-fd", format!("fd={bell},set=4,opaque=bell"));
        add("-chardev", "file,id=bell,path=/dev/null,logfile=/dev/fdset/4,logappend=on".to_string());
        add("-device", "virtserialport,chardev=bell,name=ktstr.bell,nr=3".to_string());
    }
    add("-chardev", format!("socket,id=qmp,fd={}", fds.qmp));
    add("-mon", "chardev=qmp,mode=control".to_string());
}

/// A machine that is to be saved stops itself: its boot init lets a watchdog run out.
///
/// Were it to stop by an instruction of a vCPU (`pvpanic`), QEMU's main loop would skip
/// idle time before or after that vCPU's last instructions are counted, as the host has
/// it; a timer of guest time runs out while all vCPUs are halted.
fn saving(start: Start, add: &mut impl FnMut(&str, String)) {
    if start == Start::Boot {
        return;
    }
    add("-device", format!("i6300esb,addr={STOP_SLOT:#x}"));
    match start {
        Start::Prepare => add("-action", "watchdog=pause".to_string()),
        _ => {
            add("-action", "watchdog=none".to_string());
            // The capability that leaves RAM out of the stream must be set first.
            add("-incoming", "defer".to_string());
            // QEMU would announce its network cards for most of a second, by a timer of the
            // host's clock; even without any, the vCPUs' turns end when such a timer is due
            // (`icount_get_limit`, accel/tcg/tcg-accel-ops-icount.c).
            add("-global", "migration.announce-rounds=0".to_string());
        }
    }
}

fn fd_path(fd: RawFd) -> String {
    format!("/proc/self/fd/{fd}")
}

/// Our own arguments, then the test's.
fn command_line(spec: &MachineSpec, start: Start, tsc_khz: Option<u32>) -> Result<String, MachineError> {
    let mut line = CommandLine::new();
    line.extend(["console=ttyS0", "rdinit=/init", "panic=-1", "reboot=t"])?;
    // The emulated TSC is as steady as the host's; the kernel can't know and
    // would spend half a second on checking.
    line.extend(["tsc=reliable", "no_timer_check"])?;
    let tsc_khz = if spec.accel == Accel::Deterministic { Some(DETERMINISTIC_KHZ) } else { tsc_khz };
    if let Some(khz) = tsc_khz {
        line.push(&format!("tsc_early_khz={khz}"))?;
    }
    // Speculation barriers are only cost under emulation.
    line.push("mitigations=off")?;
    if !spec.kaslr {
        line.push("nokaslr")?;
    }
    if spec.verbose {
        line.extend(["loglevel=7", "earlyprintk=serial"])?;
    } else {
        // Only emergencies; with 0 the kernel would keep even a panic to itself
        // (include/linux/printk.h, `console_verbose`).
        line.push("loglevel=1")?;
    }
    if spec.accel == Accel::Deterministic && start == Start::Boot {
        // The kernel stirs its command line into the entropy pool (`random_init_early`,
        // drivers/char/random.c), and here it has no other source: the seed decides. A saved
        // machine gets it later, from its mailbox.
        line.push(&format!("ktstr.seed={}", spec.seed))?;
    }
    let ours = line.render()?;
    let theirs = spec.cmdline.render()?;
    Ok(if theirs.is_empty() { ours } else { format!("{ours} {theirs}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ktstr_topology::NumaNode;

    const TSC: Option<u32> = Some(2_600_000);

    fn spec(topology: Topology, accel: Accel) -> MachineSpec {
        MachineSpec {
            kernel: "/k/bzImage".into(),
            initramfs: Vec::new(),
            cmdline: CommandLine::new(),
            topology,
            memory_mib: 512,
            accel,
            seed: 7,
            verbose: false,
            kaslr: false,
            performance: None,
        }
    }

    fn fds() -> ChildFds {
        ChildFds {
            ram: vec![10, 11],
            initramfs: 20,
            console: 21,
            last_words: 26,
            data: 22,
            stdio: 23,
            qmp: 24,
            bell: None,
            turns: None,
        }
    }

    fn lines(spec: &MachineSpec) -> String {
        let bell = (spec.accel == Accel::Deterministic).then_some(25);
        build(spec, &ChildFds { bell, ..fds() }, Start::Boot, TSC).unwrap().join("\n").replace("\n-", "\n\n-")
    }

    #[test]
    fn two_nodes_in_emulation() {
        insta::assert_snapshot!(lines(&spec(Topology::uniform(2, 4, 2, 2), Accel::Tcg)));
    }

    #[test]
    fn deterministic_mode_takes_nothing_from_the_host() {
        insta::assert_snapshot!(lines(&spec(Topology::uniform(1, 1, 2, 1), Accel::Deterministic)));
    }

    #[test]
    fn a_saved_machine_knows_no_seed_and_a_resumed_one_boots_nothing() {
        let spec = spec(Topology::uniform(1, 1, 2, 1), Accel::Deterministic);
        let prepare = build(&spec, &fds(), Start::Prepare, TSC).unwrap().join(" ");
        assert!(prepare.contains("-action watchdog=pause") && !prepare.contains("ktstr.seed"), "{prepare}");
        let resume = build(&spec, &fds(), Start::Resume, TSC).unwrap().join(" ");
        assert!(resume.contains("-incoming defer") && resume.contains("watchdog=none"), "{resume}");
        assert!(!resume.contains("-initrd") && !resume.contains("-append"), "{resume}");
    }

    #[test]
    fn a_kernel_that_may_move_is_not_told_to_stay() {
        let stays = spec(Topology::uniform(1, 1, 2, 1), Accel::Tcg);
        let moves = MachineSpec { kaslr: true, ..stays.clone() };
        assert!(lines(&stays).contains(" nokaslr ") && !lines(&moves).contains("kaslr"));
    }

    #[test]
    fn a_memory_only_node_has_no_cpu() {
        let nodes = [NumaNode::new(1), NumaNode::memory_only(128)];
        let args = lines(&spec(Topology::with_nodes(2, 1, &nodes).unwrap(), Accel::Tcg));
        assert!(args.contains("node,nodeid=1,memdev=ram1") && !args.contains("cpu,node-id=1"), "{args}");
    }

    #[test]
    fn what_qemu_can_not_do_is_refused() {
        let err =
            build(&spec(Topology::uniform(1, 8, 32, 1), Accel::Tcg), &fds(), Start::Boot, TSC).unwrap_err();
        assert!(err.to_string().contains("256 vCPUs"), "{err}");
        let nodes = [NumaNode::new(1).with_latency_ns(80)];
        let err =
            build(&spec(Topology::with_nodes(2, 1, &nodes).unwrap(), Accel::Tcg), &fds(), Start::Boot, TSC)
                .unwrap_err();
        assert!(err.to_string().contains("HMAT"), "{err}");
    }
}
