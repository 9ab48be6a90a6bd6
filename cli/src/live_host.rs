//! The kernel that this process runs on, looked into without a machine around it.
//!
//! For a scheduler on real hardware: a `host_only` test, a program that uses this library, `ktstr inspect --live`. What a
//! test in a machine gets from outside comes here from the kernel's own interfaces, into the same values: a
//! [`LiveHost::snapshot`] is a [`Snapshot`] like any other. Nothing is changed but a trace instance of its own, while a
//! [`Recorder`] records.
//!
//! ```no_run
//! use ktstr::live_host::{LiveHost, Recorder, TraceRequest};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let host = LiveHost::new();
//! println!("{}", host.sources());                       // what this kernel shows of itself, and why not the rest
//! let now = host.snapshot("now");
//! let queued = now.var("stats.queued[2]")?.as_u64()?;   // a variable of the scheduler that is attached
//! println!("{queued} tasks queued under {:?}", now.scx_sched_state()?.ops);
//!
//! let recorder = Recorder::start(&TraceRequest::default())?;
//! std::thread::sleep(Duration::from_millis(100));       // or run a workload
//! let timeline = recorder.finish()?;
//! if let Some(worst) = timeline.wakeup_delays().into_iter().max_by_key(|wait| wait.delay_ns()) {
//!     println!("{} waited {} ns; around it:", worst.comm, worst.delay_ns());
//!     println!("{}", timeline.between(worst.woken_ns, worst.ran_ns).on_cpu(worst.cpu));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Root is needed for nearly all of it. [`parse_kmsg_window`] and [`Timeline::parse_text`] need nothing: they read text.

pub use ktstr_introspect_live::Missing;
pub use ktstr_live::{
    KmsgLevel, KmsgRecord, KmsgWindow, LockWait, Lost, TaskRef, Timeline, TimelineEvent, TimelineRecord,
    TracePoint, WakeupDelay, parse_kmsg_window,
};
pub use ktstr_live_host::{KmsgReader, KmsgText, Recorder, TraceError, TraceRequest};
pub use ktstr_live_kernel::{RunningKernel, RunningKernelError};

use ktstr_introspect_live::{RunningFiles, TypesFrom};
use ktstr_live_kernel::RunningBpf;
use ktstr_monitor::{KernelState, MapState, ProgramState, SchedExtState, Snapshot, SnapshotCause};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Instant;

/// The kernel that runs here.
pub struct LiveHost {
    files: RunningFiles,
    begin: Instant,
    bpf: OnceLock<RunningBpf>,
    memory: OnceLock<Result<RunningKernel, RunningKernelError>>,
}

/// What a kernel shows of itself; each part that it doesn't with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelSources {
    /// Its release, as `uname -r` has it.
    pub release: Result<String, Missing>,
    /// Its build id, in hexadecimal.
    pub build_id: Result<String, Missing>,
    /// Its ELF file: of the usual places one with that build id.
    pub vmlinux: Result<PathBuf, Missing>,
    /// The file that its types (BTF) come from.
    pub types: Result<PathBuf, Missing>,
    /// Loaded modules that tell their types.
    pub modules: Result<Vec<String>, Missing>,
    /// How many symbols it lists with their addresses.
    pub symbols: Result<usize, Missing>,
    /// The file that its memory can be read in, or why not.
    pub memory: Result<PathBuf, String>,
}

impl Default for LiveHost {
    fn default() -> Self {
        Self::new()
    }
}

impl LiveHost {
    /// Reads nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let (bpf, memory) = (OnceLock::new(), OnceLock::new());
        Self { files: RunningFiles::default(), begin: Instant::now(), bpf, memory }
    }

    /// What this kernel shows of itself.
    pub fn sources(&self) -> KernelSources {
        let from = |from| match from {
            TypesFrom::Sysfs(path) | TypesFrom::Vmlinux(path) => path,
        };
        KernelSources {
            release: self.files.release(),
            build_id: self.files.build_id(),
            vmlinux: self.files.vmlinux().map(|file| file.path().to_path_buf()),
            types: self.files.types().map(|(_, found)| from(found)),
            modules: self.files.modules(),
            symbols: self.files.symbols().map(|table| table.len()),
            memory: self.memory().map(|_| self.files.core()).map_err(ToString::to_string),
        }
    }

    /// The kernel's memory, where it shows that (`/proc/kcore`): any variable, runqueues, dispatch queues. Is found when
    /// first asked for.
    ///
    /// # Errors
    /// Why not.
    pub fn memory(&self) -> Result<&RunningKernel, &RunningKernelError> {
        self.memory.get_or_init(|| RunningKernel::open(&self.files, crate::run::index_cache().ok())).as_ref()
    }

    /// The address of a symbol of the kernel's.
    ///
    /// # Errors
    /// [`Missing`]: there is none, or the kernel hides where.
    pub fn symbol(&self, name: &str) -> Result<u64, Missing> {
        let found = self.files.symbols()?.lookup(name).map(|symbol| symbol.address.0);
        let why = || format!("/proc/kallsyms has no {name}: it may be inlined, or of a module");
        found.ok_or_else(|| Missing { what: "a symbol of the kernel", why: why() })
    }

    /// All BPF programs, by ID, with how often and how long they ran (`kernel.bpf_stats_enabled`).
    ///
    /// # Errors
    /// The kernel's, such as `EPERM` without root.
    pub fn programs(&self) -> io::Result<Vec<ProgramState>> {
        self.bpf().programs()
    }

    /// All BPF maps, by ID, with what is in them as far as a system call tells: 4096 entries, 256 of one per CPU.
    ///
    /// # Errors
    /// As [`LiveHost::programs`].
    pub fn maps(&self) -> io::Result<Vec<MapState>> {
        self.bpf().maps(attached().as_deref())
    }

    /// What sysfs says of sched_ext.
    ///
    /// # Errors
    /// In words, where the kernel has none.
    pub fn scx(&self) -> Result<SchedExtState, String> {
        ktstr_live_host::scx_state(Path::new("/"))
    }

    /// The kernel's state now, for the same accessors as a machine's. By its memory where that can be read; else by system
    /// calls and files: sched_ext with the scheduler's programs, maps and variables, and all threads, but no runqueues
    /// and no queues. What is missing is told in it, with the reason.
    pub fn snapshot(&self, name: &str) -> Snapshot {
        let at_ms = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut state = match self.memory() {
            Ok(memory) => memory.state(),
            Err(why) => self.state_by_calls(&why.to_string()),
        };
        state.moment = "the running system".to_string();
        Snapshot { state: Some(state), ..Snapshot::new(name, at_ms, 0, SnapshotCause::Op) }
    }

    fn state_by_calls(&self, why: &str) -> KernelState {
        let mut state = KernelState::default();
        let parts = "runqueues, dispatch queues, cgroups and times of CPUs";
        state.left_out.push(format!("{parts}: {why}"));
        match ktstr_live_host::task_states(Path::new("/")) {
            Ok((tasks, more)) => {
                state.tasks = tasks;
                if more > 0 {
                    state.left_out.push(format!("{more} more threads"));
                }
            }
            Err(e) => state.problems.push(format!("threads: /proc: {e}")),
        }
        let mut scx = match self.scx() {
            Ok(scx) => scx,
            Err(why) => {
                state.left_out.push(why);
                return state;
            }
        };
        state.left_out.extend(self.bpf().untyped().map(|why| format!("what BPF programs implement: {why}")));
        match self.bpf().scheduler(scx.ops.as_deref()) {
            Ok(found) => (scx.programs, scx.maps) = found,
            Err(e) => state.problems.push(format!("BPF programs and maps: bpf(2): {e}; be root")),
        }
        state.sched_ext = Some(scx);
        state
    }

    fn bpf(&self) -> &RunningBpf {
        self.bpf.get_or_init(|| RunningBpf::new(&self.files))
    }
}

/// The name of the scheduler that is attached.
fn attached() -> Option<String> {
    ktstr_live_host::scx_state(Path::new("/")).ok()?.ops
}

impl fmt::Display for KernelSources {
    /// A line a part.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = |found: &Result<PathBuf, Missing>| told(found, |path| path.display().to_string());
        writeln!(f, "release   {}", told(&self.release, Clone::clone))?;
        writeln!(f, "build id  {}", told(&self.build_id, Clone::clone))?;
        writeln!(f, "vmlinux   {}", path(&self.vmlinux))?;
        writeln!(f, "types     {}", path(&self.types))?;
        writeln!(
            f,
            "modules   {}",
            told(&self.modules, |all| format!("{} with types of their own", all.len()))
        )?;
        writeln!(f, "symbols   {}", told(&self.symbols, ToString::to_string))?;
        match &self.memory {
            Ok(path) => write!(f, "memory    {}", path.display()),
            Err(why) => write!(f, "memory    none: {why}"),
        }
    }
}

fn told<T>(found: &Result<T, Missing>, say: impl Fn(&T) -> String) -> String {
    match found {
        Ok(value) => say(value),
        Err(missing) => format!("none: {}", missing.why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_in_its_line() {
        let missing = |what| Missing { what, why: "not here".to_string() };
        let sources = KernelSources {
            release: Ok("6.12.0".into()),
            build_id: Ok("ab12".into()),
            vmlinux: Err(missing("the kernel's vmlinux")),
            types: Ok("/sys/kernel/btf/vmlinux".into()),
            modules: Ok(vec!["kvm".into()]),
            symbols: Ok(7),
            memory: Err("it takes CONFIG_PROC_KCORE=y".into()),
        };
        assert_eq!(
            sources.to_string(),
            "release   6.12.0\nbuild id  ab12\nvmlinux   none: not here\ntypes     /sys/kernel/btf/vmlinux\n\
             modules   1 with types of their own\nsymbols   7\nmemory    none: it takes CONFIG_PROC_KCORE=y"
        );
    }

    #[test]
    fn this_system_is_told_whatever_it_shows() {
        let host = LiveHost::new();
        let snapshot = host.snapshot("now");
        let state = snapshot.kernel().expect("a state");
        let own = i64::from(std::process::id());
        assert!(state.tasks.iter().any(|task| task.tgid == own), "{:?}", state.problems);
        assert!(host.sources().release.is_ok());
        assert!(host.symbol("no such symbol").is_err());
    }
}
