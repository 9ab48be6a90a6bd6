//! What happens to a thread that breaks its filter: `SIGSYS`, whose handler refuses the call and takes a note.

use crate::arch::confine::{name, refuse};
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::io::{Cursor, Write};
use std::sync::OnceLock;
use vmm_sys_util::signal::register_signal_handler;

/// `siginfo_t._sifields._sigsys._syscall` (include/uapi/asm-generic/siginfo.h), after three words, padding and a pointer.
const CALL_OFFSET: usize = 24;

thread_local! {
    // Const-initialised and without a destructor: a signal handler may use them.
    static CONFINED: Cell<bool> = const { Cell::new(false) };
    static VIOLATED: Cell<Option<i64>> = const { Cell::new(None) };
}

/// Installs the handler, once a process.
pub(super) fn install() -> Result<(), String> {
    static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();
    let installed =
        INSTALLED.get_or_init(|| register_signal_handler(libc::SIGSYS, handler).map_err(|e| e.to_string()));
    installed.clone()
}

/// From here on a `SIGSYS` of this thread is one of its filter.
pub(super) fn begin() {
    CONFINED.with(|confined| confined.set(true));
}

/// What this thread did that it may not, the first time it is asked after that.
pub(crate) fn violation() -> Option<String> {
    let call = VIOLATED.with(Cell::take)?;
    let thread = std::thread::current();
    Some(format!(
        "thread {} asked for the system call {} ({call}), which it may not: either a guest has got hold of it, or a sink \
         or device does what confined threads can't; don't confine the machine to tell these apart",
        thread.name().unwrap_or("?"),
        name(call).unwrap_or("of that number"),
    ))
}

extern "C" fn handler(_signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    if !CONFINED.with(Cell::get) {
        // Somebody else's filter: what would have happened without us.
        // SAFETY: no pointers; both are safe in a signal handler.
        unsafe {
            libc::signal(libc::SIGSYS, libc::SIG_DFL);
            libc::raise(libc::SIGSYS);
        }
        return;
    }
    // SAFETY: the kernel gives a handler with SA_SIGINFO a whole siginfo_t, whose call number is there.
    let call = unsafe { info.cast::<u8>().add(CALL_OFFSET).cast::<i32>().read() };
    VIOLATED.with(|violated| {
        if violated.get().is_none() {
            violated.set(Some(i64::from(call)));
        }
    });
    tell(call);
    // SAFETY: the kernel gives it the context that it goes back to.
    unsafe { refuse(context) };
}

/// One line on standard error, without a lock or an allocation.
fn tell(call: i32) {
    let mut line = [0u8; 128];
    let mut cursor = Cursor::new(&mut line[..]);
    let name = name(i64::from(call)).unwrap_or("of that number");
    // It fits: names are short.
    let _ = writeln!(cursor, "ktstr-vmm: refused the system call {name} ({call}) of a confined thread");
    let length = cursor.position() as usize;
    // SAFETY: the bytes are `line`'s.
    unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), length) };
}
