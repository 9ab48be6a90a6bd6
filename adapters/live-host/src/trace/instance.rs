//! A trace instance: a directory below `instances` of tracefs, which the kernel fills.

use super::{TraceError, read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const PREFIX: &str = "ktstr-";

/// Of several in one process.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Where the next instance of this process is to be.
pub(super) fn place(tracefs: &Path) -> PathBuf {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    tracefs.join("instances").join(format!("{}{number}", name_of(&Owner::own())))
}

/// A trace instance of this process. It is removed when this goes.
#[derive(Debug)]
pub(super) struct Instance {
    path: PathBuf,
    removed: bool,
}

impl Instance {
    /// At a [`place`].
    pub(super) fn create(path: PathBuf) -> Result<Self, TraceError> {
        match std::fs::create_dir(&path) {
            Ok(()) => Ok(Self { path, removed: false }),
            Err(source) => {
                Err(TraceError::File { doing: "making a trace instance, which takes root", path, source })
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn read(&self, name: &str) -> Result<String, TraceError> {
        read(&self.path, name)
    }

    pub(super) fn write(&self, name: &str, text: &str) -> Result<(), TraceError> {
        let path = self.path.join(name);
        // Never made: a file that isn't there is one that the kernel lacks.
        let opened = std::fs::OpenOptions::new().write(true).open(&path);
        let written = opened.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()));
        written.map_err(|source| TraceError::File { doing: "setting up a trace instance", path, source })
    }

    /// The CPUs that it has rings of.
    pub(super) fn cpus(&self) -> Result<Vec<u32>, TraceError> {
        let path = self.path.join("per_cpu");
        let entries = std::fs::read_dir(&path);
        let entries = entries.map_err(|source| TraceError::File { doing: "listing CPUs", path, source })?;
        let number = |name: std::ffi::OsString| name.to_str()?.strip_prefix("cpu")?.parse().ok();
        let mut cpus: Vec<u32> = entries.filter_map(|entry| number(entry.ok()?.file_name())).collect();
        cpus.sort_unstable();
        Ok(cpus)
    }

    pub(super) fn remove(mut self) -> Result<(), TraceError> {
        self.removed = true;
        let path = self.path.clone();
        std::fs::remove_dir(&path).map_err(|source| TraceError::File {
            doing: "removing a trace instance",
            path,
            source,
        })
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if !self.removed {
            // Whoever records next tries again.
            let _ = std::fs::remove_dir(&self.path);
        }
    }
}

/// A process, told from others that had or will have its number.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owner {
    /// The inode of its pid namespace: numbers of another say nothing here.
    namespace: u64,
    pid: u32,
    /// When it began, in ticks since boot.
    begin: u64,
}

impl Owner {
    fn own() -> Self {
        let pid = std::process::id();
        Self { namespace: namespace(), pid, begin: begin(pid).unwrap_or(0) }
    }

    fn is_alive(&self) -> bool {
        begin(self.pid) == Some(self.begin)
    }
}

fn name_of(owner: &Owner) -> String {
    format!("{PREFIX}{}-{}-{}-", owner.namespace, owner.pid, owner.begin)
}

fn owner_of(name: &str) -> Option<Owner> {
    let mut parts = name.strip_prefix(PREFIX)?.split('-');
    let (namespace, pid) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let begin = parts.next()?.parse().ok()?;
    // And a number.
    parts.next()?.parse::<u64>().ok()?;
    Some(Owner { namespace, pid, begin })
}

fn namespace() -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self/ns/pid").map_or(0, |meta| meta.ino())
}

/// The field `starttime` of proc(5); `None` for a process that is not there.
fn begin(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Removes what recorders left behind whose processes have ended. What can't be removed is tried again another time.
pub(super) fn sweep(tracefs: &Path) {
    let Ok(entries) = std::fs::read_dir(tracefs.join("instances")) else { return };
    let namespace = namespace();
    for entry in entries.flatten() {
        let owner = entry.file_name().to_str().and_then(owner_of);
        if owner.is_some_and(|owner| owner.namespace == namespace && !owner.is_alive()) {
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_dead_have_left_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("instances");
        let own = Owner::own();
        assert!(own.is_alive() && owner_of(&format!("{}0", name_of(&own))) == Some(own.clone()));
        let earlier = Owner { begin: own.begin.wrapping_sub(1), ..own.clone() };
        let elsewhere = Owner { namespace: own.namespace + 1, ..earlier.clone() };
        for name in [
            format!("{}0", name_of(&own)),
            format!("{}3", name_of(&earlier)),
            format!("{}0", name_of(&elsewhere)),
            "ktstr-mine".to_string(),
            "other".to_string(),
        ] {
            std::fs::create_dir_all(folder.join(name)).unwrap();
        }
        sweep(dir.path());
        assert!(!folder.join(format!("{}3", name_of(&earlier))).exists());
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 4);
    }

    #[test]
    fn an_instance_goes_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("instances")).unwrap();
        let instance = Instance::create(place(dir.path())).unwrap();
        let path = instance.path().to_path_buf();
        assert!(path.is_dir() && instance.write("tracing_on", "1").is_err());
        drop(instance);
        assert!(!path.exists());
    }
}
