//! What a machine is at that doesn't come along: two looks, so that one which stands still is told
//! from one which is slow.

use ktstr_vmm::Vm;
use object::{Object, ObjectSymbol};
use std::fmt::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// Time between the looks, while the machine runs.
const APART: Duration = Duration::from_secs(2);
/// `KVM_GET_STATS_FD` (include/uapi/linux/kvm.h).
const KVM_GET_STATS_FD: libc::c_ulong = 0xaece;
/// Counters of a vCPU that tell what it was at.
const COUNTERS: [&str; 6] =
    ["exits", "halt_exits", "mmio_exits", "io_exits", "irq_injections", "irq_window_exits"];

/// Registers, local interrupt controllers and counters of all vCPUs, twice; threads and eventfds
/// of this process. Symbols are those of `KTSTR_VMM_VMLINUX`, whose kernel must not have moved (`nokaslr`).
pub(crate) fn twice(vm: &Vm) -> String {
    let vmlinux = std::env::var_os("KTSTR_VMM_VMLINUX");
    let mut text = String::new();
    let symbols = match vmlinux.map_or_else(|| Ok(Symbols::default()), |path| Symbols::read(path.as_ref())) {
        Ok(symbols) => symbols,
        Err(e) => {
            text = format!("no symbols: {e}\n");
            Symbols::default()
        }
    };
    // Writing to a string doesn't fail.
    let _ = writeln!(text, "{}", host());
    for look in ["first look", "second look, 2 s later"] {
        let _ = writeln!(text, "{look}");
        match vm.pause() {
            Ok(()) => text.push_str(&vcpus(vm, &symbols)),
            Err(e) => drop(writeln!(text, "  {e}")),
        }
        vm.resume();
        std::thread::sleep(APART);
    }
    text
}

fn vcpus(vm: &Vm, symbols: &Symbols) -> String {
    let mut text = String::new();
    for vcpu in vm.vcpus() {
        let index = vcpu.index();
        let _ = match vcpu.registers() {
            Ok(r) => {
                let halted = if r.halted { ", halted" } else { "" };
                writeln!(text, "  vCPU {index}: {r} ({}){halted}", symbols.name(r.ip))
            }
            Err(e) => writeln!(text, "  vCPU {index}: {e}"),
        };
        let more = vcpu.with_still("looking at it", |fd| {
            Ok((fd.get_lapic().map(|apic| lapic(&apic.regs)), counters(fd.as_raw_fd())))
        });
        let _ = match more {
            Ok((Ok(lapic), Ok(counters))) => writeln!(text, "    {lapic}\n    {counters}"),
            other => writeln!(text, "    {other:?}"),
        };
    }
    text
}

/// Timer and vectors of a local APIC (Intel SDM vol. 3, 12.4.1).
fn lapic(registers: &[libc::c_char]) -> String {
    let register = |offset: usize| {
        let bytes = [0, 1, 2, 3].map(|at| registers[offset + at] as u8);
        u32::from_le_bytes(bytes)
    };
    let vectors = |offset: usize| -> Vec<usize> {
        let is_set = |vector: &usize| register(offset + vector / 32 * 16) >> (vector % 32) & 1 == 1;
        (0..256).filter(is_set).collect()
    };
    format!(
        "LAPIC timer {:#x}, count {} of {}; requested {:?}, in service {:?}, task priority {:#x}",
        register(0x320),
        register(0x390),
        register(0x380),
        vectors(0x200),
        vectors(0x100),
        register(0x80)
    )
}

/// [`COUNTERS`] of a vCPU; the format is that of Documentation/virt/kvm/api.rst, 4.133.
fn counters(vcpu: i32) -> std::io::Result<String> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::ioctl(vcpu, KVM_GET_STATS_FD as _) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: KVM has just made the descriptor for this caller.
    let file = std::fs::File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let word = |at: u64| {
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, at).map(|()| u64::from(u32::from_le_bytes(bytes)))
    };
    let (name_size, count, descriptions, data) = (word(4)?, word(8)?, word(16)?, word(20)?);
    let mut text = String::new();
    for at in (0..count).map(|n| descriptions + n * (16 + name_size)) {
        let mut name = vec![0; name_size as usize];
        file.read_exact_at(&mut name, at + 16)?;
        let name = String::from_utf8_lossy(&name);
        let name = name.trim_end_matches('\0');
        if COUNTERS.contains(&name) {
            let mut value = [0; 8];
            file.read_exact_at(&mut value, data + word(at + 8)?)?;
            let _ = write!(text, "{name} {}, ", u64::from_le_bytes(value));
        }
    }
    Ok(text.trim_end_matches(", ").to_owned())
}

/// Threads of this process with what they wait in, and eventfds that nobody has read.
fn host() -> String {
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let entries = |dir: &str| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
    let mut text = String::new();
    for task in entries("/proc/self/task") {
        let stat = read(task.join("stat"));
        // State, then user and system time in clock ticks (proc(5)).
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let field = |at: usize| fields.get(at).copied().unwrap_or("?");
        let (comm, wait) = (read(task.join("comm")), read(task.join("wchan")));
        let _ = writeln!(
            text,
            "thread {}: {} in {wait}, ticks user {} system {}",
            comm.trim(),
            field(0),
            field(11),
            field(12)
        );
    }
    for info in entries("/proc/self/fdinfo") {
        let count =
            read(info.clone()).lines().find_map(|l| l.strip_prefix("eventfd-count:").map(str::to_owned));
        if let Some(count) = count.filter(|count| count.trim() != "0") {
            let fd = info.file_name().unwrap_or_default().display().to_string();
            let _ = writeln!(text, "eventfd {fd}: count {} not read", count.trim());
        }
    }
    text
}

/// Functions of a kernel by address.
#[derive(Default)]
struct Symbols(Vec<(u64, String)>);

impl Symbols {
    fn read(path: &std::path::Path) -> Result<Self, Box<dyn std::error::Error>> {
        let file = std::fs::read(path)?;
        let file = object::File::parse(&*file)?;
        let named = |symbol: object::Symbol<'_, '_>| Some((symbol.address(), symbol.name().ok()?.to_owned()));
        let mut found: Vec<_> = file.symbols().filter_map(named).collect();
        found.sort();
        Ok(Self(found))
    }

    fn name(&self, address: u64) -> String {
        match self.0.partition_point(|(at, _)| *at <= address).checked_sub(1).map(|n| &self.0[n]) {
            Some((at, name)) if address - at < 1 << 20 => format!("{name}+{:#x}", address - at),
            _ => "no symbol".to_owned(),
        }
    }
}
