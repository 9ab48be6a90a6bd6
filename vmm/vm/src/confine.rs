//! What the monitor's threads may ask of the kernel: a seccomp filter for each.
//!
//! A guest that finds a fault in a device gets a thread that can run the guest, move bytes and wait, and nothing else.
//! The filter is the thread's own, so that the rest of the process is as free as before; it needs no privilege, only
//! that the thread may gain none any more (`no_new_privs`, Documentation/userspace-api/no_new_privs.rst, which is the
//! thread's own, too).
//!
//! What isn't allowed is not done (`EPERM`), told on standard error, and ends the machine with a reason that names the
//! thread and the system call: a silent refusal would be taken for something else.

mod rules;
mod trap;

pub(crate) use rules::{KVMIO, Role};
pub(crate) use trap::violation;

/// Confines the calling thread for good.
///
/// # Errors
/// A kernel without seccomp filters, in words.
pub(crate) fn confine(role: Role) -> Result<(), String> {
    let filter = rules::filter(role).map_err(|e| format!("making the seccomp filter of this thread: {e}"))?;
    trap::install().map_err(|e| format!("installing the handler of SIGSYS: {e}"))?;
    trap::begin();
    seccompiler::apply_filter(&filter).map_err(|e| {
        format!("confining this thread by a seccomp filter: {e}; use a kernel with CONFIG_SECCOMP_FILTER, or don't confine")
    })
}

#[cfg(test)]
mod tests;
