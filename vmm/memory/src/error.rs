//! What can go wrong with guest RAM.

/// Guest RAM that could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// A node whose size is no whole number of pages.
    #[error("laying out the RAM of node {node}: {bytes} bytes is no multiple of 4096; round it up")]
    Unaligned {
        /// The node.
        node: u32,
        /// Its size.
        bytes: u64,
    },
    /// More than the guest can address.
    #[error("laying out guest RAM: {total} bytes are more than 46 bits of address can reach; ask for less")]
    TooMuch {
        /// Bytes of all nodes.
        total: u64,
    },
    /// No memory at all.
    #[error("laying out guest RAM: no node has any memory; give one some")]
    None,
    /// The memfd could not be made or sized.
    #[error("making a memfd of {bytes} bytes with {pages} for node {node}: {source}{hint}")]
    File {
        /// The node.
        node: u32,
        /// Its size.
        bytes: u64,
        /// Page size, in words.
        pages: &'static str,
        /// The system's answer.
        source: std::io::Error,
        /// Empty, or `; …` with what to do.
        hint: &'static str,
    },
    /// A file of saved RAM could not be read, written or used.
    #[error("{doing} the saved RAM of node {node}: {source}")]
    Saved {
        /// What was being done.
        doing: &'static str,
        /// The node.
        node: u32,
        /// The reason.
        source: std::io::Error,
    },
    /// A file of saved RAM that isn't what was saved.
    #[error("mapping the saved RAM of node {node}: it has {found} bytes, expected {expected}")]
    SavedSize {
        /// The node.
        node: u32,
        /// Bytes of the file.
        found: u64,
        /// Bytes of the node.
        expected: u64,
    },
    /// The memfd could not be mapped.
    #[error("mapping {bytes} bytes of guest RAM at {start:#x}: {why}")]
    Map {
        /// Guest-physical address.
        start: u64,
        /// Length.
        bytes: u64,
        /// The reason.
        why: String,
    },
}
