//! A disk of a saved machine. What is in its file isn't part of that: a machine can go on with another one, as long
//! as its driver can't tell from what it was told.

use super::Block;
use crate::virtio::VirtioError;
use crate::virtio::mmio::unfit;
use serde::{Deserialize, Serialize};

/// What the driver knows of the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockState {
    id: String,
    /// In sectors of 512 bytes.
    capacity: u64,
    read_only: bool,
}

impl Block {
    /// Its state.
    #[must_use]
    pub fn state(&self) -> BlockState {
        BlockState { id: self.id.clone(), capacity: self.backing.capacity, read_only: self.backing.read_only }
    }

    /// Checks that this disk can go on as the one of that state.
    ///
    /// # Errors
    /// Another id, another capacity, or one of them read-only.
    pub fn restore(&self, state: &BlockState) -> Result<(), VirtioError> {
        let here = self.state();
        let words = |state: &BlockState| {
            let BlockState { id, capacity, read_only } = state;
            format!("id {id:?}, {capacity} sectors, {}", if *read_only { "read-only" } else { "writable" })
        };
        if here == *state {
            return Ok(());
        }
        Err(unfit(format!("the disk was saved with {}, here is {}", words(state), words(&here))))
    }
}
