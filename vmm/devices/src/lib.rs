//! Devices of a small virtual machine: 16550 serial ports, virtio-mmio with a
//! multiport console and with disks, and the power registers.
//!
//! Models only: a device is told of a register access or of a queue that was kicked,
//! changes its state and says whether the guest must be interrupted. Who traps the
//! access and who waits for the kick is the caller's business. What the guest
//! controls (descriptors, addresses, lengths, registers, messages) is checked and
//! bounded here; a guest that breaks the rules gets a device that needs a reset. A disk reads
//! and writes the file that it was given, on the thread that serves it.

mod power;
mod serial;
mod sink;
pub mod virtio;

pub use power::{Power, PowerEvent, PowerPorts};
pub use serial::{Serial, SerialError, SerialState};
pub use sink::Sink;
