//! A running machine.

use crate::args::Start;
use crate::fds::Channels;
use crate::host_tsc::Moment;
use crate::memory::GuestRam;
use crate::process::{Service, Shared, kill};
use crate::vcpu_threads::VcpuThreads;
use crate::{args, kernel_image, qmp, registers};
use ktstr_machine::{MachineError, MachineSpec, PhysicalMemory, VcpuRegisters, Vm, VmEvent, VmExit};
use serde_json::{Value, json};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long QEMU may take for a command; it answers within milliseconds unless
/// the host is swamped.
const QMP_TIMEOUT: Duration = Duration::from_secs(20);
/// Writing a core takes as long as the disk does.
const DUMP_TIMEOUT: Duration = Duration::from_secs(120);

pub(crate) struct QemuVm {
    events: Receiver<VmEvent>,
    shared: Arc<Shared>,
    qmp: qmp::Client,
    pidfd: OwnedFd,
    ram: Arc<GuestRam>,
    vcpus: Option<VcpuThreads>,
    thread: Option<JoinHandle<()>>,
    setup: Duration,
    ended: bool,
}

/// How and when a machine begins.
pub(crate) struct Beginning {
    pub(crate) start: Start,
    /// Its setup counts from then on.
    pub(crate) begin: Instant,
    /// What its kernel is told of the time stamp counter.
    pub(crate) tsc_khz: Option<u32>,
}

impl QemuVm {
    /// Boots a machine.
    pub(crate) fn boot(program: &Path, spec: &MachineSpec) -> Result<Self, MachineError> {
        let begin = Instant::now();
        let tsc = Moment::now();
        let channels = Channels::create(spec, &spec.initramfs)?;
        let start = Beginning { start: Start::Boot, begin, tsc_khz: tsc.and_then(Moment::khz) };
        Self::start(program, spec, channels, start)
    }

    pub(crate) fn start(
        program: &Path,
        spec: &MachineSpec,
        channels: Channels,
        Beginning { start, begin, tsc_khz }: Beginning,
    ) -> Result<Self, MachineError> {
        kernel_image::check(&spec.kernel)?;
        let args = args::build(spec, &channels.child_fds(), start, tsc_khz)?;
        let ram = Arc::new(GuestRam::map(&channels.ram)?);
        let shared = Arc::new(Shared { queued: AtomicUsize::new(0), stopping: AtomicBool::new(false) });
        let (event_tx, events) = mpsc::channel();
        let (reply_tx, replies) = mpsc::channel();
        let (ready_tx, ready) = mpsc::sync_channel(1);
        let service = Service {
            program: program.to_path_buf(),
            args,
            channels,
            shared: Arc::clone(&shared),
            events: event_tx,
            replies: reply_tx,
        };
        let thread = std::thread::Builder::new()
            .name("ktstr-qemu".to_string())
            .spawn(move || service.run(&ready_tx))
            .map_err(MachineError::os("starting the thread that serves QEMU"))?;
        let started = ready
            .recv()
            .map_err(|_| MachineError::Gone { doing: format!("starting {}", program.display()) })??;
        Ok(Self {
            events,
            shared,
            qmp: qmp::Client::new(started.qmp, replies),
            pidfd: started.pidfd,
            ram,
            vcpus: None,
            thread: Some(thread),
            setup: begin.elapsed(),
            ended: false,
        })
    }

    /// Runs a command of QMP.
    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, MachineError> {
        self.qmp.execute(command, arguments, QMP_TIMEOUT)
    }

    /// Hands a file over, which other commands then know by `name`.
    pub(crate) fn hand_over(&mut self, name: &str, file: &File) -> Result<(), MachineError> {
        self.qmp.hand_over(name, file.as_fd(), QMP_TIMEOUT)
    }

    /// Counts from `begin` until now as the machine's setup.
    pub(crate) fn set_up(&mut self, begin: Instant) {
        self.setup = begin.elapsed();
    }
}

impl Vm for QemuVm {
    fn next_event(&mut self, timeout: Duration) -> Result<Option<VmEvent>, MachineError> {
        if self.ended {
            return Err(MachineError::Gone { doing: "waiting for the machine".to_string() });
        }
        match self.events.recv_timeout(timeout) {
            Ok(event) => {
                match &event {
                    VmEvent::Console(bytes) | VmEvent::Data(bytes) | VmEvent::Output(bytes) => {
                        self.shared.queued.fetch_sub(bytes.len(), Ordering::Relaxed);
                    }
                    VmEvent::Exited(_) => self.ended = true,
                    VmEvent::Paused => {}
                }
                Ok(Some(event))
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                self.ended = true;
                let stderr = "the thread that serves QEMU ended early; this is a bug of ktstr".to_string();
                Ok(Some(VmEvent::Exited(VmExit::Failed { code: -1, stderr })))
            }
        }
    }

    fn pause(&mut self) -> Result<(), MachineError> {
        self.qmp.execute("stop", json!({}), QMP_TIMEOUT).map(drop)
    }

    fn resume(&mut self) -> Result<(), MachineError> {
        self.qmp.execute("cont", json!({}), QMP_TIMEOUT).map(drop)
    }

    fn registers(&mut self) -> Result<Vec<VcpuRegisters>, MachineError> {
        let arguments = json!({ "command-line": "info registers -a" });
        let answer = self.qmp.execute("human-monitor-command", arguments, QMP_TIMEOUT)?;
        let text = answer.as_str().unwrap_or_default();
        let registers = registers::parse(text);
        if registers.is_empty() {
            return Err(MachineError::Refused {
                doing: "reading registers".to_string(),
                answer: format!("{:?}", text.chars().take(200).collect::<String>()),
            });
        }
        Ok(registers)
    }

    fn dump(&mut self, path: &Path) -> Result<(), MachineError> {
        let protocol = format!("file:{}", path.display());
        let arguments = json!({ "paging": false, "protocol": protocol });
        self.qmp.execute("dump-guest-memory", arguments, DUMP_TIMEOUT).map(drop)
    }

    fn vcpu_times(&mut self) -> Option<Vec<Duration>> {
        if self.vcpus.is_none() {
            self.vcpus = Some(VcpuThreads::of(&mut self.qmp));
        }
        self.vcpus.as_ref()?.times()
    }

    fn memory(&self) -> Arc<dyn PhysicalMemory> {
        self.ram.clone()
    }

    fn kill(&mut self) -> Result<(), MachineError> {
        self.shared.stopping.store(true, Ordering::SeqCst);
        kill(&self.pidfd).map_err(MachineError::os("killing QEMU"))
    }

    fn setup_time(&self) -> Option<Duration> {
        Some(self.setup)
    }
}

impl Drop for QemuVm {
    fn drop(&mut self) {
        let killed = self.kill();
        if let (Ok(()), Some(thread)) = (killed, self.thread.take()) {
            // The process is dead, so the thread drains its pipes and ends.
            let _ = thread.join();
        }
    }
}
