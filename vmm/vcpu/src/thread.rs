//! A vCPU with its thread.

use crate::control::{Control, State, Want};
use crate::{Machine, Registers, VcpuError, arch, kick, run};
use kvm_ioctls::VcpuFd;
use std::os::unix::thread::JoinHandleExt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use vmm_sys_util::signal::Killable;

/// What the thread and its owner share. The thread holds `fd` while the guest runs.
pub(crate) struct Shared {
    pub(crate) index: u32,
    pub(crate) control: Control,
    pub(crate) fd: Mutex<VcpuFd>,
    /// What it watches; changed and looked at by whoever holds `fd`, so that a hit is always of what it ran with.
    pub(crate) points: Mutex<Vec<arch::Watch>>,
    /// The host's number for the thread, which tells it first of all.
    thread_id: OnceLock<u32>,
}

/// A vCPU with its thread. Dropping it stops and joins the thread.
pub struct Vcpu {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Vcpu {
    /// Gives `fd` a thread, paused: [`resume`](Self::resume) lets it run.
    ///
    /// # Errors
    /// No signal handler or thread to be had.
    pub fn start(index: u32, fd: VcpuFd, machine: Arc<dyn Machine>) -> Result<Self, VcpuError> {
        kick::install()?;
        let shared = Arc::new(Shared {
            index,
            control: Control::new(),
            fd: Mutex::new(fd),
            points: Mutex::default(),
            thread_id: OnceLock::new(),
        });
        let inner = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name(format!("vcpu{index}"))
            .spawn(move || {
                // SAFETY: takes nothing and can't fail.
                let id = unsafe { libc::gettid() };
                inner.thread_id.get_or_init(|| id.unsigned_abs());
                run::main(&inner, machine.as_ref());
            })
            .map_err(|source| VcpuError::Thread { index, source })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Its number, from 0.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.shared.index
    }

    /// What it does.
    #[must_use]
    pub fn state(&self) -> State {
        self.shared.control.state()
    }

    /// The host's number for its thread, for which it waits until that has begun; `None` once it has ended.
    #[must_use]
    pub fn thread_id(&self) -> Option<u32> {
        let id = *self.shared.thread_id.wait();
        let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        (!ended).then_some(id)
    }

    /// The time that the host has run its thread so far, most of it in the guest; `None` once it has ended.
    #[must_use]
    pub fn cpu_time(&self) -> Option<Duration> {
        let thread = self.thread.as_ref().filter(|thread| !thread.is_finished())?;
        let (mut clock, mut time) = (0, libc::timespec { tv_sec: 0, tv_nsec: 0 });
        // SAFETY: the thread isn't joined yet, so its handle is good; both calls write one variable each.
        let told = unsafe {
            libc::pthread_getcpuclockid(thread.as_pthread_t(), &raw mut clock) == 0
                && libc::clock_gettime(clock, &raw mut time) == 0
        };
        let (seconds, ns) = (u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?);
        told.then(|| Duration::new(seconds, ns))
    }

    /// Stops it where it is, within `patience`.
    ///
    /// # Errors
    /// It still runs after that.
    pub fn pause(&self, patience: Duration) -> Result<(), VcpuError> {
        pause_all(std::slice::from_ref(self), patience)
    }

    /// Lets it run on.
    pub fn resume(&self) {
        self.shared.control.ask(Want::Run);
    }

    /// Its registers, while it doesn't run.
    ///
    /// # Errors
    /// It runs, or KVM refuses.
    pub fn registers(&self) -> Result<Registers, VcpuError> {
        let index = self.index();
        let doing = "reading the registers";
        self.with_still(doing, |fd| {
            arch::registers(fd).map_err(|source| VcpuError::Kvm { index, doing, source })
        })
    }

    /// Replaces its breakpoints and watchpoints, while it doesn't run.
    ///
    /// # Errors
    /// It runs, or there are more than the processor has.
    pub fn watch(&self, points: &[arch::Watch]) -> Result<(), VcpuError> {
        let index = self.index();
        let doing = "setting watchpoints";
        self.with_still(doing, |fd| {
            arch::watch(fd, points).map_err(|source| VcpuError::Kvm { index, doing, source })?;
            *self.shared.points.lock().unwrap_or_else(PoisonError::into_inner) = points.to_vec();
            Ok(())
        })
    }

    /// All of its state, while no vCPU of the machine runs. `identity` is what it was made
    /// with.
    ///
    /// # Errors
    /// It runs, or KVM refuses.
    pub fn save(
        &self,
        kinds: &arch::StateKinds,
        identity: &arch::Identity,
    ) -> Result<arch::VcpuState, VcpuError> {
        self.with_still("saving the state", |fd| arch::save(self.index(), fd, kinds, identity))
    }

    /// What its own clock stands at, which goes on while the vCPU doesn't run.
    ///
    /// # Errors
    /// It runs, or KVM refuses.
    pub fn clock(&self) -> Result<arch::VcpuClock, VcpuError> {
        let (index, doing) = (self.index(), "reading the clock");
        self.with_still(doing, |fd| arch::clock(fd).map_err(|source| VcpuError::Kvm { index, doing, source }))
    }

    /// Has its own clock go on from there, as part of setting those of all vCPUs, in their order.
    ///
    /// # Errors
    /// It runs, or KVM refuses.
    pub fn set_clock(&self, clock: &arch::VcpuClock) -> Result<(), VcpuError> {
        self.with_still("setting the clock", |fd| arch::set_clock(self.index(), fd, clock))
    }

    /// Asks KVM something about it, while it doesn't run.
    ///
    /// # Errors
    /// It runs, or what `ask` fails with.
    pub fn with_still<T>(
        &self,
        doing: &'static str,
        ask: impl FnOnce(&mut VcpuFd) -> Result<T, VcpuError>,
    ) -> Result<T, VcpuError> {
        if self.state() == State::Running {
            return Err(VcpuError::Runs { index: self.index(), doing });
        }
        ask(&mut self.shared.fd.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn ask(&self, want: Want) {
        self.shared.control.ask(want);
        if let Some(thread) = &self.thread {
            // Fails only when the thread has ended, which is as good.
            let _ = thread.kill(kick::signal());
        }
    }
}

/// Stops all of them where they are, within `patience` together.
///
/// # Errors
/// The first that still runs after that.
pub fn pause_all(vcpus: &[Vcpu], patience: Duration) -> Result<(), VcpuError> {
    vcpus.iter().for_each(|vcpu| vcpu.ask(Want::Pause));
    wait_all(vcpus, patience)
}

/// Lets all of them run on.
pub fn resume_all(vcpus: &[Vcpu]) {
    vcpus.iter().for_each(Vcpu::resume);
}

/// Ends all of them, within `patience` together; dropping them waits for their threads.
///
/// # Errors
/// The first that still runs after that.
pub fn stop_all(vcpus: &[Vcpu], patience: Duration) -> Result<(), VcpuError> {
    vcpus.iter().for_each(|vcpu| vcpu.ask(Want::Stop));
    wait_all(vcpus, patience)
}

fn wait_all(vcpus: &[Vcpu], patience: Duration) -> Result<(), VcpuError> {
    let deadline = Instant::now() + patience;
    match vcpus.iter().find(|vcpu| !vcpu.shared.control.wait_still(deadline)) {
        Some(vcpu) => Err(VcpuError::StillRunning { index: vcpu.index(), after: patience }),
        None => Ok(()),
    }
}

impl Drop for Vcpu {
    fn drop(&mut self) {
        self.ask(Want::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic there was printed already; there is nothing left to stop.
            let _ = thread.join();
        }
    }
}
