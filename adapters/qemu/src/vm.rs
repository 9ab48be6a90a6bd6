//! A running machine.

use crate::args::Start;
use crate::bell::Bell;
use crate::fds::{Channels, NodeRam};
use crate::gdb::Gdb;
use crate::host_tsc::Moment;
use crate::memory::GuestRam;
use crate::process::{Service, Shared, kill};
use crate::still::VcpuPlaces;
use crate::vcpu_threads::VcpuThreads;
use crate::{args, kernel_image, qmp, registers, turns};
use ktstr_machine::{MachineError, MachineSpec, PhysicalMemory, RamFile, VcpuRegisters, Vm, VmEvent, VmExit};
use serde_json::{Value, json};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, PoisonError};
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
    nodes: Vec<NodeRam>,
    bell: Option<Bell>,
    /// The guest stands still at its bell.
    at_bell: bool,
    /// Its main loop is known to take turns with the vCPUs.
    takes_turns: bool,
    /// Where the vCPUs' registers are then, or why that is not known.
    places: Result<VcpuPlaces, String>,
    gdb: Option<Gdb>,
    /// For events that do not come from the process's own channels.
    teller: Sender<VmEvent>,
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
        mut channels: Channels,
        Beginning { start, begin, tsc_khz }: Beginning,
    ) -> Result<Self, MachineError> {
        kernel_image::check(&spec.kernel)?;
        let args = args::build(spec, &channels.child_fds(), start, tsc_khz)?;
        let ram = Arc::new(GuestRam::map(&channels.ram)?);
        let (nodes, bell) = (channels.ram.clone(), channels.bell.take());
        let shared = Arc::new(Shared::default());
        let (event_tx, events) = mpsc::channel();
        let teller = event_tx.clone();
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
            nodes,
            bell,
            at_bell: false,
            takes_turns: false,
            places: Err(
                "this machine was booted, and only one that was resumed is stopped before it".to_string()
            ),
            gdb: None,
            teller,
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

    /// Has a machine that is stopped go on.
    pub(crate) fn go_on(&mut self) -> Result<(), MachineError> {
        self.qmp.cont(QMP_TIMEOUT)
    }

    /// Hands a file over, which other commands then know by `name`.
    pub(crate) fn hand_over(&mut self, name: &str, file: &File) -> Result<(), MachineError> {
        self.qmp.hand_over(name, file.as_fd(), QMP_TIMEOUT)
    }

    /// Makes sure of what a run in deterministic mode can't be without. QEMU has begun to work.
    pub(crate) fn check_turns(&mut self) -> Result<(), MachineError> {
        if self.bell.is_some() && !self.takes_turns {
            let pid = pid_of(&self.pidfd);
            turns::check(
                pid.map_err(|why| MachineError::os("finding QEMU's process")(std::io::Error::other(why)))?,
            )?;
            self.takes_turns = true;
        }
        Ok(())
    }

    /// Finds out where the registers are of a machine that is yet to run. That it can't is told to who asks for them.
    pub(crate) fn learn_places(&mut self) -> Result<(), MachineError> {
        let said = self.said_of_registers()?;
        self.places = match pid_of(&self.pidfd) {
            Ok(pid) => VcpuPlaces::find(pid, &said),
            Err(why) => Err(why),
        };
        Ok(())
    }

    fn said_of_registers(&mut self) -> Result<String, MachineError> {
        let arguments = json!({ "command-line": "info registers -a" });
        let answer = self.qmp.execute("human-monitor-command", arguments, QMP_TIMEOUT)?;
        Ok(answer.as_str().unwrap_or_default().to_string())
    }

    /// Whether the thread that serves QEMU goes on.
    fn is_served(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// The end of a machine whose serving thread ended without a word.
    fn unserved(&mut self) -> VmEvent {
        self.ended = true;
        let stderr = "the thread that serves QEMU ended early; this is a bug of ktstr".to_string();
        VmEvent::Exited(VmExit::Failed { code: -1, stderr })
    }

    /// The vCPUs' threads, asked for once.
    /// QEMU isn't asked in deterministic mode: its vCPUs share a thread, and nothing that runs there is to be disturbed.
    fn threads(&mut self) -> &VcpuThreads {
        let shared = self.bell.is_some();
        self.vcpus.get_or_insert_with(|| {
            if shared { VcpuThreads::default() } else { VcpuThreads::of(&mut self.qmp) }
        })
    }

    /// QEMU's debug stub, which is started when it is first asked for.
    fn gdb(&mut self) -> Result<&mut Gdb, MachineError> {
        if self.bell.is_some() {
            return Err(MachineError::Refused {
                doing: "watching memory for writes".to_string(),
                answer: "in deterministic mode the stops would change what the guest does; use tcg"
                    .to_string(),
            });
        }
        if self.gdb.is_none() {
            let (ours, theirs) =
                UnixStream::pair().map_err(MachineError::os("making a socket pair for QEMU's debug stub"))?;
            self.hand_over("gdb", &File::from(OwnedFd::from(theirs)))?;
            let address = json!({ "type": "fd", "data": { "str": "gdb" } });
            let backend = json!({ "type": "socket", "data": { "addr": address, "server": false } });
            self.execute("chardev-add", json!({ "id": "gdb", "backend": backend }))?;
            let answer =
                self.execute("human-monitor-command", json!({ "command-line": "gdbserver chardev:gdb" }))?;
            started_stub(&answer)?;
            self.gdb = Some(Gdb::new(ours, self.teller.clone())?);
        }
        self.gdb.as_mut().ok_or_else(|| MachineError::Gone { doing: "asking the debug stub".to_string() })
    }

    /// Counts from `begin` until now as the machine's setup.
    pub(crate) fn set_up(&mut self, begin: Instant) {
        self.setup = begin.elapsed();
    }
}

/// The process that a pidfd is of (`Pid:` in its fdinfo, proc_pid_fdinfo(5)).
fn pid_of(pidfd: &OwnedFd) -> Result<u32, String> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let text = std::fs::read_to_string(&path).map_err(|e| format!("reading {path}: {e}"))?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    pid.ok_or_else(|| format!("reading {path}: it names no process that lives"))
}

/// A command of the human monitor succeeds silently or, if it has something to say, with
/// `Waiting for gdb connection …`.
fn started_stub(answer: &Value) -> Result<(), MachineError> {
    let text = answer.as_str().unwrap_or_default().trim();
    if text.is_empty() || text.starts_with("Waiting for gdb connection") {
        return Ok(());
    }
    Err(MachineError::Refused {
        doing: "starting QEMU's debug stub".to_string(),
        answer: format!("{text:?}"),
    })
}

impl Vm for QemuVm {
    fn next_event(&mut self, timeout: Duration) -> Result<Option<VmEvent>, MachineError> {
        if self.ended {
            return Err(MachineError::Gone { doing: "waiting for the machine".to_string() });
        }
        match self.events.recv_timeout(timeout) {
            Ok(event) => {
                self.shared.queued.fetch_sub(event.room(), Ordering::Relaxed);
                self.ended |= matches!(event, VmEvent::Exited(_));
                Ok(Some(event))
            }
            // Our own sender keeps the channel open when the serving thread is gone; what it sent
            // last is there before it ends.
            Err(RecvTimeoutError::Timeout) if !self.is_served() => match self.events.try_recv() {
                Ok(VmEvent::Exited(exit)) => {
                    self.ended = true;
                    Ok(Some(VmEvent::Exited(exit)))
                }
                Ok(event) => Ok(Some(event)),
                Err(_) => Ok(Some(self.unserved())),
            },
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Ok(Some(self.unserved())),
        }
    }

    fn pause(&mut self) -> Result<(), MachineError> {
        self.qmp.execute("stop", json!({}), QMP_TIMEOUT).map(drop)
    }

    fn resume(&mut self) -> Result<(), MachineError> {
        self.go_on()
    }

    fn registers(&mut self) -> Result<Vec<VcpuRegisters>, MachineError> {
        if self.ended {
            let text = self.shared.last_registers.lock().unwrap_or_else(PoisonError::into_inner);
            let last = registers::parse(&text);
            let gone = || MachineError::Gone { doing: "reading registers".to_string() };
            return if last.is_empty() { Err(gone()) } else { Ok(last) };
        }
        if self.at_bell {
            let doing = || "reading registers of a guest at its bell".to_string();
            let places = self
                .places
                .as_ref()
                .map_err(|why| MachineError::Refused { doing: doing(), answer: why.clone() })?;
            return places.read().map_err(MachineError::os(doing()));
        }
        let text = self.said_of_registers()?;
        let registers = registers::parse(&text);
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
        self.threads().times()
    }

    fn vcpu_threads(&mut self) -> Option<ktstr_machine::VcpuThreads> {
        let ids = self.threads().ids()?;
        Some(ktstr_machine::VcpuThreads { ids, guest_mode: false })
    }

    fn await_bell(&mut self, patience: Duration) -> Result<bool, MachineError> {
        match &mut self.bell {
            Some(bell) => bell.wait(patience)?,
            None => return Ok(false),
        }
        self.check_turns()?;
        self.at_bell = true;
        Ok(true)
    }

    fn let_go(&mut self) -> Result<(), MachineError> {
        self.at_bell = false;
        match &mut self.bell {
            Some(bell) => bell.take(),
            None => Ok(()),
        }
    }

    fn watch(&mut self, address: u64, bytes: usize) -> Result<(), MachineError> {
        self.gdb()?.watch(address, bytes)
    }

    fn unwatch(&mut self, address: u64, bytes: usize) -> Result<(), MachineError> {
        self.gdb()?.unwatch(address, bytes)
    }

    fn write_memory(&mut self, address: u64, bytes: &[u8]) -> Result<(), MachineError> {
        self.ram.write(&self.nodes, address, bytes)
    }

    fn ram_files(&self) -> Vec<RamFile> {
        self.ram.files(&self.nodes)
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
