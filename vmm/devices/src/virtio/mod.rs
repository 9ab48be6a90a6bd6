//! virtio 1.2 devices behind the MMIO transport.

pub mod block;
mod chain;
pub mod console;
pub mod mmio;

pub use block::{Block, BlockState};
pub use console::{Console, ConsoleState, Port};
pub use mmio::{Mmio, MmioState};

use virtio_queue::Queue;
use vm_memory::GuestMemoryMmap;

/// What a guest did that ends a device until it resets it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VirtioError {
    /// A queue or chain that breaks the rules.
    #[error("serving queue {queue}: {source}")]
    Queue {
        /// Index of the queue.
        queue: usize,
        /// What is wrong.
        source: virtio_queue::Error,
    },
    /// A chain that is longer than any driver of this device makes.
    #[error("serving queue {queue}: a chain of {bytes} bytes, at most {limit} expected")]
    ChainTooLong {
        /// Index of the queue.
        queue: usize,
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A chain that makes no sense.
    #[error("serving queue {queue}: a chain with {why}")]
    Chain {
        /// Index of the queue.
        queue: usize,
        /// What it has.
        why: String,
    },
    /// Guest memory that can't be read or written.
    #[error("serving queue {queue}: copying guest memory: {source}")]
    Copy {
        /// Index of the queue.
        queue: usize,
        /// The reason.
        source: std::io::Error,
    },
    /// More answers owed than the driver gives room for.
    #[error("serving the control queue: {owed} answers owed and no buffer given for them")]
    Owed {
        /// Answers that wait.
        owed: usize,
    },
    /// A saved state that isn't this device's.
    #[error("saving or restoring a virtio device: {why}")]
    Unfit {
        /// What differs.
        why: String,
    },
    /// An interrupt could not be raised.
    #[error("raising the interrupt of a virtio device: {0}")]
    Interrupt(#[source] std::io::Error),
}

/// Reads of a device's configuration; zeroes behind its end.
fn read_from(config: &[u8], offset: u64, data: &mut [u8]) {
    for (at, byte) in (offset..).zip(data) {
        *byte = usize::try_from(at).ok().and_then(|at| config.get(at)).copied().unwrap_or(0);
    }
}

/// A device behind a transport.
pub trait Device: Send {
    /// Device id (virtio 1.2, 5).
    fn id(&self) -> u32;

    /// Feature bits offered, without the transport's.
    fn features(&self) -> u64;

    /// Largest size of each queue, each a power of two.
    fn queue_sizes(&self) -> &[u16];

    /// The driver reads configuration space; bytes past its end are zero.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// The driver writes configuration space.
    fn write_config(&mut self, offset: u64, data: &[u8]);

    /// Serves queue `queue`, which has something new, and whatever that leads to.
    ///
    /// # Errors
    /// What the driver did wrong; the transport then asks it for a reset.
    fn serve(
        &mut self,
        queue: usize,
        queues: &mut [Queue],
        memory: &GuestMemoryMmap,
    ) -> Result<(), VirtioError>;

    /// The driver begins to run, with these features agreed.
    fn begin(&mut self, _features: u64) {}

    /// Whether what was kicked before a reset is served all the same, by whoever resets.
    fn finishes_before_reset(&self) -> bool {
        true
    }

    /// Forgets everything that the driver told it.
    fn reset(&mut self);
}
