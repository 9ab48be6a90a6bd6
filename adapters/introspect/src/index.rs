//! Kernels opened through an index of their symbols and types, which the next machine with the same kernel opens in
//! a fraction of the time. Whatever is wrong with an index costs that time, never a result.

use ktstr_introspect_kernel::{IndexFolder, IndexUse, Kernel, KernelError};
use ktstr_introspect_memory::PhysicalMemory;
use ktstr_introspect_symbols::Vmlinux;
use ktstr_introspect_types::{Btf, VariableTypes};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Indexes that are kept: some 6 to 16 MiB each, so 64 to 256 MiB in all; and as many files of variables, of 3 MiB each.
const KEPT: usize = 16;
/// A file that is still being written is younger than this.
const STALE: Duration = Duration::from_secs(600);

/// Where indexes of kernels are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexCache {
    folder: PathBuf,
    image: Option<String>,
}

/// A kernel and how it was opened.
pub(crate) struct ByIndex {
    pub(crate) kernel: Kernel,
    /// What came of the index, in words.
    pub(crate) how: String,
}

impl IndexCache {
    /// Indexes in `folder`, which is made when first written to.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), image: None }
    }

    /// Names an index of a kernel without a vmlinux, whose build id isn't known before it is found: after what its
    /// image is known by. That the kernel in memory is the index's is checked all the same.
    #[must_use]
    pub fn of_image(self, name: &str) -> Self {
        Self { image: Some(format!("image-{name}")), ..self }
    }

    /// Opens the kernel in `memory`, by `vmlinux` if there is one.
    ///
    /// # Errors
    /// [`KernelError`] when the kernel can't be opened with an index or without.
    pub fn open(
        &self,
        memory: Arc<dyn PhysicalMemory>,
        vmlinux: Option<&Vmlinux>,
    ) -> Result<Kernel, KernelError> {
        self.try_open(memory, vmlinux).map(|opened| opened.kernel)
    }

    pub(crate) fn try_open(
        &self,
        memory: Arc<dyn PhysicalMemory>,
        vmlinux: Option<&Vmlinux>,
    ) -> Result<ByIndex, KernelError> {
        let key = match vmlinux {
            Some(file) => file.build_id(),
            None => self.image.clone(),
        };
        let Some(key) = key else {
            let kernel = Kernel::open(memory, vmlinux)?;
            return Ok(ByIndex { kernel, how: "without an index, for want of a build id".to_string() });
        };
        let folder = IndexFolder::new(&self.folder);
        let (kernel, used) = folder.open_keyed(memory, vmlinux, &key)?;
        let how = match used {
            IndexUse::Used => {
                if let Ok(path) = folder.path(&key) {
                    touch(&path);
                }
                "from its index".to_string()
            }
            IndexUse::Written(why) => {
                prune(&self.folder, KEPT);
                format!("and indexed ({why})")
            }
            IndexUse::NotWritten(why) => format!("without an index ({why})"),
        };
        Ok(ByIndex { kernel, how })
    }
}

impl IndexCache {
    /// The types of variables kept for the kernel with that build id; nothing where they can't be used, whatever the
    /// reason: then they are found anew.
    pub(crate) fn variables(&self, build_id: &str, base: &Arc<Btf>) -> Option<VariableTypes> {
        let folder = IndexFolder::new(&self.folder);
        let found = folder.variables(build_id, base).ok()?;
        if let Ok(path) = folder.variables_path(build_id) {
            touch(&path);
        }
        Some(found)
    }

    /// Keeps them. A folder that can't be written costs the next one the time.
    pub(crate) fn keep_variables(&self, build_id: &str, variables: &VariableTypes) {
        if IndexFolder::new(&self.folder).keep_variables(build_id, variables).is_ok() {
            prune(&self.folder, KEPT);
        }
    }
}

/// Marks an index as used. In a folder that can't be written nothing is pruned either.
fn touch(path: &Path) {
    if let Ok(file) = File::options().append(true).open(path) {
        let _ = file.set_modified(SystemTime::now());
    }
}

/// Removes all but the `kept` files of each kind last used, and what writers that died left behind. What can't be removed
/// now is tried again by whoever writes next.
fn prune(folder: &Path, kept: usize) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let (mut indexes, mut variables) = (Vec::new(), Vec::new());
    for path in entries.flatten().map(|entry| entry.path()) {
        let Ok(used) = fs::metadata(&path).and_then(|found| found.modified()) else { continue };
        match path.extension().and_then(|end| end.to_str()) {
            Some("ktx") => indexes.push((used, path)),
            Some("ktv") => variables.push((used, path)),
            Some("tmp") if used.elapsed().is_ok_and(|age| age > STALE) => drop(fs::remove_file(path)),
            _ => {}
        }
    }
    for mut files in [indexes, variables] {
        files.sort();
        let surplus = files.len().saturating_sub(kept);
        for (_, path) in &files[..surplus] {
            // A process that has it open keeps what it has mapped.
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_used_are_kept_and_other_files_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let old = SystemTime::now() - 10 * STALE;
        let names =
            ["a.ktx", "b.ktx", "c.ktx", "d.ktx", "a.ktv", "b.ktv", "c.ktv", "dead.ktx.1.0.tmp", "notes.txt"];
        for (name, age) in names.iter().zip(0u32..) {
            let file = File::create(dir.path().join(name)).expect("a file");
            file.set_modified(old + Duration::from_secs(age.into())).expect("its time");
        }
        File::create(dir.path().join("fresh.ktx.1.1.tmp")).expect("a file");
        touch(&dir.path().join("a.ktx"));
        prune(dir.path(), 2);
        let mut left: Vec<String> = fs::read_dir(dir.path())
            .expect("the directory")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        left.sort();
        assert_eq!(left, ["a.ktx", "b.ktv", "c.ktv", "d.ktx", "fresh.ktx.1.1.tmp", "notes.txt"]);
        prune(&dir.path().join("none"), 2);
    }
}
