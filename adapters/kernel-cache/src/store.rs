//! The store: looking up, listing, writing and removing entries.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ktstr_kernel::ports::{Corrupt, KernelStore, Lease, Listed, NewEntry, Scratch, StoreError};
use ktstr_kernel::{
    CacheEntry, CacheKey, CleanPolicy, METADATA_SCHEMA, Metadata, Progress, Stage, crc_hex, select_for_clean,
};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::unistd::{AccessFlags, access, syncfs};

use crate::CacheError;
use crate::entry::{self, CONFIG_FILE, METADATA_FILE, MODULES_DIR, VMLINUX_FILE};
use crate::lock::{self, Lock, Mode};
use crate::root::{CacheEnv, cache_root};
use crate::scratch::{self, ScratchDir};

/// How long a reader waits for a writer.
const READER_WAIT: Duration = Duration::from_secs(10);
/// How long a writer waits for readers and writers.
const WRITER_WAIT: Duration = Duration::from_secs(5 * 60);
/// How long to wait for somebody else's build.
const BUILD_WAIT: Duration = Duration::from_secs(2 * 60 * 60);

/// Marks a directory as a cache for backup programs
/// (<https://bford.info/cachedir/>).
const CACHEDIR_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
# Kernels built by ktstr; everything here can be made again.\n";

/// Kernels on disk.
#[derive(Debug, Clone)]
pub struct KernelCache {
    root: PathBuf,
}

impl KernelCache {
    /// The cache in `root`, which is made when something is first stored.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The cache that this process's environment names.
    ///
    /// # Errors
    /// If no variable says where it is.
    pub fn from_env() -> Result<Self, CacheError> {
        cache_root(&CacheEnv::of_process()).map(Self::new)
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where build logs are kept.
    #[must_use]
    pub fn log_dir(&self) -> PathBuf {
        self.root.join(".logs")
    }

    /// Removes what `policy` selects and what dead processes left behind.
    /// Returns the keys of the removed entries.
    ///
    /// # Errors
    /// At the first entry that can't be removed.
    pub fn clean(&self, policy: CleanPolicy) -> Result<Vec<CacheKey>, StoreError> {
        scratch::sweep(&self.root);
        let mut removed = Vec::new();
        for key in select_for_clean(&self.list()?, policy) {
            if self.remove(&key)? {
                removed.push(key);
            }
        }
        Ok(removed)
    }

    fn dir(&self, key: &CacheKey) -> PathBuf {
        self.root.join(key.as_str())
    }

    fn prepare_root(&self) -> Result<(), CacheError> {
        fs::create_dir_all(self.root.join(".locks"))
            .map_err(CacheError::io("making the kernel cache", &self.root))?;
        let tag = self.root.join("CACHEDIR.TAG");
        if !tag.exists() {
            fs::write(&tag, CACHEDIR_TAG).map_err(CacheError::io("writing", tag))?;
        }
        Ok(())
    }

    fn lock_path(&self, name: &CacheKey) -> PathBuf {
        self.root.join(".locks").join(format!("{name}.lock"))
    }

    fn lock_entry(&self, key: &CacheKey, mode: Mode) -> Result<Lock, StoreError> {
        let limit = match mode {
            Mode::Shared => READER_WAIT,
            Mode::Exclusive => WRITER_WAIT,
        };
        let what = format!("the cached kernel {key}");
        lock::acquire(&self.lock_path(key), mode, limit, &what, &mut |_| {})
    }

    /// Reads an entry while no writer is at it; `None` if it isn't there. A
    /// cache that we can't write to has no lock to take, and no need of one:
    /// nobody else replaces entries in it while we look.
    fn read(&self, key: &CacheKey) -> Result<Option<Result<CacheEntry, Corrupt>>, StoreError> {
        let dir = self.dir(key);
        if !dir.is_dir() {
            return Ok(None);
        }
        let _lock = if self.lockable() { Some(self.lock_entry(key, Mode::Shared)?) } else { None };
        let state = entry::read(&dir, key);
        Ok((state.is_ok() || dir.is_dir()).then_some(state))
    }

    fn lockable(&self) -> bool {
        access(&self.root.join(".locks"), AccessFlags::W_OK).is_ok()
    }

    /// Copies the files into `staged` and writes the record.
    fn fill(&self, staged: &Path, files: &NewEntry) -> Result<(), CacheError> {
        if !entry::is_plain_name(&files.image_name) {
            return Err(CacheError::BadImageName(files.image_name.clone()));
        }
        let image_bytes = copy(&files.image, &staged.join(&files.image_name))?;
        if let Some(vmlinux) = &files.vmlinux {
            copy(vmlinux, &staged.join(VMLINUX_FILE))?;
        }
        if let Some(modules) = &files.modules {
            copy_tree(modules, &staged.join(MODULES_DIR))?;
        }
        let mut config_hash = None;
        if let Some(config) = &files.config {
            let copied = staged.join(CONFIG_FILE);
            copy(config, &copied)?;
            let text = fs::read(&copied).map_err(CacheError::io("reading", copied))?;
            config_hash = Some(crc_hex(&text));
        }
        let metadata = Metadata {
            schema: METADATA_SCHEMA,
            version: files.version.clone(),
            source: files.source.clone(),
            arch: files.arch,
            image_name: files.image_name.clone(),
            image_bytes,
            config_hash,
            built_at: now(),
            ktstr_kconfig_hash: files.ktstr_kconfig_hash.clone(),
            extra_kconfig_hash: files.extra_kconfig_hash.clone(),
            has_vmlinux: files.vmlinux.is_some(),
            vmlinux_stripped: false,
            has_modules: files.modules.is_some(),
        };
        let path = staged.join(METADATA_FILE);
        let json = serde_json::to_vec_pretty(&metadata)?;
        fs::write(&path, json).map_err(CacheError::io("writing", path))?;
        sync(staged)
    }

    /// Puts `staged` in the place of the entry. If there was one it lies where
    /// `staged` was afterwards, or in another scratch place, to be deleted.
    fn publish(&self, staged: &ScratchDir, target: &Path) -> Result<(), CacheError> {
        let staged = staged.path();
        let put = |flags| renameat2(AT_FDCWD, staged, AT_FDCWD, target, flags);
        let done = match put(RenameFlags::RENAME_NOREPLACE) {
            Err(Errno::EEXIST) => put(RenameFlags::RENAME_EXCHANGE),
            other => other,
        };
        match done {
            Ok(()) => {}
            // Some network and overlay file systems have plain rename only.
            Err(Errno::EINVAL | Errno::ENOSYS) => self.publish_in_two_steps(staged, target)?,
            Err(error) => {
                return Err(CacheError::io("putting into the cache", target)(error.into()));
            }
        }
        sync(&self.root)
    }

    /// Killed between the steps, the cache has no such entry: a miss.
    fn publish_in_two_steps(&self, staged: &Path, target: &Path) -> Result<(), CacheError> {
        self.discard(target)?;
        fs::rename(staged, target).map_err(CacheError::io("putting into the cache", target))
    }

    /// Takes `target` out of the cache by a rename, then deletes it. `false`
    /// if it wasn't there.
    fn discard(&self, target: &Path) -> Result<bool, CacheError> {
        let trash = scratch::fresh_name(&self.root, "removed");
        match fs::rename(target, &trash) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(CacheError::io("removing", target)(error)),
        }
        match fs::remove_dir_all(&trash) {
            Ok(()) => Ok(true),
            // Another process's sweep was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(CacheError::io("deleting", trash)(error)),
        }
    }
}

impl KernelStore for KernelCache {
    fn lookup(&self, key: &CacheKey) -> Result<Option<CacheEntry>, StoreError> {
        match self.read(key)? {
            None => Ok(None),
            Some(Ok(entry)) => Ok(Some(entry)),
            Some(Err(corrupt)) => Err(StoreError::Corrupt { key: key.clone(), corrupt }),
        }
    }

    fn list(&self) -> Result<Vec<Listed>, StoreError> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
            Err(error) => {
                return Err(CacheError::io("reading the kernel cache", &self.root)(error).into());
            }
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(CacheError::io("reading the kernel cache", &self.root))?;
            let Some(key) = entry_key(&entry) else {
                continue;
            };
            if let Some(state) = self.read(&key)? {
                found.push(Listed { key, state });
            }
        }
        found.sort_by(newest_first);
        Ok(found)
    }

    fn store(&self, key: &CacheKey, files: &NewEntry) -> Result<CacheEntry, StoreError> {
        self.prepare_root()?;
        let staged = ScratchDir::create(&self.root, key.as_str())?;
        self.fill(staged.path(), files)?;
        let lock = self.lock_entry(key, Mode::Exclusive)?;
        self.publish(&staged, &self.dir(key))?;
        let state = entry::read(&self.dir(key), key);
        drop(lock);
        state.map_err(|corrupt| StoreError::Corrupt { key: key.clone(), corrupt })
    }

    fn remove(&self, key: &CacheKey) -> Result<bool, StoreError> {
        if !self.dir(key).is_dir() {
            return Ok(false);
        }
        self.prepare_root()?;
        let _lock = self.lock_entry(key, Mode::Exclusive)?;
        Ok(self.discard(&self.dir(key))?)
    }

    fn scratch(&self, label: &CacheKey) -> Result<Box<dyn Scratch>, StoreError> {
        self.prepare_root()?;
        // Here and not each time: a dead build's tree takes seconds to delete,
        // and who asks for room needs it.
        scratch::sweep(&self.root);
        Ok(Box::new(ScratchDir::create(&self.root, label.as_str())?))
    }

    fn lease(&self, name: &CacheKey, progress: &mut dyn Progress) -> Result<Box<dyn Lease>, StoreError> {
        self.prepare_root()?;
        let mut waited = false;
        let lock = lock::acquire(
            &self.lock_path(name),
            Mode::Exclusive,
            BUILD_WAIT,
            &format!("another build ({name})"),
            &mut |holder| {
                waited = true;
                progress.started(Stage::Wait, format!("{holder}, which is at {name}"), None);
            },
        )?;
        if waited {
            progress.finished(Stage::Wait);
        }
        Ok(Box::new(lock))
    }
}

impl Lease for Lock {}

/// The key of a directory that is an entry by its name. Anything else that
/// lies in the cache's root is not ours.
fn entry_key(entry: &fs::DirEntry) -> Option<CacheKey> {
    let directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
    let key = CacheKey::new(entry.file_name().to_str()?).ok()?;
    (directory && key.is_generated()).then_some(key)
}

/// By time, then by name so that the order is the same each time.
fn newest_first(a: &Listed, b: &Listed) -> std::cmp::Ordering {
    let rank = |listed: &Listed| {
        let built_at = listed.state.as_ref().ok().map(|e| e.metadata.built_at);
        (built_at, listed.key.clone())
    };
    rank(b).cmp(&rank(a))
}

/// Copies a file that everybody may read; returns its length.
fn copy(from: &Path, to: &Path) -> Result<u64, CacheError> {
    let bytes = fs::copy(from, to).map_err(CacheError::io("copying into the cache", from))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o644)).map_err(CacheError::io("writing", to))?;
    Ok(bytes)
}

/// Copies the directories and plain files below `from`. Links (a module tree's
/// `build` and `source`) point out of it and are left out.
fn copy_tree(from: &Path, to: &Path) -> Result<(), CacheError> {
    fs::create_dir(to).map_err(CacheError::io("making the directory", to))?;
    for entry in fs::read_dir(from).map_err(CacheError::io("reading", from))? {
        let entry = entry.map_err(CacheError::io("reading", from))?;
        let kind = entry.file_type().map_err(CacheError::io("reading", entry.path()))?;
        let target = to.join(entry.file_name());
        if kind.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_file() {
            copy(&entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Makes everything written so far on `dir`'s file system survive a power cut:
/// once for a thousand module files instead of once for each.
fn sync(dir: &Path) -> Result<(), CacheError> {
    File::open(dir)
        .and_then(|dir| syncfs(dir).map_err(io::Error::from))
        .map_err(CacheError::io("writing", dir))
}

/// Seconds since the Unix epoch; 0 on a clock set before it.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
