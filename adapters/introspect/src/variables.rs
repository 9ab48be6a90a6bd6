//! Types of variables that a kernel's BTF leaves out, when they are first asked for.

use crate::index::IndexCache;
use ktstr_introspect_kernel::Kernel;
use ktstr_introspect_types::VariableTypes;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Where the types of one kernel's variables come from: what was kept of an earlier time, else the debug information of
/// its vmlinux, which takes some seconds to go over.
#[derive(Debug, Default)]
pub struct Variables {
    vmlinux: Option<PathBuf>,
    index: Option<IndexCache>,
    found: OnceLock<Result<VariableTypes, String>>,
}

impl Variables {
    /// Of a kernel whose vmlinux this is; kept in `index`.
    #[must_use]
    pub fn new(vmlinux: Option<&Path>, index: Option<IndexCache>) -> Self {
        Self { vmlinux: vmlinux.map(Path::to_path_buf), index, found: OnceLock::new() }
    }

    /// The types, or why there are none and what to do about that.
    pub(crate) fn of(&self, kernel: &Kernel) -> Result<&VariableTypes, &str> {
        self.found.get_or_init(|| self.find(kernel)).as_ref().map_err(String::as_str)
    }

    fn find(&self, kernel: &Kernel) -> Result<VariableTypes, String> {
        let build_id = match kernel.build_id() {
            Ok(Some(id)) => id,
            Ok(None) => return Err("the kernel has no build id to know its vmlinux by".to_string()),
            Err(e) => return Err(format!("the kernel's build id can't be read: {e}")),
        };
        let kept = self.index.as_ref().and_then(|index| index.variables(&build_id, kernel.btf()));
        if let Some(kept) = kept {
            return Ok(kept);
        }
        let path = self.vmlinux.as_deref().ok_or(
            "a kernel's BTF has those of per-CPU variables only, and no vmlinux with debug information is given",
        )?;
        let found = read(path, &build_id, kernel)?;
        if let Some(index) = &self.index {
            index.keep_variables(&build_id, &found);
        }
        Ok(found)
    }
}

#[cfg(feature = "dwarf")]
fn read(vmlinux: &Path, build_id: &str, kernel: &Kernel) -> Result<VariableTypes, String> {
    use ktstr_introspect_dwarf::{DebugSections, variable_types};
    let file = ktstr_introspect_symbols::Vmlinux::open(vmlinux).map_err(|e| e.to_string())?;
    if file.build_id().as_deref() != Some(build_id) {
        let seen = file.build_id().unwrap_or_else(|| "none".to_string());
        return Err(format!(
            "{} has build id {seen}, and the kernel in memory {build_id}: give that one's vmlinux",
            vmlinux.display()
        ));
    }
    let sections = DebugSections::read(file.bytes());
    let found = sections.and_then(|sections| variable_types(&sections, kernel.btf()));
    found.map_err(|e| format!("{}: {e}", vmlinux.display()))
}

#[cfg(not(feature = "dwarf"))]
fn read(vmlinux: &Path, _: &str, _: &Kernel) -> Result<VariableTypes, String> {
    Err(format!("{} can't be asked: this program was built without a reader of DWARF", vmlinux.display()))
}
