//! The hypervisor port over qemu-system: the modes `tcg` and `deterministic`.
//!
//! One QEMU process a machine. All it needs is handed over as inherited file
//! descriptors (RAM and initramfs as memfds, console and data port as pipes, QMP
//! as a socket pair), so that nothing is left in any file system however either
//! process ends; the process is told to die with the thread that started it.
//!
//! May touch: processes, memfds, `$PATH`. Knows nothing of tests.

mod args;
mod bell;
mod fds;
mod find;
mod gdb;
mod host_tsc;
mod kernel_image;
mod memory;
mod process;
mod qmp;
mod registers;
mod saved;
mod still;
mod template;
mod turns;
mod vcpu_threads;
mod vm;

pub use find::Qemu;
