//! Every guest-physical address and interrupt line that the monitor chooses on x86-64.
//!
//! ```text
//! 0x0000_0500  GDT for the first instruction
//! 0x0000_6000  hvm_start_info, module list, memory map (PVH entry)
//! 0x0000_7000  boot_params (64-bit entry)
//! 0x0000_8ff0  stack of the first instructions, growing down
//! 0x0000_9000  page tables: PML4, PDPT, 4 page directories
//! 0x0002_0000  command line
//! 0x0009_fc00  end of usable low memory
//! 0x000e_0000  RSDP, where firmware-less guests search for it
//! 0x0010_0000  ACPI tables, 1 MiB
//! 0x0020_0000  RAM; the kernel goes where it prefers, initramfs at the end
//! 0xc000_0000  hole: virtio-mmio, IOAPIC, local APIC, KVM's own pages
//! 0x1_0000_0000  the rest of the RAM
//! ```

/// End of RAM below the hole.
pub const LOW_RAM_END: u64 = 0xc000_0000;
/// Start of RAM above the hole.
pub const HIGH_RAM_START: u64 = 1 << 32;
/// No RAM at or above this: 46 bits, what every x86-64 host with KVM can address.
pub const RAM_END: u64 = 1 << 46;

/// GDT that the first instruction runs with.
pub const GDT: u64 = 0x500;
/// `struct hvm_start_info` (include/xen/interface/hvm/start_info.h).
pub const PVH_START_INFO: u64 = 0x6000;
/// `struct hvm_modlist_entry`, one.
pub const PVH_MODULES: u64 = 0x6040;
/// `struct hvm_memmap_table_entry`, up to [`PVH_MEMORY_MAP_ENTRIES`].
pub const PVH_MEMORY_MAP: u64 = 0x6080;
/// Entries that fit before [`BOOT_PARAMS`].
pub const PVH_MEMORY_MAP_ENTRIES: usize = ((BOOT_PARAMS - PVH_MEMORY_MAP) / 24) as usize;
/// `struct boot_params` (Documentation/arch/x86/zero-page.rst), one page.
pub const BOOT_PARAMS: u64 = 0x7000;
/// Top of the stack of the first instructions.
pub const BOOT_STACK: u64 = 0x8ff0;
/// Page tables of the 64-bit entry: PML4, PDPT and four page directories that map
/// the first 4 GiB to themselves.
pub const PAGE_TABLES: u64 = 0x9000;
/// Kernel command line, zero-terminated.
pub const COMMAND_LINE: u64 = 0x2_0000;
/// Room for the command line: `COMMAND_LINE_SIZE` (arch/x86/include/asm/setup.h).
pub const COMMAND_LINE_BYTES: usize = 2048;
/// End of usable memory below 1 MiB; the extended BIOS data area starts here on a PC.
pub const BELOW_EBDA: u64 = 0x9_fc00;
/// RSDP (ACPI 6.5, 5.2.5.1: 16-byte aligned between 0xe0000 and 0xfffff).
pub const RSDP: u64 = 0xe_0000;
/// The other ACPI tables.
pub const ACPI: u64 = 0x10_0000;
/// End of the room for ACPI tables, and start of usable memory.
pub const ACPI_END: u64 = 0x20_0000;

/// First virtio-mmio device.
pub const VIRTIO_MMIO: u64 = 0xd000_0000;
/// Bytes from one virtio-mmio device to the next.
pub const VIRTIO_MMIO_STRIDE: u64 = 0x1000;
/// Interrupt line of the first virtio-mmio device; the next ones follow.
pub const VIRTIO_MMIO_IRQ: u32 = 5;
/// virtio-mmio devices that have an interrupt line: the IOAPIC has 24.
pub const VIRTIO_MMIO_MAX: usize = 18;
/// IOAPIC (`IOAPIC_DEFAULT_BASE_ADDRESS` of KVM).
pub const IOAPIC: u32 = 0xfec0_0000;
/// Local APIC (`APIC_DEFAULT_PHYS_BASE`).
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// One page for KVM's identity map (`KVM_SET_IDENTITY_MAP_ADDR`).
pub const KVM_IDENTITY_MAP: u64 = 0xfeff_c000;
/// Three pages for KVM's task-state segment (`KVM_SET_TSS_ADDR`).
pub const KVM_TSS: u64 = 0xfeff_d000;

/// First serial port, `ttyS0`.
pub const SERIAL_1: u16 = 0x3f8;
/// Its interrupt line.
pub const SERIAL_1_IRQ: u32 = 4;
/// Second serial port, `ttyS1`.
pub const SERIAL_2: u16 = 0x2f8;
/// Its interrupt line.
pub const SERIAL_2_IRQ: u32 = 3;
/// ACPI reset register; one byte.
pub const RESET_PORT: u16 = 0x600;
/// ACPI sleep control register; one byte.
pub const SLEEP_CONTROL_PORT: u16 = 0x601;
/// ACPI sleep status register; one byte.
pub const SLEEP_STATUS_PORT: u16 = 0x602;
/// Command port of a PC's keyboard controller, the last resort of a reset.
pub const KEYBOARD_COMMAND_PORT: u16 = 0x64;

/// Where the kernel may put an initramfs for boot protocols with 32-bit fields.
pub const INITRAMFS_END: u64 = LOW_RAM_END;
