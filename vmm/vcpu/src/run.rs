//! The run loop: one state after the other until the vCPU ends.

use crate::control::{State, Want};
use crate::kick::Kickable;
use crate::thread::Shared;
use crate::{Address, End, Machine, arch};
use kvm_bindings::kvm_run;
use kvm_ioctls::{VcpuExit, VcpuFd};
use std::ptr::{addr_of, from_mut};
use std::sync::PoisonError;

/// Why a vCPU left the guest for good or for a while.
enum Left {
    Asked,
    Trapped(arch::Trap),
    Ended(End),
}

/// Tells of the end however the thread comes to it, a panic in a device included.
struct Farewell<'a> {
    shared: &'a Shared,
    machine: &'a dyn Machine,
    end: Option<End>,
}

impl Drop for Farewell<'_> {
    fn drop(&mut self) {
        let panicked =
            || End::Failed { why: "its thread panicked; this is a bug of the monitor".to_string() };
        self.shared.control.set(State::Ended);
        self.machine.ended(self.shared.index, self.end.take().unwrap_or_else(panicked));
    }
}

pub(crate) fn main(shared: &Shared, machine: &dyn Machine) {
    let mut farewell = Farewell { shared, machine, end: None };
    farewell.end = Some(live(shared, machine));
}

fn live(shared: &Shared, machine: &dyn Machine) -> End {
    if let Err(why) = machine.starting(shared.index) {
        return End::Failed { why };
    }
    loop {
        match shared.control.rest() {
            Want::Stop | Want::Pause => return End::Stopped,
            Want::Run => {}
        }
        match run(shared, machine) {
            Left::Asked => {}
            Left::Trapped(trap) => {
                shared.control.ask(Want::Pause);
                shared.control.set(State::Paused);
                machine.trapped(shared.index, trap);
            }
            Left::Ended(end) => return end,
        }
    }
}

fn run(shared: &Shared, machine: &dyn Machine) -> Left {
    let mut fd = shared.fd.lock().unwrap_or_else(PoisonError::into_inner);
    let run = from_mut(fd.get_kvm_run());
    // SAFETY: the mapping lives as long as `fd`, which is locked until after this
    // guard is dropped, at the end of this function.
    let _kickable = unsafe { Kickable::new(run) };
    loop {
        // In this order: a kick after this line makes KVM_RUN return at once, one
        // before it was for a wish that the next line sees.
        fd.set_kvm_immediate_exit(0);
        if shared.control.want() != Want::Run {
            return finish_access(&mut fd, shared, machine, run);
        }
        match enter(&mut fd, shared, machine, run) {
            Some(left) => return left,
            None => continue,
        }
    }
}

/// KVM completes a trapped read or write on the next entry only: without this the
/// registers would show the instruction half done.
fn finish_access(fd: &mut VcpuFd, shared: &Shared, machine: &dyn Machine, run: *mut kvm_run) -> Left {
    fd.set_kvm_immediate_exit(1);
    let left = enter(fd, shared, machine, run);
    fd.set_kvm_immediate_exit(0);
    left.unwrap_or(Left::Asked)
}

fn enter(fd: &mut VcpuFd, shared: &Shared, machine: &dyn Machine, run: *mut kvm_run) -> Option<Left> {
    match fd.run() {
        Ok(VcpuExit::IoIn(port, data)) => {
            let address = Address::Port(port);
            data.chunks_mut(port_width(run)).for_each(|piece| machine.read(address, piece));
            None
        }
        Ok(VcpuExit::IoOut(port, data)) => {
            let address = Address::Port(port);
            data.chunks(port_width(run)).for_each(|piece| machine.write(address, piece));
            None
        }
        Ok(VcpuExit::MmioRead(address, data)) => {
            machine.read(Address::Memory(address), data);
            None
        }
        Ok(VcpuExit::MmioWrite(address, data)) => {
            machine.write(Address::Memory(address), data);
            None
        }
        Ok(VcpuExit::Debug(debug)) => {
            let points = shared.points.lock().unwrap_or_else(PoisonError::into_inner);
            Some(Left::Trapped(arch::trap(&debug, &points)))
        }
        Ok(VcpuExit::Hlt) => Some(Left::Ended(End::Halted)),
        Ok(VcpuExit::Shutdown) => Some(Left::Ended(End::Shutdown)),
        Ok(VcpuExit::Intr) => None,
        Ok(other) => {
            let what = format!("{other:?}");
            Some(Left::Ended(End::Failed { why: describe(fd, &what) }))
        }
        // A signal, or a vCPU that still waits to be started.
        Err(e) if e.errno() == libc::EINTR || e.errno() == libc::EAGAIN => None,
        Err(e) => {
            let what = format!("KVM_RUN failed: {e}");
            Some(Left::Ended(End::Failed { why: describe(fd, &what) }))
        }
    }
}

/// Width of the port access in `run`: a string instruction hands over several at once.
fn port_width(run: *const kvm_run) -> usize {
    // SAFETY: called while the exit is one of port I/O, so `io` is what the union
    // holds; `run` is mapped as long as the vCPU, whose loop calls this.
    let width = unsafe { addr_of!((*run).__bindgen_anon_1.io.size).read() };
    usize::from(width).max(1)
}

fn describe(fd: &VcpuFd, what: &str) -> String {
    match arch::registers(fd) {
        Ok(registers) => format!("{what}; {registers}"),
        Err(e) => format!("{what}; registers unknown: {e}"),
    }
}
