//! Modules and the symbols in them: `struct module` and `mod_kallsyms` (include/linux/module.h,
//! kernel/module/internal.h).

use ktstr_introspect_memory::VirtAddr;

use crate::{ErrorKind, Kernel, KernelError};

const MAX_MODULES: usize = 1 << 16;
/// A large module has ten thousand symbols.
const MAX_SYMBOLS: u64 = 1 << 20;
/// `KSYM_NAME_LEN` is 512.
const NAME_LIMIT: usize = 512;
/// `MODULE_STATE_UNFORMED`: it has a name, and nothing else yet.
const UNFORMED: u64 = 3;
/// Bytes of an `Elf64_Sym`: name, info, other, section, value, size.
const SYMBOL: usize = 24;

impl Kernel {
    /// The loaded modules, `struct module` addresses; the newest first.
    ///
    /// # Errors
    /// [`KernelError`], [`ErrorKind::Absent`] without `CONFIG_MODULES`.
    pub fn modules(&self) -> Result<Vec<VirtAddr>, KernelError> {
        let (head, node) = (self.symbol("modules")?, self.offset("module.list")?);
        self.walker().list("the module list", head, node, MAX_MODULES)
    }

    /// The function of a module that `address` is in, with a distance, and the module's name behind it in brackets, as the
    /// kernel's own traces have them; the module alone where it names no function there. Nothing outside of modules.
    ///
    /// # Errors
    /// [`KernelError`] when modules can't be walked. A kernel without any has none there.
    pub fn module_symbol(&self, address: VirtAddr) -> Result<Option<String>, KernelError> {
        let modules = match self.modules() {
            Err(error) if error.kind() == ErrorKind::Absent => return Ok(None),
            other => other?,
        };
        for module in modules {
            if self.read("module.state", module)? == UNFORMED || !self.is_code_of(module, address)? {
                continue;
            }
            let name = self.plan("module.name")?.read_text(self.memory(), module)?;
            return Ok(Some(match self.symbol_in(module, address)? {
                Some((function, 0)) => format!("{function} [{name}]"),
                Some((function, distance)) => format!("{function}+{distance:#x} [{name}]"),
                None => format!("[{name}]"),
            }));
        }
        Ok(None)
    }

    /// `mem[MOD_TEXT]` and `mem[MOD_INIT_TEXT]`; `core_layout` and `init_layout` until ac3b43283923 ("module: replace
    /// module_layout with module_memory", 6.4).
    fn is_code_of(&self, module: VirtAddr, address: VirtAddr) -> Result<bool, KernelError> {
        let parts = match self.plan("module.mem") {
            Ok(_) => {
                let of = |name: &str, fallback| {
                    self.btf().enumerator_value("mod_mem_type", name).unwrap_or(fallback)
                };
                [of("MOD_TEXT", 0), of("MOD_INIT_TEXT", 4)].map(|part| format!("module.mem[{part}]"))
            }
            Err(error) if error.kind() == ErrorKind::Absent => {
                ["module.core_layout", "module.init_layout"].map(str::to_owned)
            }
            Err(other) => return Err(other),
        };
        for part in parts {
            let start = self.read(&format!("{part}.base"), module)?;
            let size = self.read(&format!("{part}.size"), module)?;
            if address.0.wrapping_sub(start) < size {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The highest symbol of a module at or below `address`, and the distance from it.
    fn symbol_in(&self, module: VirtAddr, address: VirtAddr) -> Result<Option<(String, u64)>, KernelError> {
        let all = VirtAddr(self.read("module.kallsyms", module)?);
        if all.is_null() {
            return Ok(None);
        }
        let count = self.read("mod_kallsyms.num_symtab", all)?;
        if count > MAX_SYMBOLS {
            let (what, expected) = ("the number of a module's symbols", "at most 2^20");
            return Err(KernelError::Implausible { what, at: all, seen: count, expected });
        }
        let table = VirtAddr(self.read("mod_kallsyms.symtab", all)?);
        let names = VirtAddr(self.read("mod_kallsyms.strtab", all)?);
        let mut bytes = vec![0; count as usize * SYMBOL];
        self.memory().read(table, &mut bytes).map_err(KernelError::read("a module's symbols"))?;
        let symbols = bytes.as_chunks::<SYMBOL>().0.iter().map(Symbol::of);
        // Without a section it is defined elsewhere.
        let mut below: Vec<Symbol> =
            symbols.filter(|symbol| symbol.section != 0 && symbol.value <= address.0).collect();
        below.sort_by_key(|symbol| std::cmp::Reverse(symbol.value));
        let closest = below.first().map_or(0, |symbol| symbol.value);
        for symbol in below.into_iter().take_while(|symbol| symbol.value == closest) {
            let at = names.wrapping_add(symbol.name.into());
            let name =
                self.memory().read_string(at, NAME_LIMIT).map_err(KernelError::read("a module's names"))?;
            // Neither nameless ones nor the marks of an assembler.
            if !name.is_empty() && !name.starts_with('$') && !name.starts_with(".L") {
                return Ok(Some((name, address.0 - symbol.value)));
            }
        }
        Ok(None)
    }
}

struct Symbol {
    name: u32,
    section: u16,
    value: u64,
}

impl Symbol {
    fn of(raw: &[u8; SYMBOL]) -> Self {
        let [a, b, c, d, _, _, e, f, rest @ ..] = *raw;
        let value = rest.first_chunk().map_or(0, |value| u64::from_le_bytes(*value));
        Self { name: u32::from_le_bytes([a, b, c, d]), section: u16::from_le_bytes([e, f]), value }
    }
}
