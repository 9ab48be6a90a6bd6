//! Type information in kernel memory: `struct btf` of programs and of modules (kernel/bpf/btf.c).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use ktstr_introspect_memory::VirtAddr;
use ktstr_introspect_types::Btf;

use crate::record::record;
use crate::{Kernel, KernelError};

/// `BTF_MAX_SIZE` is 16 MiB since 5.0; a program's or module's takes some KiB.
const MAX_BYTES: u64 = 64 << 20;
/// More modules than this have never been loaded.
const MAX_MODULES: usize = 1 << 16;

record! {
    /// Type information that the kernel holds.
    BpfTypeInfo, BpfTypeInfoPlans, bpf_type_info {
        /// Its ID, as in `bpftool btf`.
        id: u64 = "btf.id";
        /// Whether it is the kernel's or a module's.
        kernel_btf: bool = "btf.kernel_btf";
        /// `vmlinux`, the module's name, or nothing for a program's.
        name: String = "btf.name";
        /// Its bytes.
        data: VirtAddr = "btf.data";
        /// How many.
        data_size: u64 = "btf.data_size";
        /// What it stands on: null, or the kernel's.
        base: VirtAddr = "btf.base_btf";
    }
}

/// Type information that was read before. It never changes once it has an ID, and no ID is used again before 2^31 others
/// were; what is looked at again and again (snapshots of a scheduler's variables) is read and parsed once.
#[derive(Debug, Default)]
pub(crate) struct ReadTypes(Mutex<BTreeMap<TypesKey, Arc<Btf>>>);

/// The `struct btf`, its ID, its bytes and how many.
type TypesKey = (u64, u64, u64, u64);

/// Parsed type information that is kept; those of one scheduler's program and maps are one.
const MAX_KEPT: usize = 64;

impl ReadTypes {
    fn get(&self, key: &TypesKey) -> Option<Arc<Btf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn keep(&self, key: TypesKey, types: &Arc<Btf>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_KEPT {
            // Those of schedulers that are long gone; what is still used comes back.
            kept.clear();
        }
        kept.insert(key, types.clone());
    }
}

impl Kernel {
    /// The types in the `struct btf` at `at`: a program's, a module's on top of the kernel's, or the kernel's own.
    ///
    /// # Errors
    /// [`KernelError`] when it can't be read, [`KernelError::Btf`] when what is read isn't BTF.
    pub fn bpf_types(&self, at: VirtAddr) -> Result<Arc<Btf>, KernelError> {
        let (data, length) = (self.read("btf.data", at)?, self.read("btf.data_size", at)?);
        if length == 0 || length > MAX_BYTES {
            return Err(KernelError::Implausible {
                what: "the length of a BTF",
                at,
                seen: length,
                expected: "1 byte to 64 MiB",
            });
        }
        // Split BTF came in 5.11; before, there is no such member and nothing to stand on.
        let base = match self.read("btf.base_btf", at) {
            Err(error) if error.kind() == crate::ErrorKind::Absent => 0,
            other => other?,
        };
        if self.symbol("__start_BTF").is_ok_and(|start| start.0 == data) {
            return Ok(self.btf().clone());
        }
        let key = (at.0, self.read("btf.id", at)?, data, length);
        if let Some(types) = self.read_types.get(&key) {
            return Ok(types);
        }
        let mut bytes = vec![0; length as usize];
        self.memory().read(VirtAddr(data), &mut bytes).map_err(KernelError::read("a BTF"))?;
        let types = Arc::new(match base {
            0 => Btf::parse(bytes)?,
            // Nothing but the kernel's own is ever a base.
            _ => Btf::parse_split(bytes, self.btf().clone())?,
        });
        // One without an ID is not published yet. One that got another meanwhile was freed while it was read.
        if key.1 != 0 && self.read("btf.id", at)? == key.1 {
            self.read_types.keep(key, &types);
        }
        Ok(types)
    }

    /// The type information of loaded modules, by name: `struct btf` addresses, for [`Kernel::bpf_types`].
    ///
    /// # Errors
    /// [`KernelError`], [`crate::ErrorKind::Absent`] without `CONFIG_DEBUG_INFO_BTF_MODULES`.
    pub fn module_type_infos(&self) -> Result<Vec<(String, VirtAddr)>, KernelError> {
        let (head, node) = (self.symbol("btf_modules")?, self.offset("btf_module.list")?);
        let (btf, name) = (self.plan("btf_module.btf")?, self.plan("btf.name")?);
        let mut found = Vec::new();
        for module in self.walker().list("the list of modules' BTF", head, node, MAX_MODULES)? {
            let at = VirtAddr(btf.read(self.memory(), module)?);
            found.push((name.read_text(self.memory(), at)?, at));
        }
        Ok(found)
    }

    /// The types of a loaded module, on top of the kernel's.
    ///
    /// # Errors
    /// As [`Kernel::module_type_infos`] and [`Kernel::bpf_types`]; [`KernelError::NoSymbol`] when no module of that
    /// name is loaded.
    pub fn module_types(&self, name: &str) -> Result<Arc<Btf>, KernelError> {
        let found = self.module_type_infos()?.into_iter().find(|(found, _)| found == name);
        match found {
            Some((_, at)) => self.bpf_types(at),
            None => Err(KernelError::NoSymbol { name: format!("{name} (types of a loaded module)") }),
        }
    }
}
