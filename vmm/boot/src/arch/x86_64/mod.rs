//! x86-64: a bzImage by the 64-bit boot protocol (Documentation/arch/x86/boot.rst),
//! a vmlinux by PVH (Documentation/arch/x86/boot.rst, `XEN_ELFNOTE_PHYS32_ENTRY`).

mod bzimage;
mod memory_map;
mod pvh;

pub use memory_map::{MapEntry, MapKind, memory_map};

use crate::initramfs;
use crate::{Boot, BootError, Loaded};
use ktstr_vmm_memory::layout::{ACPI_END, COMMAND_LINE, COMMAND_LINE_BYTES};
use std::io::{Read, Seek};
use vm_memory::{Bytes, GuestAddress};

/// How the first vCPU enters the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// In 64-bit mode with paging, `boot_params` in RSI.
    Long {
        /// Address of the first instruction.
        ip: u64,
        /// Address of `boot_params`.
        boot_params: u64,
    },
    /// In 32-bit protected mode without paging, `hvm_start_info` in EBX.
    Protected {
        /// Address of the first instruction.
        ip: u64,
        /// Address of `hvm_start_info`.
        start_info: u64,
    },
}

/// Loads kernel, initramfs, command line and the description of the machine.
///
/// # Errors
/// An image that isn't a kernel, or a machine too small for it.
pub fn load(boot: Boot<'_>) -> Result<Loaded, BootError> {
    let mut start = [0; 4];
    boot.kernel.rewind().map_err(BootError::Read)?;
    boot.kernel.read_exact(&mut start).map_err(BootError::Read)?;
    write_command_line(&boot)?;
    if start == *b"\x7fELF" { load_elf(boot) } else { load_bzimage(boot, start) }
}

fn load_bzimage(boot: Boot<'_>, start: [u8; 4]) -> Result<Loaded, BootError> {
    let image = bzimage::load(boot.ram, boot.kernel, start)?;
    check_place(&image.range, image.range.start.saturating_add(bzimage::ENTRY_64))?;
    let initramfs = place_initramfs(&boot, image.range.end)?;
    let map = memory_map(boot.ram.regions());
    let entry = bzimage::describe(&boot, &image, &initramfs, &map)?;
    Ok(Loaded { entry, kernel: image.range, initramfs })
}

fn load_elf(boot: Boot<'_>) -> Result<Loaded, BootError> {
    let (ip, kernel) = pvh::load(boot.ram, boot.kernel)?;
    check_place(&kernel, ip)?;
    let initramfs = place_initramfs(&boot, kernel.end)?;
    let map = memory_map(boot.ram.regions());
    let entry = pvh::describe(&boot, ip, &initramfs, &map)?;
    Ok(Loaded { entry, kernel, initramfs })
}

/// Refuses a kernel that overwrites what was written for it, and one that is entered outside of itself.
fn check_place(kernel: &std::ops::Range<u64>, entry: u64) -> Result<(), BootError> {
    if kernel.start < ACPI_END || !kernel.contains(&entry) {
        return Err(BootError::Misplaced { start: kernel.start, end: kernel.end, entry, lowest: ACPI_END });
    }
    Ok(())
}

fn place_initramfs(boot: &Boot<'_>, kernel_end: u64) -> Result<std::ops::Range<u64>, BootError> {
    let low_end = boot.ram.low_end();
    if kernel_end > low_end {
        let bytes = kernel_end.saturating_sub(ACPI_END);
        return Err(BootError::NoRoom { what: "the kernel", bytes, low_end, kernel_end });
    }
    initramfs::place(boot.ram.memory(), boot.initramfs, kernel_end, low_end)
}

fn write_command_line(boot: &Boot<'_>) -> Result<(), BootError> {
    let bytes = boot.command_line.len();
    if bytes >= COMMAND_LINE_BYTES {
        return Err(BootError::CommandLine { bytes, why: "the kernel reads at most 2047; pass less" });
    }
    if boot.command_line.bytes().any(|b| b == 0) {
        return Err(BootError::CommandLine { bytes, why: "a zero byte would end it early; leave it out" });
    }
    let mut line = boot.command_line.as_bytes().to_vec();
    line.push(0);
    let memory = boot.ram.memory();
    memory
        .write_slice(&line, GuestAddress(COMMAND_LINE))
        .map_err(BootError::write("the command line", COMMAND_LINE))
}

#[cfg(test)]
mod tests;
