//! Getting a thread out of the guest: a real-time signal whose handler sets
//! `kvm_run.immediate_exit` of the vCPU that the interrupted thread runs.
//!
//! The flag closes the gap between the last look at what is wanted and entering the
//! guest: a signal in that gap makes `KVM_RUN` return at once.

use crate::VcpuError;
use kvm_bindings::kvm_run;
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ptr::{addr_of_mut, null_mut};
use std::sync::OnceLock;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

thread_local! {
    // Const-initialised and without a destructor: reading it in a signal handler
    // allocates nothing.
    static RUNNING: Cell<*mut kvm_run> = const { Cell::new(null_mut()) };
}

/// The signal that kicks.
pub(crate) fn signal() -> c_int {
    SIGRTMIN()
}

/// Installs the handler, once a process.
pub(crate) fn install() -> Result<(), VcpuError> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let signal = signal();
    let installed = INSTALLED
        .get_or_init(|| register_signal_handler(signal, handler).map_err(vmm_sys_util::errno::Error::errno));
    installed.map_err(|code| VcpuError::Signal { signal, source: std::io::Error::from_raw_os_error(code) })
}

/// While it lives, kicks of this thread reach the vCPU it was made for.
pub(crate) struct Kickable(());

impl Kickable {
    /// # Safety
    /// `run` must stay mapped until the value is dropped, on the same thread.
    pub(crate) unsafe fn new(run: *mut kvm_run) -> Self {
        RUNNING.with(|cell| cell.set(run));
        Self(())
    }
}

impl Drop for Kickable {
    fn drop(&mut self) {
        RUNNING.with(|cell| cell.set(null_mut()));
    }
}

extern "C" fn handler(_signal: c_int, _info: *mut libc::siginfo_t, _context: *mut c_void) {
    RUNNING.with(|cell| {
        let run = cell.get();
        if !run.is_null() {
            // SAFETY: `Kickable::new` was promised that it is mapped as long as it is
            // set, and this thread, which alone changes it, is here. KVM reads the
            // byte at any time, so it is written as a whole.
            unsafe { addr_of_mut!((*run).immediate_exit).write_volatile(1) };
        }
    });
}
