//! A running machine.

use crate::memory::Ram;
use crate::queue::Queue;
use crate::watches::{self, Watches};
use crate::{command_line, core_file, errors, performance};
use ktstr_machine::{
    Blob, MachineError, MachineSpec, PhysicalMemory, RamFile, VcpuRegisters, VcpuThreads, Vm, VmEvent, VmExit,
};
use ktstr_vmm::{Config, OnTrap, Part, Port, VmEnd, Watch};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a halted vCPU is polled for when the host has CPUs enough.
const HALT_POLL: Duration = Duration::from_micros(200);

pub(crate) struct KvmVm {
    vm: ktstr_vmm::Vm,
    queue: Arc<Queue>,
    watches: Watches,
    setup: Duration,
    paused: bool,
    ended: bool,
}

impl KvmVm {
    pub(crate) fn start(spec: &MachineSpec) -> Result<Self, MachineError> {
        let begin = Instant::now();
        let queue = Arc::new(Queue::default());
        let config = config(spec, &queue)?;
        let vm = ktstr_vmm::Vm::boot(config).map_err(|e| errors::boot(&spec.kernel, e))?;
        Ok(Self::of(vm, queue, begin))
    }

    /// A machine that runs, and whose setup began then.
    pub(crate) fn of(vm: ktstr_vmm::Vm, queue: Arc<Queue>, begin: Instant) -> Self {
        let watches = Watches::of(&queue);
        Self { vm, queue, watches, setup: begin.elapsed(), paused: false, ended: false }
    }

    pub(crate) fn monitor(&self) -> &ktstr_vmm::Vm {
        &self.vm
    }

    fn alive(&self, doing: &str) -> Result<(), MachineError> {
        if self.ended { Err(MachineError::Gone { doing: doing.to_string() }) } else { Ok(()) }
    }

    fn set_watches(&mut self, doing: &str, points: Vec<Watch>) -> Result<(), MachineError> {
        let watches = Watches::of(&self.queue);
        self.still(|vm| {
            vm.watch(&points).map_err(|e| errors::ask(doing, &e))?;
            // Before the machine runs on: its first instruction may be a hit, which is told of by what is set here.
            watches.set(points);
            Ok(())
        })
    }

    /// Lets the machine run, unless it has stopped at a write that its owner is yet to hear of.
    fn run_on(&mut self) {
        if self.watches.settled() {
            self.vm.resume();
        }
    }

    /// Does something while all vCPUs stand still, and leaves them as they were.
    fn still<T>(
        &mut self,
        ask: impl FnOnce(&ktstr_vmm::Vm) -> Result<T, MachineError>,
    ) -> Result<T, MachineError> {
        let ran = !self.paused;
        self.vm.pause().map_err(|e| errors::ask("pausing the machine", &e))?;
        let answer = ask(&self.vm);
        if ran {
            self.run_on();
        }
        answer
    }
}

/// A machine to boot, all that it says going to `queue`.
pub(crate) fn config(spec: &MachineSpec, queue: &Arc<Queue>) -> Result<Config, MachineError> {
    let kernel = File::open(&spec.kernel).map_err(|e| match e.kind() {
        ErrorKind::NotFound => errors::kernel(&spec.kernel, "no such file".to_string()),
        _ => errors::kernel(&spec.kernel, e.to_string()),
    })?;
    let channels = channels(queue);
    let mut config = Config::new(kernel, spec.topology.clone(), spec.memory_mib);
    config.initramfs = spec.initramfs.iter().map(part).collect::<Result<_, _>>()?;
    config.command_line = command_line::build(spec)?;
    config.halt_poll = Some(halt_poll(spec.topology.total_cpus()));
    if let Some(performance) = &spec.performance {
        performance::apply(performance, &mut config);
    }
    config.confine = true;
    config.console = channels.console;
    config.second_serial = channels.last_words;
    config.ports = channels.ports;
    config.on_trap = channels.on_trap;
    config.on_end = channels.on_end;
    Ok(config)
}

/// What a machine, booted or resumed, says it through.
pub(crate) struct Channels {
    pub(crate) console: Box<dyn ktstr_vmm::Sink>,
    pub(crate) last_words: Box<dyn ktstr_vmm::Sink>,
    pub(crate) ports: Vec<Port>,
    pub(crate) on_trap: OnTrap,
    pub(crate) on_end: Box<dyn FnOnce(VmEnd) + Send>,
}

pub(crate) fn channels(queue: &Arc<Queue>) -> Channels {
    let data = Port::new("ktstr.data", sink(queue, VmEvent::Data));
    let stdio = Port::new("ktstr.stdio", sink(queue, VmEvent::Output));
    let watches = Watches::of(queue);
    let told = Arc::clone(queue);
    Channels {
        console: sink(queue, VmEvent::Console),
        last_words: sink(queue, VmEvent::LastWords),
        ports: vec![data, stdio],
        on_trap: Box::new(move |hits| watches.hit(hits)),
        on_end: Box::new(move |end| told.push(VmEvent::Exited(exit(end)))),
    }
}

/// Polling makes wake-ups quick where every vCPU can have a host CPU, and steals time
/// from other vCPUs where not.
pub(crate) fn halt_poll(vcpus: u32) -> Duration {
    halt_poll_on(std::thread::available_parallelism().map_or(1, std::num::NonZero::get), vcpus)
}

fn halt_poll_on(host_cpus: usize, vcpus: u32) -> Duration {
    if vcpus as usize > host_cpus { Duration::ZERO } else { HALT_POLL }
}

fn part(blob: &Blob) -> Result<Part, MachineError> {
    match blob {
        Blob::Bytes(bytes) => Ok(Part::Bytes(Arc::clone(bytes))),
        Blob::File(path) => {
            let doing = format!("opening the initramfs part {}", path.display());
            Ok(Part::File(Arc::new(File::open(path).map_err(MachineError::os(doing))?)))
        }
        Blob::Range { path, from, bytes } => {
            let doing = || format!("reading the initramfs part {}", path.display());
            let mut part = vec![0; usize::try_from(*bytes).unwrap_or(usize::MAX)];
            let file = File::open(path).map_err(MachineError::os(doing()))?;
            file.read_exact_at(&mut part, *from).map_err(MachineError::os(doing()))?;
            Ok(Part::Bytes(Arc::new(part)))
        }
    }
}

pub(crate) fn sink(queue: &Arc<Queue>, event: fn(Vec<u8>) -> VmEvent) -> Box<dyn ktstr_vmm::Sink> {
    let queue = Arc::clone(queue);
    Box::new(move |bytes: &[u8]| queue.push(event(bytes.to_vec())))
}

fn exit(end: VmEnd) -> VmExit {
    match end {
        VmEnd::PowerOff => VmExit::PowerOff,
        VmEnd::Reset => VmExit::Reset,
        VmEnd::Stopped => VmExit::Stopped,
        VmEnd::Failed { why } => VmExit::Failed { code: -1, stderr: why },
    }
}

impl Vm for KvmVm {
    fn next_event(&mut self, timeout: Duration) -> Result<Option<VmEvent>, MachineError> {
        self.alive("waiting for the machine")?;
        let event = self.queue.pop(timeout);
        self.ended = matches!(event, Some(VmEvent::Exited(_)));
        if matches!(event, Some(VmEvent::Written { .. })) {
            self.watches.heard();
            self.paused = true;
        }
        Ok(event)
    }

    fn pause(&mut self) -> Result<(), MachineError> {
        self.alive("pausing the machine")?;
        self.vm.pause().map_err(|e| errors::ask("pausing the machine", &e))?;
        self.paused = true;
        Ok(())
    }

    fn resume(&mut self) -> Result<(), MachineError> {
        self.alive("resuming the machine")?;
        self.paused = false;
        self.run_on();
        Ok(())
    }

    fn registers(&mut self) -> Result<Vec<VcpuRegisters>, MachineError> {
        let registers = self.vm.registers().map_err(|e| errors::ask("reading registers", &e))?;
        let convert = |(cpu, r): (u32, ktstr_vmm::Registers)| VcpuRegisters {
            cpu,
            ip: r.ip,
            sp: r.sp,
            page_table: r.page_table,
            halted: r.halted,
        };
        Ok((0..).zip(registers).map(convert).collect())
    }

    fn dump(&mut self, path: &Path) -> Result<(), MachineError> {
        self.still(|vm| {
            let registers = vm.registers().map_err(|e| errors::ask("reading registers for a core", &e))?;
            let doing = format!("writing a core of the machine to {}", path.display());
            core_file::write(path, vm.ram(), &registers).map_err(MachineError::os(doing))
        })
    }

    fn vcpu_times(&mut self) -> Option<Vec<Duration>> {
        self.vm.vcpu_times()
    }

    fn vcpu_threads(&mut self) -> Option<VcpuThreads> {
        Some(VcpuThreads { ids: self.vm.vcpu_threads()?, guest_mode: true })
    }

    fn watch(&mut self, address: u64, bytes: usize) -> Result<(), MachineError> {
        self.alive(&watches::doing(address, bytes))?;
        let points = self.watches.with(address, bytes)?;
        watches::supported(address, bytes)?;
        self.set_watches(&watches::doing(address, bytes), points)
    }

    fn unwatch(&mut self, address: u64, bytes: usize) -> Result<(), MachineError> {
        let doing = format!("no longer {}", watches::doing(address, bytes));
        self.alive(&doing)?;
        let points = self.watches.without(address, bytes);
        self.set_watches(&doing, points)
    }

    fn write_memory(&mut self, address: u64, bytes: &[u8]) -> Result<(), MachineError> {
        self.alive("writing guest memory")?;
        Ram(self.vm.ram().clone()).write(address, bytes)
    }

    fn ram_files(&self) -> Vec<RamFile> {
        Ram(self.vm.ram().clone()).files()
    }

    fn memory(&self) -> Arc<dyn PhysicalMemory> {
        Arc::new(Ram(self.vm.ram().clone()))
    }

    fn kill(&mut self) -> Result<(), MachineError> {
        if !self.ended {
            self.vm.kill();
        }
        Ok(())
    }

    fn setup_time(&self) -> Option<Duration> {
        Some(self.setup)
    }
}

impl Drop for KvmVm {
    fn drop(&mut self) {
        self.queue.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_halted_vcpu_is_polled_for_where_no_other_needs_its_cpu() {
        let polled = |host, vcpus| halt_poll_on(host, vcpus).as_micros();
        assert_eq!([polled(4, 1), polled(4, 4), polled(4, 5), polled(1, 2)], [200, 200, 0, 0]);
        let host = std::thread::available_parallelism().unwrap().get();
        assert_eq!(halt_poll(u32::try_from(host).unwrap()), HALT_POLL);
        assert_eq!(halt_poll(u32::try_from(host).unwrap() + 1), Duration::ZERO);
    }
}
