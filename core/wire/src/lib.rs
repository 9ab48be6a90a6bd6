//! Framed, checksummed messages from a guest to its host.
