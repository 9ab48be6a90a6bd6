//! Opening a kernel: its place, symbols, page tables, types.

use std::sync::{Arc, OnceLock};

use ktstr_introspect_memory::{PhysicalMemory, VirtAddr, VirtualMemory};
use ktstr_introspect_symbols::{Kallsyms, Placement, SymbolTable, Vmlinux, gnu_build_id};
use ktstr_introspect_types::{Btf, Plan};

use crate::address_space::map;
use crate::index::Index;
use crate::walk::{Links, Walker};
use crate::{KernelError, bpf, cgroup, psi, rq, sched_domain, sched_ext, schedstat, task};

/// BTF of a kernel takes 3 to 8 MiB; more than this is no BTF.
const MAX_BTF: u64 = 64 << 20;

/// A kernel's notes take some hundred bytes.
const MAX_NOTES: u64 = 1 << 20;

/// A kernel in some memory.
#[derive(Debug)]
pub struct Kernel {
    memory: VirtualMemory,
    symbols: SymbolTable,
    placement: Placement,
    btf: Arc<Btf>,
    links: Links,
    pub(crate) plans: Plans,
    pub(crate) read_types: bpf::ReadTypes,
}

/// Plans of each kind of object, compiled when first used.
#[derive(Debug, Default)]
pub(crate) struct Plans {
    pub(crate) task: OnceLock<task::TaskPlans>,
    pub(crate) rq: OnceLock<rq::RunqueuePlans>,
    pub(crate) rq_schedstat: OnceLock<schedstat::RunqueueSchedstatPlans>,
    pub(crate) domain: OnceLock<sched_domain::SchedDomainPlans>,
    pub(crate) domain_schedstat: OnceLock<schedstat::DomainSchedstatPlans>,
    pub(crate) shared: OnceLock<sched_domain::DomainSharedPlans>,
    pub(crate) group: OnceLock<sched_domain::SchedGroupPlans>,
    pub(crate) cgroup: OnceLock<cgroup::CgroupPlans>,
    /// The flag bit `CGRP_FROZEN`.
    pub(crate) cgroup_frozen: OnceLock<Option<u64>>,
    pub(crate) cpu_group: OnceLock<cgroup::CpuGroupPlans>,
    pub(crate) cpuset: OnceLock<cgroup::CpusetPlans>,
    pub(crate) pids: OnceLock<cgroup::PidsPlans>,
    pub(crate) psi: OnceLock<psi::PsiLayout>,
    pub(crate) dsq: OnceLock<sched_ext::DispatchQueuePlans>,
    pub(crate) ops: OnceLock<sched_ext::SchedExtOpsPlans>,
    pub(crate) exit_info: OnceLock<sched_ext::ExitInfoPlans>,
    pub(crate) bpf_program: OnceLock<bpf::BpfProgramPlans>,
    pub(crate) bpf_map: OnceLock<bpf::BpfMapPlans>,
    pub(crate) bpf_type_info: OnceLock<bpf::BpfTypeInfoPlans>,
}

impl Kernel {
    /// Finds the kernel, of x86-64 or aarch64, in `physical`: with `vmlinux` by its symbols (the build ids must agree) and its BTF;
    /// without, by the kallsyms and BTF that the kernel itself keeps in memory.
    ///
    /// # Errors
    /// [`KernelError`] when the kernel isn't there, isn't the file's, or has no types.
    pub fn open(physical: Arc<dyn PhysicalMemory>, vmlinux: Option<&Vmlinux>) -> Result<Self, KernelError> {
        let (symbols, placement) = match vmlinux {
            Some(vmlinux) => {
                let symbols = vmlinux.symbols()?;
                let placement = Placement::find(vmlinux, &symbols, &*physical)?;
                (symbols.with_offset(placement.kaslr), placement)
            }
            None => {
                let symbols = Kallsyms::find(&*physical)?.symbols;
                let placement = Placement::find_runtime(&symbols, &*physical)?;
                (symbols, placement)
            }
        };
        let memory = map(physical, &symbols, placement)?;
        if let Some(vmlinux) = vmlinux {
            vmlinux.check_build_id(&symbols, &memory)?;
        }
        let btf = match vmlinux.and_then(|vmlinux| vmlinux.section(".BTF")) {
            Some(bytes) => Btf::parse(bytes)?,
            None => Btf::parse(btf_in_memory(&symbols, &memory)?)?,
        };
        Self::from_parts(memory, symbols, placement, Arc::new(btf))
    }

    /// Finds the kernel in `physical` whose symbols and types are in `index`.
    ///
    /// # Errors
    /// [`KernelError`] when the kernel isn't there, or is another ([`KernelError::OtherIndex`]).
    pub fn open_indexed(physical: Arc<dyn PhysicalMemory>, index: &Index) -> Result<Self, KernelError> {
        let placement = Placement::find_linked(index.symbols(), index.banner(), &*physical)?;
        let symbols = index.symbols().clone().with_offset(placement.kaslr);
        let memory = map(physical, &symbols, placement)?;
        let kernel = Self::from_parts(memory, symbols, placement, index.types().clone())?;
        let seen = kernel.build_id()?;
        if seen.as_deref() != Some(index.build_id()) {
            return Err(KernelError::OtherIndex { expected: index.build_id().into(), seen });
        }
        Ok(kernel)
    }

    /// The kernel in `physical` whose symbols, at runtime addresses, and types are known already: as a kernel tells its own
    /// in /proc and /sys. No file and no index is asked.
    ///
    /// # Errors
    /// [`KernelError`] when no kernel is where the symbols say.
    pub fn open_known(
        physical: Arc<dyn PhysicalMemory>,
        symbols: SymbolTable,
        btf: Arc<Btf>,
    ) -> Result<Self, KernelError> {
        let placement = Placement::find_runtime(&symbols, &*physical)?;
        let memory = map(physical, &symbols, placement)?;
        Self::from_parts(memory, symbols, placement, btf)
    }

    /// The GNU build id of the kernel in memory, in hexadecimal, from its notes; nothing when it has none.
    ///
    /// # Errors
    /// [`KernelError`] when the notes can't be found or read.
    pub fn build_id(&self) -> Result<Option<String>, KernelError> {
        let (start, stop) = (self.symbol("__start_notes")?, self.symbol("__stop_notes")?);
        let length = stop.0.wrapping_sub(start.0);
        if length > MAX_NOTES {
            let (what, expected) = ("the length of the kernel's notes", "at most 1 MiB");
            return Err(KernelError::Implausible { what, at: start, seen: length, expected });
        }
        let mut notes = vec![0; length as usize];
        self.memory.read(start, &mut notes).map_err(KernelError::read("the kernel's notes"))?;
        Ok(gnu_build_id(&notes))
    }

    /// The kernel's banner, `Linux version …`, with its line end.
    ///
    /// # Errors
    /// [`KernelError`] when it can't be read.
    pub fn banner(&self) -> Result<String, KernelError> {
        let at = self.symbol("linux_banner")?;
        self.memory.read_string(at, 512).map_err(KernelError::read("linux_banner"))
    }

    /// A kernel whose parts are known already: `symbols` at runtime addresses, `memory` with the kernel's mappings.
    ///
    /// # Errors
    /// [`KernelError::Plan`] when `btf` lacks what every kernel has.
    pub fn from_parts(
        memory: VirtualMemory,
        symbols: SymbolTable,
        placement: Placement,
        btf: Arc<Btf>,
    ) -> Result<Self, KernelError> {
        let links = Links::compile(&btf)?;
        let (plans, read_types) = Default::default();
        Ok(Self { memory, symbols, placement, btf, links, plans, read_types })
    }

    /// The kernel's virtual memory.
    #[must_use]
    pub fn memory(&self) -> &VirtualMemory {
        &self.memory
    }

    /// Its symbols, at runtime addresses.
    #[must_use]
    pub fn symbols(&self) -> &SymbolTable {
        &self.symbols
    }

    /// Where it lies.
    #[must_use]
    pub fn placement(&self) -> Placement {
        self.placement
    }

    /// Its types.
    #[must_use]
    pub fn btf(&self) -> &Arc<Btf> {
        &self.btf
    }

    /// Walks of its lists and trees.
    #[must_use]
    pub fn walker(&self) -> Walker<'_> {
        Walker::new(&self.memory, &self.links)
    }

    /// The runtime address of a symbol.
    ///
    /// # Errors
    /// [`KernelError::NoSymbol`], which is [`crate::ErrorKind::Absent`].
    pub fn symbol(&self, name: &str) -> Result<VirtAddr, KernelError> {
        self.symbols
            .lookup(name)
            .map(|symbol| symbol.address)
            .ok_or_else(|| KernelError::NoSymbol { name: name.into() })
    }

    /// The link address of a symbol that is at `runtime` now. Offsets in a CPU's area, as per-CPU variables have where
    /// the kernel links those at zero, aren't moved.
    #[must_use]
    pub fn link_address(&self, runtime: VirtAddr) -> VirtAddr {
        if runtime.0 >> 63 == 0 { runtime } else { self.placement.kaslr.undo(runtime) }
    }

    /// A compiled path; see [`Btf::plan`].
    ///
    /// # Errors
    /// [`KernelError::Plan`].
    pub fn plan(&self, path: &str) -> Result<Plan, KernelError> {
        Ok(self.btf.plan(path)?)
    }

    /// The distance of a member from the start of its struct, for `container_of`.
    ///
    /// # Errors
    /// [`KernelError::Plan`] when the kernel has no such member.
    pub fn offset(&self, path: &str) -> Result<u64, KernelError> {
        Ok(self.btf.plan(path)?.offset().unwrap_or(0))
    }

    /// Compiles `path` and reads it once, from the object at `base`.
    ///
    /// # Errors
    /// [`KernelError`] when the path or the memory isn't there.
    pub fn read(&self, path: &str, base: VirtAddr) -> Result<u64, KernelError> {
        Ok(self.btf.plan(path)?.read(&self.memory, base)?)
    }

    /// The name of the symbol that `address` is at, with a distance if it isn't at its start. Nothing past the end of
    /// the kernel's image, where modules ([`Kernel::module_symbol`]) and BPF programs ([`Kernel::bpf_program_at`]) lie.
    #[must_use]
    pub fn symbolize(&self, address: VirtAddr) -> Option<String> {
        if self.symbols.lookup("_end").is_some_and(|end| address >= end.address) {
            return None;
        }
        self.symbols.at(address).map(|(symbol, offset)| match offset {
            0 => symbol.name.to_owned(),
            _ => format!("{}+{offset:#x}", symbol.name),
        })
    }

    /// A pointer variable's value.
    pub(crate) fn pointer(&self, what: &'static str, at: VirtAddr) -> Result<VirtAddr, KernelError> {
        self.memory.read_pointer(at).map_err(KernelError::read(what))
    }
}

/// The `.BTF` that the kernel keeps between two symbols of its linker script (include/asm-generic/vmlinux.lds.h).
fn btf_in_memory(symbols: &SymbolTable, memory: &VirtualMemory) -> Result<Vec<u8>, KernelError> {
    let address = |name: &str| {
        let found = symbols.lookup(name).map(|symbol| symbol.address);
        found.ok_or_else(|| KernelError::NoSymbol { name: name.into() })
    };
    let (start, stop) = (address("__start_BTF")?, address("__stop_BTF")?);
    let length = stop.0.wrapping_sub(start.0);
    if length == 0 || length > MAX_BTF {
        return Err(KernelError::Implausible {
            what: "the length of the kernel's BTF",
            at: start,
            seen: length,
            expected: "1 byte to 64 MiB",
        });
    }
    let mut bytes = vec![0; length as usize];
    memory.read(start, &mut bytes).map_err(KernelError::read("the kernel's BTF"))?;
    Ok(bytes)
}
