//! Guests that mean harm, played from bytes: what the fuzz targets in `vmm/vm/fuzz` and the tests beside this folder
//! run.
//!
//! Bytes become acts of a driver: descriptors that overlap, loop, lie outside RAM or are empty or 4 GiB long, indexes
//! that lie, registers written in any order and width, memory written under the device's hands. Whatever they do,
//! nothing may panic or go on without end, and after a reset the device works as if new.

// Each target uses a part.
#![allow(dead_code, unused_imports, reason = "shared by several targets")]

mod block;
mod console;
mod cursor;
pub(crate) mod driver;
mod ports;
mod transport;

pub(crate) use block::block;
pub(crate) use console::console;
pub(crate) use ports::{power, serial};
pub(crate) use transport::transport;
