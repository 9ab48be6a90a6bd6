//! Getting, making, listing and throwing away saved machines.

use crate::metadata::{FILE, KernelMark, Metadata};
use crate::{TemplateError, files, lock, serial, stamp};
use ktstr_machine::{Digest, Template};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SCRATCH: &str = ".tmp-";
const CACHEDIR_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
# Saved machines of ktstr; everything here can be made again.\n";
/// A maker that failed is not worth another try for so long.
const FAILURE_COUNTS: Duration = Duration::from_secs(600);

/// Saved machines in a directory.
#[derive(Debug, Clone)]
pub struct TemplateStore {
    root: PathBuf,
    max_bytes: u64,
}

/// A machine that somebody wants saved.
#[derive(Debug, Clone)]
pub struct Need<'a> {
    /// All that goes into it, as text: machines are the same if and only if this is.
    pub identity: &'a str,
    /// A few words for a list.
    pub label: &'a str,
    /// The kernel it boots.
    pub kernel: &'a KernelMark,
    /// How long to wait for another process that makes it.
    pub patience: Duration,
}

/// What a user should know of meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Another process makes it; we wait.
    Waiting,
    /// It is not there and made now.
    Making,
    /// What was there was thrown away, and why.
    Broken(String),
}

/// Why a machine could not be made.
#[derive(Debug)]
pub struct Unmade {
    error: Box<dyn std::error::Error + Send + Sync>,
    by_chance: bool,
}

impl Unmade {
    /// For a reason that the next one would meet as well: it is not tried again for some
    /// minutes.
    pub fn for_good(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { error: error.into(), by_chance: false }
    }

    /// For a reason that says nothing of the next try, such as a kill.
    pub fn by_chance(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { error: error.into(), by_chance: true }
    }
}

/// Fills a directory with a saved machine.
pub type Make<'a> = &'a mut dyn FnMut(&Path) -> Result<(), Unmade>;
/// Hears what a user should know.
pub type Tell<'a> = &'a mut dyn FnMut(Notice);

/// A saved machine that stays where it is while this lives.
#[derive(Debug)]
pub struct Lease {
    /// Key and place.
    pub template: Template,
    _shared: File,
}

/// A line of a list.
#[derive(Debug)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Bytes on disk.
    pub bytes: u64,
    /// When it was last used.
    pub used: SystemTime,
    /// Its record, or what is wrong with it.
    pub state: Result<Metadata, String>,
}

impl TemplateStore {
    /// The store in `root`, which is made when something is first saved; the oldest go
    /// when there is more than `max_bytes`.
    pub fn new(root: impl Into<PathBuf>, max_bytes: u64) -> Self {
        Self { root: root.into(), max_bytes }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The key of a machine.
    pub fn key(identity: &str) -> String {
        let mut digest = Digest::default();
        digest.push(identity.as_bytes());
        format!("{:016x}{:08x}", digest.value(), crc32fast::hash(identity.as_bytes()))
    }

    /// The saved machine; if there is none that can be used, `make` fills a directory
    /// with one.
    ///
    /// # Errors
    /// When `make` fails (or failed within the last minutes), the disk is full, or
    /// another process takes too long. Nothing is left of the attempt.
    pub fn get(&self, need: &Need<'_>, make: Make<'_>, notice: Tell<'_>) -> Result<Lease, TemplateError> {
        let key = Self::key(need.identity);
        let path = self.lock_path(&key);
        let file = lock::open(&path)?;
        let mut waited = false;
        let attempt = || {
            if lock::try_shared(&file, &path)? {
                if self.look(&key, need.identity) == Look::Usable {
                    return Ok(Some(()));
                }
                lock::release(&file, &path)?;
            }
            if lock::try_exclusive(&file, &path)? {
                // It may have been made since we looked.
                if self.look(&key, need.identity) != Look::Usable {
                    self.make(&key, need, make, notice)?;
                }
                lock::share(&file, &path)?;
                return Ok(Some(()));
            }
            if !std::mem::replace(&mut waited, true) {
                notice(Notice::Waiting);
            }
            Ok(None)
        };
        match lock::wait(need.patience, attempt)? {
            Some(()) => {
                let dir = self.dir(&key);
                // Only the order of eviction hangs on it.
                let _ = File::open(dir.join(FILE)).and_then(|f| f.set_modified(SystemTime::now()));
                Ok(Lease { template: Template { key, dir }, _shared: file })
            }
            None => Err(TemplateError::Busy { key, seconds: need.patience.as_secs() }),
        }
    }

    /// The sum of a file that goes into machines, such as a kernel image: what `sum_up` says,
    /// or what it said before if the file is as it was then.
    ///
    /// # Errors
    /// Those of `sum_up`.
    pub fn remembered_sum<E>(
        &self,
        path: &Path,
        sum_up: impl FnOnce() -> Result<String, E>,
    ) -> Result<String, E> {
        let key = Self::key(&path.to_string_lossy());
        let note = self.root.join(".sums").join(format!("{key}.json"));
        stamp::remembered(&note, path, SystemTime::now(), sum_up)
    }

    /// Throws a machine away that did not come up, unless others use it now.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn discard(&self, lease: Lease) -> Result<(), TemplateError> {
        let key = lease.template.key.clone();
        drop(lease);
        self.discard_unused(&key).map(drop)
    }

    /// All machines, those last used first.
    ///
    /// # Errors
    /// When the directory can't be read.
    pub fn list(&self) -> Result<Vec<Listed>, TemplateError> {
        let mut all = Vec::new();
        for name in self.names()? {
            if name.starts_with('.') {
                continue;
            }
            let dir = self.root.join(&name);
            let Ok(found) = fs::metadata(&dir) else { continue };
            if !found.is_dir() {
                continue;
            }
            let used = fs::metadata(dir.join(FILE)).or(Ok(found)).and_then(|m| m.modified());
            all.push(Listed {
                bytes: files::bytes_on_disk(&dir),
                used: used.unwrap_or(UNIX_EPOCH),
                state: Metadata::read(&dir),
                key: name,
            });
        }
        all.sort_by(|a, b| b.used.cmp(&a.used).then_with(|| a.key.cmp(&b.key)));
        Ok(all)
    }

    /// Throws away the machines that `which` picks, and what dead processes left; those
    /// in use stay. Returns the keys.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn clean(&self, which: &dyn Fn(&Listed) -> bool) -> Result<Vec<String>, TemplateError> {
        let mut removed = Vec::new();
        for listed in self.list()?.iter().filter(|l| which(l)) {
            if self.discard_unused(&listed.key)? {
                removed.push(listed.key.clone());
            }
        }
        self.sweep()?;
        Ok(removed)
    }

    fn dir(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    fn lock_path(&self, key: &str) -> PathBuf {
        self.root.join(".locks").join(format!("{key}.lock"))
    }

    fn failure_path(&self, key: &str) -> PathBuf {
        self.root.join(".locks").join(format!("{key}.failed"))
    }

    fn scratch(&self, key: &str) -> PathBuf {
        self.root.join(format!("{SCRATCH}{key}-{}-{}", std::process::id(), serial()))
    }

    fn look(&self, key: &str, identity: &str) -> Look {
        let dir = self.dir(key);
        if !dir.exists() {
            return Look::Missing;
        }
        let checked = Metadata::read(&dir).and_then(|mut found| {
            let other = found.check(&dir, identity)?;
            Ok((found, other))
        });
        match checked {
            Ok((found, other)) => {
                if other {
                    // Else the next one sums up its files once more.
                    let _ = found.write(&dir);
                }
                Look::Usable
            }
            Err(why) => Look::Broken(why),
        }
    }

    /// Makes a machine; the caller holds its lock exclusively.
    fn make(
        &self,
        key: &str,
        need: &Need<'_>,
        make: Make<'_>,
        notice: Tell<'_>,
    ) -> Result<(), TemplateError> {
        match self.look(key, need.identity) {
            Look::Broken(why) => notice(Notice::Broken(why)),
            _ => {
                if let Some(error) = self.failed_before(key) {
                    return Err(error);
                }
                notice(Notice::Making);
            }
        }
        self.remove(key)?;
        self.sweep_key(key)?;
        let tag = self.root.join("CACHEDIR.TAG");
        if !tag.exists() {
            fs::write(&tag, CACHEDIR_TAG).map_err(TemplateError::io("writing", &tag))?;
        }
        let staged = self.scratch(key);
        fs::create_dir(&staged).map_err(TemplateError::io("making", &staged))?;
        let made = make(&staged);
        let by_chance = made.as_ref().is_err_and(|unmade| unmade.by_chance);
        let made = made.map_err(|unmade| TemplateError::Make(unmade.error));
        if let Err(error) = made.and_then(|()| self.publish(&staged, key, need)) {
            // What can't be deleted now is swept by the next maker.
            let _ = fs::remove_dir_all(&staged);
            if !by_chance {
                // Without this note the next test tries again, which costs it a boot.
                let _ = fs::write(self.failure_path(key), error.to_string());
            }
            return Err(error);
        }
        let _ = fs::remove_file(self.failure_path(key));
        self.evict(key, need.kernel)
    }

    fn failed_before(&self, key: &str) -> Option<TemplateError> {
        let path = self.failure_path(key);
        let age = fs::metadata(&path).and_then(|m| m.modified()).ok()?.elapsed().ok()?;
        let why = fs::read_to_string(&path).ok()?;
        (age < FAILURE_COUNTS).then(|| TemplateError::FailedBefore { seconds: age.as_secs(), why })
    }

    fn publish(&self, staged: &Path, key: &str, need: &Need<'_>) -> Result<(), TemplateError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map(|d| d.as_secs()).unwrap_or_default();
        Metadata::describe(staged, need.identity, need.label, need.kernel, now)?.write(staged)?;
        let target = self.dir(key);
        fs::rename(staged, &target).map_err(TemplateError::io("putting into the cache", &target))
    }

    /// Makes room: machines of a kernel that was replaced, then the oldest.
    fn evict(&self, keep: &str, kernel: &KernelMark) -> Result<(), TemplateError> {
        let all = self.list()?;
        let mut total: u64 = all.iter().map(|l| l.bytes).sum();
        for listed in all.iter().rev().filter(|l| l.key != keep) {
            let replaced =
                listed.state.as_ref().is_ok_and(|m| m.kernel.path == kernel.path && m.kernel != *kernel);
            if (replaced || total > self.max_bytes) && self.discard_unused(&listed.key)? {
                total -= listed.bytes;
            }
        }
        Ok(())
    }

    /// False if it is in use.
    fn discard_unused(&self, key: &str) -> Result<bool, TemplateError> {
        let path = self.lock_path(key);
        let file = lock::open(&path)?;
        if !lock::try_exclusive(&file, &path)? {
            return Ok(false);
        }
        self.remove(key)?;
        self.sweep_key(key)?;
        Ok(true)
    }

    /// Takes a machine out by a rename, then deletes it; its lock is held.
    fn remove(&self, key: &str) -> Result<(), TemplateError> {
        let (dir, trash) = (self.dir(key), self.scratch(key));
        match fs::rename(&dir, &trash) {
            Ok(()) => fs::remove_dir_all(&trash).map_err(TemplateError::io("deleting", &trash)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(TemplateError::io("removing", &dir)(error)),
        }
    }

    /// Deletes scratch of this key: whoever holds its lock is the only one who has any.
    fn sweep_key(&self, key: &str) -> Result<(), TemplateError> {
        let prefix = format!("{SCRATCH}{key}-");
        for name in self.names()?.iter().filter(|n| n.starts_with(&prefix)) {
            let dir = self.root.join(name);
            fs::remove_dir_all(&dir).map_err(TemplateError::io("deleting", &dir))?;
        }
        Ok(())
    }

    fn sweep(&self) -> Result<(), TemplateError> {
        for name in self.names()? {
            let key = name.strip_prefix(SCRATCH).and_then(|rest| rest.split('-').next());
            if let Some(key) = key.filter(|k| !k.is_empty()) {
                let path = self.lock_path(key);
                let file = lock::open(&path)?;
                if lock::try_exclusive(&file, &path)? {
                    self.sweep_key(key)?;
                }
            }
        }
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, TemplateError> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(TemplateError::io("reading", &self.root)(error)),
        };
        Ok(entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect())
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Look {
    Usable,
    Missing,
    Broken(String),
}

#[cfg(test)]
mod tests;
