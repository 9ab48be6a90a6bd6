//! [`CgroupManager`]: the port's operations, and which cgroups are ours.

use crate::events::Events;
use crate::{file, limit, name, tasks};
use ktstr_scenario::ports::{CgroupError, CgroupLimit, CgroupOps};
use ktstr_topology::CpuSet;
use nix::errno::Errno;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Controllers that are enabled where the kernel has them.
pub const CONTROLLERS: [&str; 5] = ["cpuset", "cpu", "memory", "pids", "io"];

/// How long freezing, and emptying before a removal, may take.
const STATE_LIMIT: Duration = Duration::from_secs(2);

/// How often a removal that finds the cgroup busy looks again.
const REMOVE_PAUSE: Duration = Duration::from_millis(10);

/// Makes and changes cgroups below one parent of a cgroup v2 mount.
///
/// It remembers what it made and refuses to touch anything else. Nothing is
/// removed on drop: call [`cleanup_all`](CgroupOps::cleanup_all).
///
/// The parent has all controllers of [`CONTROLLERS`] enabled for its children. A
/// nested cgroup (`outer/inner`) gets a controller when an operation needs it, so
/// that tasks may live in `outer` and `outer/inner` alike as long as `inner` has no
/// limits of its own.
#[derive(Debug)]
pub struct CgroupManager {
    root: PathBuf,
    parent: PathBuf,
    made: Mutex<Made>,
}

/// What there is to take down again.
#[derive(Debug, Default)]
struct Made {
    /// Directories from the root to the parent that were missing, outermost first.
    parents: Vec<PathBuf>,
    /// Names of the cgroups below the parent.
    cgroups: BTreeSet<String>,
    /// The parent is there, with its controllers.
    set_up: bool,
}

impl CgroupManager {
    /// A manager of the cgroups below `parent` (such as `ktstr`; may be nested) of
    /// the cgroup v2 file system mounted at `root_mount` (such as `/sys/fs/cgroup`).
    ///
    /// Touches nothing yet: [`setup`](CgroupOps::setup) does, or the first cgroup that is
    /// made: who needs none, needs no right to make any.
    ///
    /// # Errors
    /// [`CgroupError::Name`] when `parent` is no good name.
    pub fn new(root_mount: &Path, parent: &str) -> Result<Self, CgroupError> {
        name::check(parent)?;
        Ok(Self {
            root: root_mount.to_path_buf(),
            parent: root_mount.join(parent),
            made: Mutex::new(Made::default()),
        })
    }

    /// The directory of the parent.
    pub fn parent_path(&self) -> &Path {
        &self.parent
    }

    fn made(&self) -> MutexGuard<'_, Made> {
        // A panic elsewhere leaves the set usable: each change is one insert or remove.
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.parent.join(name)
    }

    /// The directory of a cgroup that is ours, or why it may not be touched.
    fn own_dir(&self, doing: &'static str, name: &str) -> Result<PathBuf, CgroupError> {
        name::check(name)?;
        if self.made().cgroups.contains(name) {
            Ok(self.dir(name))
        } else {
            Err(CgroupError::NotOurs { doing, name: name.to_string() })
        }
    }

    /// Writes an interface file of a cgroup of ours, whose controller gets enabled.
    fn write_controlled(
        &self,
        doing: &'static str,
        name: &str,
        controller: &str,
        file: &str,
        text: &str,
    ) -> Result<(), CgroupError> {
        let dir = self.own_dir(doing, name)?;
        self.enable_above(&dir, controller)?;
        file::write(&dir.join(file), text)
    }

    /// Enables a controller in every cgroup from the root to the one above `dir`.
    fn enable_above(&self, dir: &Path, controller: &str) -> Result<(), CgroupError> {
        for above in self.path_from_root(dir.parent().unwrap_or(dir)) {
            let enabled = file::read(&above.join("cgroup.subtree_control"))?;
            if has_word(&enabled, controller) {
                continue;
            }
            let offered = file::read(&above.join("cgroup.controllers"))?;
            if !has_word(&offered, controller) {
                return Err(missing_controller(&above, controller, &offered));
            }
            refuse_if_it_holds_processes(&above, controller)?;
            file::write(&above.join("cgroup.subtree_control"), &format!("+{controller}"))?;
        }
        Ok(())
    }

    /// `dir` and those above it down from the root, outermost first.
    fn path_from_root(&self, dir: &Path) -> Vec<PathBuf> {
        let mut path: Vec<PathBuf> =
            dir.ancestors().take_while(|d| d.starts_with(&self.root)).map(Path::to_path_buf).collect();
        path.reverse();
        path
    }

    /// Removes a directory whose processes are gone or going.
    fn remove_dir(&self, name: &str, dir: &Path) -> Result<(), CgroupError> {
        let deadline = Instant::now() + STATE_LIMIT;
        loop {
            match fs::remove_dir(dir) {
                Ok(()) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(e) if e.raw_os_error() == Some(Errno::EBUSY as i32) && Instant::now() < deadline => {
                    self.wait_until_empty(dir)?;
                }
                Err(source) => {
                    let children = children_of(dir);
                    let hint = if children.is_empty() {
                        String::new()
                    } else {
                        format!("; cgroup {name:?} still has child cgroups [{}]", children.join(" "))
                    };
                    let path = dir.display().to_string();
                    return Err(CgroupError::Io { doing: "removing".into(), path, hint, source });
                }
            }
        }
    }

    /// Waits for the last exiting task to be gone. One that exits still counts
    /// for a moment after it left `cgroup.procs`.
    fn wait_until_empty(&self, dir: &Path) -> Result<(), CgroupError> {
        tasks::drain(&self.root, dir)?;
        let path = dir.join("cgroup.events");
        if Events::open(&path)?.wait_for("populated", false, STATE_LIMIT)? {
            // Empty and yet busy: let the kernel finish putting the last task away.
            std::thread::sleep(REMOVE_PAUSE);
        }
        Ok(())
    }

    fn make_parents(&self) -> Result<(), CgroupError> {
        for dir in self.path_from_root(&self.parent).into_iter().skip(1) {
            match fs::create_dir(&dir) {
                Ok(()) => self.made().parents.push(dir),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(file::io_error("making", &dir, e)),
            }
        }
        Ok(())
    }

    /// Enables all of [`CONTROLLERS`] that `dir` has. A missing one is no error
    /// until an operation needs it.
    fn enable_offered(&self, dir: &Path) -> Result<(), CgroupError> {
        let offered = file::read(&dir.join("cgroup.controllers"))?;
        let control = dir.join("cgroup.subtree_control");
        let enabled = file::read(&control)?;
        let missing = CONTROLLERS.iter().filter(|c| has_word(&offered, c) && !has_word(&enabled, c));
        let words: Vec<String> = missing.map(|controller| format!("+{controller}")).collect();
        // In one write: the kernel rebuilds the subtree for each.
        if words.is_empty() { Ok(()) } else { file::write(&control, &words.join(" ")) }
    }
}

impl CgroupOps for CgroupManager {
    fn setup(&self) -> Result<(), CgroupError> {
        file::read(&self.root.join("cgroup.controllers"))?;
        self.make_parents()?;
        for dir in self.path_from_root(&self.parent) {
            self.enable_offered(&dir)?;
        }
        self.made().set_up = true;
        Ok(())
    }

    fn create_cgroup(&self, name: &str) -> Result<(), CgroupError> {
        name::check(name)?;
        let set_up = self.made().set_up;
        if !set_up {
            self.setup()?;
        }
        for prefix in name::prefixes(name) {
            let (is_last, known) = (prefix == name, self.made().cgroups.contains(prefix));
            if known && is_last {
                return Err(CgroupError::Exists { name: name.to_string() });
            }
            if known {
                continue;
            }
            let dir = self.dir(prefix);
            match fs::create_dir(&dir) {
                Ok(()) => {
                    self.made().cgroups.insert(prefix.to_string());
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && is_last => {
                    return Err(CgroupError::Exists { name: name.to_string() });
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(CgroupError::NotOurs {
                        doing: "making a child in",
                        name: prefix.to_string(),
                    });
                }
                Err(e) => return Err(file::io_error("making", &dir, e)),
            }
        }
        Ok(())
    }

    fn remove_cgroup(&self, name: &str) -> Result<(), CgroupError> {
        name::check(name)?;
        let dir = self.dir(name);
        if !self.made().cgroups.contains(name) {
            return if dir.exists() {
                Err(CgroupError::NotOurs { doing: "removing", name: name.to_string() })
            } else {
                Ok(())
            };
        }
        if dir.exists() {
            tasks::drain(&self.root, &dir)?;
            self.remove_dir(name, &dir)?;
        }
        self.made().cgroups.remove(name);
        Ok(())
    }

    fn set_cpuset(&self, name: &str, cpus: &CpuSet) -> Result<(), CgroupError> {
        let doing = "setting the cpuset of";
        if cpus.is_empty() {
            let path = self.own_dir(doing, name)?.join("cpuset.cpus");
            let why = "an empty set would give it all CPUs of its parent; clear the cpuset if that is meant";
            let source = io::Error::new(io::ErrorKind::InvalidInput, why);
            return Err(file::io_error("writing an empty CPU set to", &path, source));
        }
        self.write_controlled(doing, name, "cpuset", "cpuset.cpus", &cpus.to_string())
    }

    fn clear_cpuset(&self, name: &str) -> Result<(), CgroupError> {
        let dir = self.own_dir("clearing the cpuset of", name)?;
        self.enable_above(&dir, "cpuset")?;
        clear_list(&dir, "cpuset.cpus")
    }

    fn set_cpuset_mems(&self, name: &str, nodes: &CpuSet) -> Result<(), CgroupError> {
        let doing = "setting the memory nodes of";
        if !nodes.is_empty() {
            return self.write_controlled(doing, name, "cpuset", "cpuset.mems", &nodes.to_string());
        }
        let dir = self.own_dir(doing, name)?;
        self.enable_above(&dir, "cpuset")?;
        clear_list(&dir, "cpuset.mems")
    }

    fn effective_cpus(&self, name: &str) -> Result<CpuSet, CgroupError> {
        let dir = self.own_dir("reading the CPUs of", name)?;
        // Without the controller a cgroup runs on the CPUs of the nearest one that has it.
        let path = dir
            .ancestors()
            .take_while(|d| d.starts_with(&self.root))
            .map(|d| d.join("cpuset.cpus.effective"))
            .find(|path| path.exists());
        let Some(path) = path else {
            let offered = file::read(&self.root.join("cgroup.controllers"))?;
            return Err(missing_controller(&self.root, "cpuset", &offered));
        };
        let text = file::read(&path)?;
        text.trim().parse().map_err(|_| CgroupError::Content {
            path: path.display().to_string(),
            expected: "a cpulist such as 0-3,8",
            seen: text.clone(),
        })
    }

    fn set_limit(&self, name: &str, limit: CgroupLimit) -> Result<(), CgroupError> {
        let (controller, file, text) = limit::rendered(limit);
        self.write_controlled("limiting", name, controller, file, &text)
    }

    fn move_tasks(&self, name: &str, pids: &[i32]) -> Result<(), CgroupError> {
        let dir = self.own_dir("moving tasks to", name)?;
        pids.iter().try_for_each(|&pid| tasks::move_one(&dir, pid))
    }

    fn drain_tasks(&self, name: &str) -> Result<(), CgroupError> {
        tasks::drain(&self.root, &self.own_dir("draining", name)?)
    }

    fn procs(&self, name: &str) -> Result<Vec<i32>, CgroupError> {
        tasks::list(&self.own_dir("listing the processes of", name)?)
    }

    fn set_frozen(&self, name: &str, frozen: bool) -> Result<(), CgroupError> {
        let dir = self.own_dir(if frozen { "freezing" } else { "thawing" }, name)?;
        file::write(&dir.join("cgroup.freeze"), if frozen { "1" } else { "0" })?;
        if Events::open(&dir.join("cgroup.events"))?.wait_for("frozen", frozen, STATE_LIMIT)? {
            return Ok(());
        }
        let state = if frozen { "frozen" } else { "thawed" };
        Err(CgroupError::State { name: name.to_string(), state, after: STATE_LIMIT })
    }

    fn cleanup_all(&self) -> Result<(), CgroupError> {
        let mut names: Vec<String> = self.made().cgroups.iter().cloned().collect();
        // Deepest first; a child's name is longer than its parent's.
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        let mut first_error = None;
        for name in names {
            if let Err(e) = self.remove_cgroup(&name) {
                first_error.get_or_insert(e);
            }
        }
        if let Some(error) = first_error {
            return Err(error);
        }
        loop {
            let Some(dir) = self.made().parents.last().cloned() else { return Ok(()) };
            self.remove_dir(&dir.display().to_string(), &dir)?;
            let mut made = self.made();
            made.parents.pop();
            made.set_up = false;
        }
    }
}

/// Whether a space-separated list has a word.
fn has_word(list: &str, word: &str) -> bool {
    list.split_ascii_whitespace().any(|w| w == word)
}

/// Gives a cgroup its parent's CPUs or nodes again.
///
/// A cgroup that holds processes keeps a list once it has one (`validate_change()` in
/// `kernel/cgroup/cpuset.c`); it gets what its parent has now.
fn clear_list(dir: &Path, list: &str) -> Result<(), CgroupError> {
    let path = dir.join(list);
    // A lone newline, as `echo` writes it: a write of no bytes would not reach the file.
    match file::try_write(&path, "\n") {
        Err(e) if e.errno() == Some(Errno::ENOSPC as i32) => {
            let above = dir.parent().unwrap_or(dir).join(format!("{list}.effective"));
            file::write(&path, file::read(&above)?.trim())
        }
        other => other.map_err(|e| e.into_error(&path, "\n")),
    }
}

/// The kernel refuses to enable some controllers for the children of a cgroup that
/// holds processes. For the others (cpu, cpuset, pids) it silently makes the cgroup a
/// thread root, whose children then take no processes at all.
fn refuse_if_it_holds_processes(dir: &Path, controller: &str) -> Result<(), CgroupError> {
    // Only a hierarchy's root has no type, and the rule does not bind it.
    if !dir.join("cgroup.type").exists() || tasks::list(dir)?.is_empty() {
        return Ok(());
    }
    let busy = file::WriteFailure::Io(io::Error::from_raw_os_error(Errno::EBUSY as i32));
    Err(busy.into_error(&dir.join("cgroup.subtree_control"), &format!("+{controller}")))
}

fn missing_controller(dir: &Path, controller: &str, offered: &str) -> CgroupError {
    let option = match controller {
        "cpuset" => "CONFIG_CPUSETS",
        "cpu" => "CONFIG_CGROUP_SCHED and CONFIG_FAIR_GROUP_SCHED",
        "memory" => "CONFIG_MEMCG",
        "pids" => "CONFIG_CGROUP_PIDS",
        "io" => "CONFIG_BLK_CGROUP",
        _ => "its option",
    };
    CgroupError::Controller {
        controller: controller.to_string(),
        path: dir.display().to_string(),
        available: offered.trim().to_string(),
        remedy: format!("build the kernel with {option}, or enable it in the cgroups above"),
    }
}

/// Names of the child cgroups; empty when they can't be read, as it only serves a hint.
fn children_of(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let dirs = entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    let mut names: Vec<String> = dirs.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests;
