//! Loading a Linux kernel into guest memory and describing the machine to it.
//!
//! [`load`] takes a kernel image, the parts of an initramfs, a command line and the
//! address of the ACPI tables, puts everything into guest memory with one copy each,
//! and says where the first instruction is. It opens no file and starts nothing.

pub mod arch;
mod error;
mod initramfs;

pub use arch::{Entry, load};
pub use error::BootError;
pub use initramfs::Part;

use ktstr_vmm_memory::GuestRam;
use std::fs::File;

/// What is to be booted.
#[derive(Debug)]
pub struct Boot<'a> {
    /// RAM to load into.
    pub ram: &'a GuestRam,
    /// Kernel image; read from its start.
    pub kernel: &'a mut File,
    /// Parts of the initramfs, concatenated, each padded to 4 bytes as the kernel's
    /// unpacker wants it (`unpack_to_rootfs()` in `init/initramfs.c`).
    pub initramfs: &'a [Part],
    /// Kernel command line.
    pub command_line: &'a str,
    /// Guest-physical address of the ACPI RSDP.
    pub rsdp: u64,
}

/// What was put where, as `[start, end)` in guest-physical memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The first instruction and how to get there.
    pub entry: Entry,
    /// The kernel, with the room it needs to unpack itself.
    pub kernel: std::ops::Range<u64>,
    /// The initramfs; empty when there is none.
    pub initramfs: std::ops::Range<u64>,
}
