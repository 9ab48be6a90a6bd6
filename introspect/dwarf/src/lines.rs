//! Source lines of addresses.

use ktstr_introspect_memory::VirtAddr;

use crate::sections::{Dwarf, Slice};
use crate::{DebugSections, DwarfError};

/// The first files to be linked, and so the first units.
const EVERY_KERNEL_HAS: [&str; 2] = ["arch/x86/kernel/head_64.S", "init/main.c"];
const UNITS_LOOKED_AT: usize = 64;

/// How many functions may be inlined into one another at one address; gcc stays far below.
const MAX_FRAMES: usize = 256;

/// Where an instruction came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFrame {
    /// The function, inlined or not.
    pub function: Option<String>,
    /// The file: its path below the kernel's tree where it lies there, such as
    /// `kernel/sched/core.c`; else as the compiler was given it.
    pub file: Option<String>,
    /// The line, from 1.
    pub line: Option<u32>,
    /// The column, from 1.
    pub column: Option<u32>,
}

/// The line information of one vmlinux: which line an instruction came from, with the functions that were inlined there.
pub struct SourceLines<'a> {
    context: addr2line::Context<Slice<'a>>,
    /// Where the kernel's tree was, with a slash at its end; empty where that isn't told.
    tree: String,
}

impl std::fmt::Debug for SourceLines<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceLines").finish_non_exhaustive()
    }
}

impl<'a> SourceLines<'a> {
    /// Opens the lines of a file. This reads the table of units; each unit's lines are read when an address in it is
    /// first asked for.
    ///
    /// # Errors
    /// [`DwarfError::Dwarf`] when that table is broken.
    pub fn open(sections: &'a DebugSections<'_>) -> Result<Self, DwarfError> {
        let dwarf = sections.dwarf();
        let tree = tree(&dwarf);
        let context = addr2line::Context::from_dwarf(dwarf)
            .map_err(|reason| DwarfError::Dwarf { address: None, reason })?;
        Ok(Self { context, tree })
    }

    /// A path below the kernel's tree.
    fn in_tree<'p>(&self, path: &'p str) -> &'p str {
        path.strip_prefix(self.tree.as_str()).unwrap_or(path)
    }

    /// Where the instruction at *link* address `at` came from: the innermost inlined function first, the one that it
    /// all went into last. Empty when no unit covers the address. For the caller's line in a back-trace, ask for the
    /// return address minus one.
    ///
    /// # Errors
    /// [`DwarfError::Dwarf`] when the unit's information is broken.
    pub fn frames(&self, at: VirtAddr) -> Result<Vec<SourceFrame>, DwarfError> {
        // One before the caller of nothing. The reader below would add one to it.
        if at.0 == u64::MAX {
            return Ok(Vec::new());
        }
        let failed = |reason| DwarfError::Dwarf { address: Some(at), reason };
        let mut frames = self.context.find_frames(at.0).skip_all_loads().map_err(failed)?;
        let mut found = Vec::new();
        while let Some(frame) = frames.next().map_err(failed)? {
            let location = frame.location.as_ref();
            found.push(SourceFrame {
                function: frame
                    .function
                    .as_ref()
                    .and_then(|function| function.raw_name().ok())
                    .map(std::borrow::Cow::into_owned),
                file: location.and_then(|location| location.file).map(|file| self.in_tree(file).to_owned()),
                line: location.and_then(|location| location.line),
                column: location.and_then(|location| location.column),
            });
            if found.len() >= MAX_FRAMES {
                break;
            }
        }
        Ok(found)
    }
}

/// The directory that holds the kernel's tree. The compiler was run there, or in a folder of its own (`make O=`) and then
/// given whole paths. Damage costs only the short paths.
fn tree(dwarf: &Dwarf<'_>) -> String {
    let mut units = dwarf.units();
    let mut compiled_in = String::new();
    for _ in 0..UNITS_LOOKED_AT {
        let Ok(Some(header)) = units.next() else { break };
        let Ok(unit) = dwarf.unit(header) else { break };
        let text =
            |part: Option<Slice<'_>>| part.map(|part| String::from_utf8_lossy(part.slice()).into_owned());
        let (name, compiled) = (text(unit.name), text(unit.comp_dir));
        if compiled_in.is_empty() {
            compiled_in = compiled.unwrap_or_default();
        }
        if let Some(root) = name.as_deref().and_then(tree_of) {
            return root.to_owned();
        }
    }
    match compiled_in.trim_end_matches('/') {
        path if path.starts_with('/') => format!("{path}/"),
        _ => String::new(),
    }
}

/// The tree, with a slash at its end, by the whole path of a file that every kernel has.
fn tree_of(path: &str) -> Option<&str> {
    let root = EVERY_KERNEL_HAS.iter().find_map(|file| path.strip_suffix(file))?;
    (root.starts_with('/') && root.ends_with('/')).then_some(root)
}

#[cfg(test)]
mod tests;
