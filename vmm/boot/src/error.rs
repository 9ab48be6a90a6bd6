//! What can go wrong while loading a kernel.

/// A kernel that could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootError {
    /// The image can't be read.
    #[error("reading the kernel image: {0}")]
    Read(#[source] std::io::Error),
    /// The image is neither a bzImage nor an ELF file.
    #[error(
        "reading the kernel image: it starts with {start:02x?}; expected a bzImage (arch/x86/boot/bzImage) \
         or an uncompressed vmlinux"
    )]
    Format {
        /// First bytes of the image.
        start: [u8; 4],
    },
    /// A bzImage that can't be entered in 64-bit mode.
    #[error("loading the bzImage: {what}; use a 64-bit kernel of at least Linux 3.8")]
    Protocol {
        /// What is missing.
        what: String,
    },
    /// A vmlinux that says of no entry that this monitor could use.
    #[error("loading the vmlinux: it has no PVH entry note; set CONFIG_PVH=y or use its bzImage")]
    NoEntry,
    /// The loader refused the image.
    #[error("loading the kernel at {at:#x}: {why}")]
    Load {
        /// Guest-physical address.
        at: u64,
        /// The reason.
        why: String,
    },
    /// An image that wants to be where the monitor's own tables are, or to be entered outside of itself.
    #[error(
        "loading the kernel at {start:#x} to {end:#x}, entered at {entry:#x}: expected it above {lowest:#x} and the \
         entry inside of it; is the image damaged?"
    )]
    Misplaced {
        /// Lowest guest-physical address that it takes.
        start: u64,
        /// Address after the last.
        end: u64,
        /// Address of its first instruction.
        entry: u64,
        /// Where the monitor's own tables end.
        lowest: u64,
    },
    /// Too little RAM for what is to be loaded.
    #[error(
        "placing {what} of {bytes} bytes: RAM below the device hole ends at {low_end:#x} and the kernel needs \
         everything up to {kernel_end:#x}; give the machine more memory"
    )]
    NoRoom {
        /// What doesn't fit.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// End of RAM below the hole.
        low_end: u64,
        /// End of the kernel.
        kernel_end: u64,
    },
    /// A command line that can't be passed on.
    #[error("passing the command line of {bytes} bytes: {why}")]
    CommandLine {
        /// Its length.
        bytes: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A part of the initramfs can't be read.
    #[error("reading part {index} of the initramfs, {bytes} bytes: {why}")]
    Initramfs {
        /// Which part, from 0.
        index: usize,
        /// Its length.
        bytes: u64,
        /// The reason.
        why: String,
    },
    /// Something can't be written to guest memory.
    #[error("writing {what} at {at:#x}: {why}")]
    Write {
        /// What was to be written.
        what: &'static str,
        /// Guest-physical address.
        at: u64,
        /// The reason.
        why: String,
    },
}

impl BootError {
    /// A [`Write`](Self::Write), for `map_err`.
    pub(crate) fn write<E: std::fmt::Display>(what: &'static str, at: u64) -> impl FnOnce(E) -> Self {
        move |e| Self::Write { what, at, why: e.to_string() }
    }
}
