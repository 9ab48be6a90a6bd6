//! A test's machine: resumed from a saved one where that is possible, else booted.

use super::image::Image;
use super::kernel::Kernel;
use crate::settings::Settings;
use anyhow::{Context, Result};
use ktstr_assert::Assert;
use ktstr_guest_init::BOOT_INIT;
use ktstr_host::PerfCounters;
use ktstr_kernel_cache::KernelCache;
use ktstr_live_kernel::{Announcement, Finding, IndexCache, LiveKernel, Running};
use ktstr_machine::mailbox::layout::{ENTROPY_BYTES, SIZE_FILE};
use ktstr_machine::mailbox::{entropy_of, pages_for};
use ktstr_machine::{
    Accel, Blob, Hypervisor, MAX_RESTARTS, MachineError, MachineSpec, Template, Vm, VmExit, Wake,
};
use ktstr_monitor::{Check, Monitor};
use ktstr_run::ports::HostClock;
use ktstr_run::{Limits, Observation, Watch, died_of_lost_code_patch, drive};
use ktstr_templates::{KernelMark, Lease, Need, Notice, TemplateStore, Unmade};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What a machine is made of and how long it may take.
#[derive(Clone)]
pub(super) struct Machine<'a> {
    /// The test that it is for.
    pub(super) name: &'a str,
    pub(super) hypervisor: &'a dyn Hypervisor,
    /// Its initial RAM disk is the test's own part only.
    pub(super) spec: &'a MachineSpec,
    pub(super) image: &'a Image,
    pub(super) kernel: &'a Kernel,
    pub(super) limits: Limits,
    /// The test's own checks; those of the kernel's state need it watched from its first line on.
    pub(super) checks: Assert,
    /// How far apart the monitor's samples are.
    pub(super) monitor_period: Option<Duration>,
    /// Values that every snapshot holds.
    pub(super) snapshot_paths: &'static [&'static str],
    /// Says how its kernel was found.
    pub(super) verbose: bool,
}

pub(super) const LOST_PATCH: &str = "the emulator lost a code patch of the guest kernel, so the machine was started again (a race of QEMU \
     before 8.1 with one thread a vCPU; a newer QEMU or --accel deterministic avoids it)";

/// Said of a run in deterministic mode that nothing was resumed for.
pub(super) const NOT_SAVED: &str =
    "this machine can't be saved, so it was booted; a run that is resumed has other bytes";
const REFUSED: &str = "deterministic mode repeats a run from a saved machine, and none could be had; \
     KTSTR_NO_TEMPLATE=1 boots afresh each time, which repeats as well, with other bytes";

/// A machine that has ended.
pub(super) struct Played {
    pub(super) seen: Observation,
    /// It was resumed, not booted.
    pub(super) resumed: bool,
    /// When it began.
    pub(super) began: SystemTime,
    /// How often it was started again.
    pub(super) restarts: usize,
}

/// What became of a machine that was resumed.
enum Resumed {
    CameUp(Box<Followed>),
    /// It did not, for that reason.
    Not(String),
}

/// What was seen of one machine.
struct Followed {
    seen: Observation,
    began: SystemTime,
}

impl Machine<'_> {
    /// Runs the machine to its end, again if the emulator broke it. `begun` hears when the
    /// test begins, and is dropped at the end.
    pub(super) fn run(&self, settings: &Settings, begun: Sender<()>) -> Result<Played> {
        let mut restarts = 0;
        loop {
            let (Followed { seen, began }, resumed) = self.run_once(settings, &begun)?;
            if restarts == MAX_RESTARTS || !died_of_lost_code_patch(&seen) || !self.loses_code_patches() {
                return Ok(Played { seen, resumed, began, restarts });
            }
            restarts += 1;
            eprintln!("ktstr: note: {LOST_PATCH}");
        }
    }

    /// False where that is not known: a kernel's own death is not to be taken for it.
    fn loses_code_patches(&self) -> bool {
        self.hypervisor.loses_code_patches(self.spec.accel).unwrap_or(false)
    }

    /// Runs the machine to its end; true if it was resumed.
    ///
    /// Whatever is wrong with a saved machine costs a boot, never a verdict.
    fn run_once(&self, settings: &Settings, begun: &Sender<()>) -> Result<(Followed, bool)> {
        // Who wants to see the kernel boot must let it.
        if !settings.no_template
            && !settings.verbose
            && let Some(seen) = self.resume(settings, begun)?
        {
            return Ok((seen, true));
        }
        let mut spec = self.spec.clone();
        let mut parts = self.image.whole()?;
        parts.append(&mut spec.initramfs);
        spec.initramfs = parts;
        let vm = self.hypervisor.boot(&spec)?;
        Ok((self.follow(vm, false, begun)?, false))
    }

    fn follow(&self, mut vm: Box<dyn Vm>, resumed: bool, begun: &Sender<()>) -> Result<Followed> {
        let _announced = self.announce(vm.as_ref());
        let mut eye = LiveKernel::new(self.kernel.vmlinux.clone());
        if let Ok(index) = index_cache() {
            // A vmlinux has a build id, which needs no reading of the whole image.
            eye = eye.with_index(match self.kernel.vmlinux {
                Some(_) => index,
                None => index.of_image(&format!("{}-{}", self.kernel.mark().0, self.kernel.mark().1)),
            });
        }
        let monitor = monitor(self.spec.accel, self.monitor_period).with_alarm(&self.checks);
        let mut counters = PerfCounters::default();
        let watch = Watch::new(&mut eye, monitor).with_paths(self.snapshot_paths).counting(&mut counters);
        // A resumed kernel is up: it can be looked for at once.
        let watch = if resumed { watch.of_booted() } else { watch };
        let watch = if Check::any_set(&self.checks) { watch.before_the_test() } else { watch };
        let watch = match self.spec.accel {
            Accel::Deterministic => watch.at_the_guests_instants(),
            Accel::Tcg | Accel::Kvm => watch,
        };
        // Whoever waits for it may be gone with an earlier machine's test.
        let watch = watch.telling_when_the_test_begins(|| {
            let _ = begun.send(());
        });
        let now = SystemTime::now();
        let began = now.checked_sub(vm.setup_time().unwrap_or_default()).unwrap_or(now);
        let seen = drive(vm.as_mut(), &self.image.build_id, &self.limits, &MonotonicHostClock::new(), watch)?;
        if let Some(Finding { took, how }) = eye.finding().filter(|_| self.verbose) {
            eprintln!("ktstr: the guest's kernel was found in {:.1} ms, {how}", took.as_secs_f64() * 1e3);
        }
        Ok(Followed { seen, began })
    }

    /// Lets `ktstr inspect` find the machine while it lives. A test runs as well without.
    fn announce(&self, vm: &dyn Vm) -> Option<Announcement> {
        let label = format!("{} {}", self.spec.accel, self.spec.topology.label());
        let machine = Running::new(self.name, &label, self.kernel.vmlinux.clone(), vm.ram_files());
        let announced = ktstr_live_kernel::announce(&crate::settings::machines_dir(), &machine);
        announced.map_err(|e| eprintln!("ktstr: warning: {e} (`ktstr inspect` won't find this machine)")).ok()
    }

    /// `None` if there is no saved machine, or it did not come up.
    fn resume(&self, settings: &Settings, begun: &Sender<()>) -> Result<Option<Followed>> {
        let Some(of_hypervisor) = self.hypervisor.template_identity(self.spec)? else { return Ok(None) };
        let store = match store(settings) {
            Ok(store) => store,
            Err(e) => return self.without_store(&format!("{e:#}"), begun),
        };
        let mut broken = false;
        loop {
            let lease = match self.saved(&store, &of_hypervisor) {
                Ok(lease) => lease,
                Err(e) => return self.without_store(&format!("{e:#}"), begun),
            };
            let why = match self.hypervisor.resume(&lease.template, self.spec, &self.wake()?) {
                Ok(vm) => match self.follow_resumed(vm, begun)? {
                    Resumed::CameUp(followed) => return Ok(Some(*followed)),
                    Resumed::Not(why) => why,
                },
                // What is broken is made anew, once.
                Err(e) if matches!(e, MachineError::Template { .. }) && !broken => {
                    broken = true;
                    discard(&store, lease, &e.to_string());
                    continue;
                }
                Err(e) => e.to_string(),
            };
            discard(&store, lease, &why);
            return self.without_store("the saved machine could not be used", begun);
        }
    }

    fn follow_resumed(&self, vm: Box<dyn Vm>, begun: &Sender<()>) -> Result<Resumed> {
        let followed = self.follow(vm, true, begun)?;
        let seen = &followed.seen;
        // Killed from outside is no fault of the saved machine's.
        let killed = matches!(seen.exit, Some(VmExit::Killed { .. }));
        if seen.stage.is_none() && seen.wire_error.is_none() && !killed {
            let last = seen.console.last(3).join(" | ");
            return Ok(Resumed::Not(format!("it did not come up; it printed {last:?}")));
        }
        Ok(Resumed::CameUp(Box::new(followed)))
    }

    /// What to do without a store: boot; in deterministic mode, where that would give other
    /// bytes, save a machine for this test alone.
    fn without_store(&self, why: &str, begun: &Sender<()>) -> Result<Option<Followed>> {
        if self.spec.accel != Accel::Deterministic {
            eprintln!("ktstr: booting afresh: {why}");
            return Ok(None);
        }
        eprintln!("ktstr: saving a machine for this test alone: {why}");
        let dir = PrivateDir::make()?;
        let pages = self.mailbox_pages()?;
        match self.prepare(pages, &dir.0) {
            Ok(()) => {}
            // The guest's own fault, and the same each time: so are the bytes of a boot.
            Err(e) if matches!(e.downcast_ref(), Some(MachineError::NotReady { .. })) => {
                eprintln!("ktstr: {NOT_SAVED}: {e:#}");
                return Ok(None);
            }
            Err(e) => return Err(e.context(REFUSED)),
        }
        let template = Template { key: "of this test".to_string(), dir: dir.0.clone() };
        let vm = self.hypervisor.resume(&template, self.spec, &self.wake()?).context(REFUSED)?;
        // The machine has a copy by now.
        drop(dir);
        match self.follow_resumed(vm, begun)? {
            Resumed::CameUp(followed) => Ok(Some(*followed)),
            Resumed::Not(why) => {
                eprintln!("ktstr: {NOT_SAVED}: {why}");
                Ok(None)
            }
        }
    }

    fn mailbox_pages(&self) -> Result<u64> {
        let archive = self.spec.initramfs.iter().map(blob_bytes).sum::<Result<u64>>()?;
        Ok(pages_for(self.image.program_len(), archive))
    }

    fn prepare(&self, pages: u64, dir: &Path) -> Result<()> {
        let spec = MachineSpec { initramfs: self.boot_image(pages)?, seed: 0, ..self.spec.clone() };
        Ok(self.hypervisor.prepare(&spec, pages, dir, self.limits.boot)?)
    }

    fn saved(&self, store: &TemplateStore, of_hypervisor: &str) -> Result<Lease> {
        let (crc, bytes) = self.kernel.mark().clone();
        let pages = self.mailbox_pages()?;
        let identity = format!(
            "kernel {crc} {bytes} bytes\nboot init {}\nmailbox {pages} pages\n{}{of_hypervisor}",
            ktstr_kernel::crc_hex(BOOT_INIT),
            self.image.libraries_identity()
        );
        let spec = self.spec;
        let label = format!("{} {} {} MiB", spec.accel, spec.topology.label(), spec.memory_mib);
        let kernel = KernelMark { path: self.kernel.image.clone(), crc, bytes };
        let need =
            Need { identity: &identity, label: &label, kernel: &kernel, patience: self.limits.boot * 2 };
        let mut make = |dir: &Path| {
            self.prepare(pages, dir).map_err(|e| match e.downcast_ref() {
                Some(MachineError::Killed { .. }) => Unmade::by_chance(e),
                _ => Unmade::for_good(e),
            })
        };
        let mut tell = |notice| match notice {
            Notice::Making => eprintln!("ktstr: booting a machine to save ({label}); later tests resume it"),
            Notice::Waiting => eprintln!("ktstr: waiting for another process that saves a machine ({label})"),
            Notice::Broken(why) => eprintln!("ktstr: the saved machine ({label}) is made anew: {why}"),
        };
        Ok(store.get(&need, &mut make, &mut tell)?)
    }

    /// The boot init, the libraries of the tests and the size of the mailbox.
    fn boot_image(&self, pages: u64) -> Result<Vec<Blob>> {
        let mut archive = self.image.base(BOOT_INIT)?;
        archive.file(SIZE_FILE, 0o600, &pages.to_le_bytes())?;
        Ok(vec![Blob::Bytes(Arc::new(archive.finish()))])
    }

    /// What it is told: nothing of the host's in deterministic mode.
    fn wake(&self) -> Result<Wake> {
        let init = self.image.program();
        if self.spec.accel == Accel::Deterministic {
            return Ok(Wake { init, clock: None, entropy: entropy_of(self.spec.seed) });
        }
        let mut entropy = [0; ENTROPY_BYTES];
        let random = Path::new("/dev/urandom");
        File::open(random)
            .and_then(|mut f| f.read_exact(&mut entropy))
            .with_context(|| format!("reading {}", random.display()))?;
        Ok(Wake { init, clock: SystemTime::now().duration_since(UNIX_EPOCH).ok(), entropy })
    }
}

struct MonotonicHostClock(Instant);

impl MonotonicHostClock {
    fn new() -> Self {
        Self(Instant::now())
    }
}

impl HostClock for MonotonicHostClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Samples at the host's pace would make a deterministic run's record depend on it, so the guest
/// asks for them there.
fn monitor(accel: Accel, period: Option<Duration>) -> Monitor {
    match (accel, period) {
        (_, None) => Monitor::off("not sampled, as KTSTR_MONITOR_MS=0 says"),
        (Accel::Deterministic, Some(_)) => Monitor::when_asked(),
        (Accel::Kvm | Accel::Tcg, Some(period)) => Monitor::every(period),
    }
}

fn discard(store: &TemplateStore, lease: Lease, why: &str) {
    eprintln!("ktstr: the saved machine {} is thrown away: {why}", lease.template.key);
    if let Err(e) = store.discard(lease) {
        eprintln!("ktstr: {e}");
    }
}

/// A directory that goes when this does.
struct PrivateDir(PathBuf);

impl PrivateDir {
    fn make() -> Result<Self> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("ktstr-saved-{}-{serial}", std::process::id()));
        std::fs::create_dir(&dir).with_context(|| format!("making {}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.0) {
            eprintln!("ktstr: deleting {}: {e}", self.0.display());
        }
    }
}

/// The store that the settings name.
pub(super) fn store(settings: &Settings) -> Result<TemplateStore> {
    let root = match &settings.template_dir {
        Some(dir) => dir.clone(),
        None => beside(KernelCache::from_env()?.root(), "templates"),
    };
    Ok(TemplateStore::new(root, settings.template_max_bytes))
}

/// Where symbols and types of kernels are kept for the next time.
pub(crate) fn index_cache() -> Result<IndexCache> {
    Ok(IndexCache::new(beside(KernelCache::from_env()?.root(), "index")))
}

/// Saved machines and indexes lie beside the kernels, or below them where a user chose the place.
fn beside(kernels: &Path, name: &str) -> PathBuf {
    match kernels.parent() {
        Some(parent) if kernels.ends_with("ktstr/kernels") => parent.join(name),
        _ => kernels.join(name),
    }
}

fn blob_bytes(blob: &Blob) -> Result<u64> {
    match blob {
        Blob::Bytes(bytes) => Ok(bytes.len() as u64),
        Blob::File(path) => {
            let found = std::fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?;
            Ok(found.len())
        }
        Blob::Range { bytes, .. } => Ok(*bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The boot init has no libraries, so what it makes beforehand is spelt out there once more.
    #[test]
    fn the_boot_init_makes_the_cgroup_that_tests_look_for() {
        let has = |text: String| BOOT_INIT.windows(text.len()).any(|bytes| bytes == text.as_bytes());
        assert!(has(format!("/sys/fs/cgroup/{}\0", ktstr_run::GuestPlan::CGROUP_PARENT)));
        for controller in ktstr_cgroupfs::CONTROLLERS {
            assert!(has(format!("+{controller}")), "{controller}");
        }
    }

    #[test]
    fn saved_machines_have_a_place_of_their_own() {
        assert_eq!(beside(Path::new("/c/ktstr/kernels"), "templates"), Path::new("/c/ktstr/templates"));
        assert_eq!(beside(Path::new("/chosen"), "templates"), Path::new("/chosen/templates"));
    }
}
