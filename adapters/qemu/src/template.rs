//! Saving a booted machine, and resuming copies of it.
//!
//! RAM is a shared file of ours, so QEMU's migration stream (with the capability
//! `x-ignore-shared`) holds device state only: 300 KB. A resumed machine gets a copy
//! of the RAM, with its work written into the mailbox, before it executes anything.

use crate::args::{self, ChildFds, Start};
use crate::fds::{Channels, NodeRam};
use crate::host_tsc::{self, Moment};
use crate::saved::{self, CONSOLE, STATE, TSC};
use crate::vm::{Beginning, QemuVm};
use ktstr_machine::mailbox::layout::READY;
use ktstr_machine::{Accel, ConsoleTail, MAX_RESTARTS, MachineError, MachineSpec, Vm, VmEvent, VmExit, Wake};
use serde_json::{Value, json};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Version of the files and of what is done to make them.
const LAYOUT: u32 = 3;
/// How long saving or loading 300 KB may take on a swamped host.
const TRANSFER: Duration = Duration::from_secs(60);
const CONSOLE_LINES: usize = 400;

/// Text that differs whenever a template can't be used: the program (by what an
/// update changes of its file) and the command line, descriptors and kernel path
/// aside. Emulation shows the guest nothing of the host's CPU.
pub(crate) fn identity(program: &Path, spec: &MachineSpec) -> Result<String, MachineError> {
    let doing = || format!("looking at {}", program.display());
    let file = std::fs::metadata(program).map_err(MachineError::os(doing()))?;
    let nodes = spec.topology.num_numa_nodes() as usize;
    let bell = (spec.accel == Accel::Deterministic).then_some(0);
    let ram = vec![0; nodes];
    let fds = ChildFds {
        ram,
        initramfs: 0,
        console: 0,
        last_words: 0,
        data: 0,
        stdio: 0,
        qmp: 0,
        bell,
        turns: bell,
    };
    let spec = MachineSpec { kernel: "kernel".into(), ..spec.clone() };
    // The rate of the counter is measured, and looked at when a machine is resumed.
    let args = args::build(&spec, &fds, Start::Prepare, None)?.join("\n");
    Ok(format!(
        "qemu layout {LAYOUT}\n{} {} bytes, {}.{:09}\n{args}\n",
        program.display(),
        file.len(),
        file.mtime(),
        file.mtime_nsec()
    ))
}

/// Boots `spec` until its init stops it, and saves it in `dir`. A kernel that QEMU itself broke, being one
/// that does so, is booted again.
pub(crate) fn prepare(
    program: &Path,
    spec: &MachineSpec,
    pages: u64,
    dir: &Path,
    limit: Duration,
    loses_code_patches: &dyn Fn() -> bool,
) -> Result<(), MachineError> {
    let path = dir.join(STATE);
    let doing = || format!("making {}", path.display());
    let state = File::create_new(&path).map_err(MachineError::os(doing()))?;
    let tsc_khz = Moment::now().and_then(Moment::khz);
    let mut restarts = 0;
    let (ram, console) = loop {
        match boot_and_save(program, spec, &state, tsc_khz, limit) {
            Err(MachineError::NotReady { lost_code_patch: true, .. })
                if restarts < MAX_RESTARTS && loses_code_patches() =>
            {
                restarts += 1;
            }
            ended => break ended?,
        }
    };
    state.sync_all().map_err(MachineError::os(format!("writing {}", path.display())))?;
    saved::save_ram(&ram, pages, dir)?;
    let path = dir.join(TSC);
    std::fs::write(&path, tsc_khz.unwrap_or_default().to_string())
        .map_err(MachineError::os(format!("writing {}", path.display())))?;
    let path = dir.join(CONSOLE);
    std::fs::write(&path, console.last(CONSOLE_LINES).join("\n"))
        .map_err(MachineError::os(format!("writing {}", path.display())))
}

/// Boots the machine, writes its devices' state to `state`, which has none yet, and returns its RAM and what it printed.
fn boot_and_save(
    program: &Path,
    spec: &MachineSpec,
    state: &File,
    tsc_khz: Option<u32>,
    limit: Duration,
) -> Result<(Vec<NodeRam>, ConsoleTail), MachineError> {
    let channels = Channels::create(spec, &spec.initramfs)?;
    let ram = channels.ram.clone();
    let beginning = Beginning { start: Start::Prepare, begin: Instant::now(), tsc_khz };
    let mut vm = QemuVm::start(program, spec, channels, beginning)?;
    let console =
        stop_and_save(&mut vm, spec.accel, state, limit).map_err(|e| killed(&mut vm).unwrap_or(e))?;
    vm.kill()?;
    Ok((ram, console))
}

/// Returns what the machine printed.
fn stop_and_save(
    vm: &mut QemuVm,
    accel: Accel,
    state: &File,
    limit: Duration,
) -> Result<ConsoleTail, MachineError> {
    let console = wait_until_ready(vm, limit)?;
    if accel == Accel::Deterministic {
        vm.check_turns()?;
        check_quiet(vm, &console)?;
    }
    save_state(vm, state)?;
    Ok(console)
}

/// The error of a machine that somebody else has killed: whatever else failed did so for it.
fn killed(vm: &mut QemuVm) -> Option<MachineError> {
    loop {
        match vm.next_event(Duration::from_millis(200)) {
            Ok(Some(VmEvent::Exited(VmExit::Killed { signal, .. }))) => return Some(killed_by(signal)),
            Ok(Some(VmEvent::Exited(_)) | None) | Err(_) => return None,
            Ok(Some(_)) => {}
        }
    }
}

fn killed_by(signal: i32) -> MachineError {
    MachineError::Killed { doing: "saving a booted machine".to_string(), signal }
}

/// Follows the machine to its stop; returns what it printed.
fn wait_until_ready(vm: &mut QemuVm, limit: Duration) -> Result<ConsoleTail, MachineError> {
    let deadline = Instant::now() + limit;
    let mut console = ConsoleTail::new(CONSOLE_LINES);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match vm.next_event(left)? {
            Some(VmEvent::Console(bytes)) => console.push(&bytes),
            Some(VmEvent::Data(_) | VmEvent::Output(_) | VmEvent::LastWords(_)) => {}
            Some(VmEvent::Paused) => break,
            Some(VmEvent::Exited(VmExit::Killed { signal, .. })) => return Err(killed_by(signal)),
            Some(VmEvent::Exited(exit)) => return Err(MachineError::ended_before_ready(&exit, &console)),
            Some(VmEvent::Written { .. }) => {}
            None => {
                return Err(MachineError::not_ready(format!("it was not ready within {limit:?}"), &console));
            }
        }
    }
    // What was printed before the stop may come after the news of it.
    while let Some(event) = vm.next_event(Duration::from_millis(20))? {
        match event {
            VmEvent::Console(bytes) => console.push(&bytes),
            VmEvent::Exited(VmExit::Killed { signal, .. }) => return Err(killed_by(signal)),
            _ => {}
        }
    }
    match console.find_last(READY) {
        Some(_) => Ok(console),
        None => Err(MachineError::not_ready("it stopped before it was ready".to_string(), &console)),
    }
}

/// QEMU stops the vCPUs a moment after the watchdog ran out, at a time of the host's
/// choosing: nothing may be running on them.
fn check_quiet(vm: &mut QemuVm, console: &ConsoleTail) -> Result<(), MachineError> {
    let at_work: Vec<String> = vm
        .registers()?
        .iter()
        .filter(|r| !r.halted)
        .map(|r| format!("vCPU {} at {:#x}", r.cpu, r.ip))
        .collect();
    if at_work.is_empty() {
        return Ok(());
    }
    let why = format!(
        "not all vCPUs were at rest when it stopped ({}), so it would not be the same each time",
        at_work.join(", ")
    );
    Err(MachineError::not_ready(why, console))
}

fn save_state(vm: &mut QemuVm, state: &File) -> Result<(), MachineError> {
    leave_out_ram(vm)?;
    vm.hand_over(STATE, state)?;
    vm.execute("migrate", json!({ "uri": format!("fd:{STATE}") }))?;
    wait_for("saving the machine's state", || {
        let status = vm.execute("query-migrate", json!({}))?;
        match status["status"].as_str() {
            Some("completed") => Ok(Some(())),
            Some("failed" | "cancelled") => Err(refused("saving the machine's state", &status)),
            _ => Ok(None),
        }
    })
}

fn leave_out_ram(vm: &mut QemuVm) -> Result<(), MachineError> {
    let capability = json!({ "capability": "x-ignore-shared", "state": true });
    vm.execute("migrate-set-capabilities", json!({ "capabilities": [capability] })).map(drop)
}

/// Resumes a private copy of what `dir` holds.
pub(crate) fn resume(
    program: &Path,
    dir: &Path,
    spec: &MachineSpec,
    wake: &Wake,
) -> Result<QemuVm, MachineError> {
    let begin = Instant::now();
    let tsc = Moment::now().filter(|_| spec.accel == Accel::Tcg);
    let path = dir.join(STATE);
    let state = File::open(&path).map_err(|e| saved::broken(dir, format!("opening {STATE}: {e}")))?;
    let channels = Channels::create(spec, &[])?;
    let ram = channels.ram.clone();
    // QEMU takes a while to start and does not look at the RAM before it is told to.
    let copy = {
        let (dir, work, wake) = (dir.to_path_buf(), spec.initramfs.clone(), wake.clone());
        std::thread::Builder::new()
            .name("ktstr-ram".to_string())
            .spawn(move || {
                ram.iter().enumerate().try_for_each(|(n, node)| saved::load_node(node, n, &dir))?;
                saved::fill_mailbox(&ram, &work, &wake, &dir)
            })
            .map_err(MachineError::os("starting the thread that copies RAM"))?
    };
    let beginning = Beginning { start: Start::Resume, begin, tsc_khz: None };
    let mut vm = QemuVm::start(program, spec, channels, beginning)?;
    leave_out_ram(&mut vm)?;
    copy.join().map_err(|_| MachineError::Gone { doing: "copying RAM".to_string() })??;
    vm.hand_over(STATE, &state)?;
    vm.execute("migrate-incoming", json!({ "uri": format!("fd:{STATE}") }))?;
    wait_for("loading the machine's state", || {
        let status = vm.execute("query-status", json!({}))?;
        Ok((status["status"] != "inmigrate").then_some(()))
    })?;
    if spec.accel == Accel::Deterministic {
        settle(&mut vm)?;
        vm.check_turns()?;
        vm.learn_places()?;
    }
    check_tsc(dir, tsc)?;
    vm.go_on()?;
    vm.set_up(begin);
    Ok(vm)
}

/// A machine that was saved where the time stamp counter runs at another rate would have
/// a clock that runs wrong.
fn check_tsc(dir: &Path, since: Option<Moment>) -> Result<(), MachineError> {
    let Some(khz) = since.and_then(Moment::khz) else { return Ok(()) };
    let told = std::fs::read_to_string(dir.join(TSC)).ok().and_then(|text| text.parse().ok());
    match told {
        Some(told) if host_tsc::is_same(told, khz) => Ok(()),
        _ => {
            let told = told.unwrap_or(0);
            let why = format!("it was told of a time stamp counter of {told} kHz, this host's has {khz} kHz");
            Err(saved::broken(dir, why))
        }
    }
}

/// Waits until QEMU has freed what loading made it drop. Its RCU thread would do so some
/// time later and kick the vCPUs for it (`rr_force_rcu`, accel/tcg/tcg-accel-ops-rr.c),
/// which ends their turns at instants of the host's choosing. There is no command for
/// it, but one that fails to add a device waits for just that (`qmp_device_add`,
/// softmmu/qdev-monitor.c).
fn settle(vm: &mut QemuVm) -> Result<(), MachineError> {
    match vm.execute("device_add", json!({ "driver": "ktstr-no-such-device" })) {
        Err(MachineError::Refused { .. }) => Ok(()),
        Err(other) => Err(other),
        Ok(answer) => Err(refused("settling the machine: adding no device", &answer)),
    }
}

fn refused(doing: &str, answer: &Value) -> MachineError {
    MachineError::Refused { doing: doing.to_string(), answer: answer.to_string() }
}

/// Asks again and again; each answer takes about as long as the pause in between.
fn wait_for(
    doing: &str,
    mut ask: impl FnMut() -> Result<Option<()>, MachineError>,
) -> Result<(), MachineError> {
    let deadline = Instant::now() + TRANSFER;
    while ask()?.is_none() {
        if Instant::now() > deadline {
            return Err(MachineError::NoAnswer { doing: doing.to_string(), after: TRANSFER });
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
