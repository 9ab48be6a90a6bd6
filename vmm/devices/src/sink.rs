//! Where the bytes go that a device gets from the guest.

/// Takes bytes from a device, in order, on whatever thread serves it.
pub trait Sink: Send {
    /// Takes all of `bytes`; blocks when the reader is behind.
    fn take(&mut self, bytes: &[u8]);
}

impl<F: FnMut(&[u8]) + Send> Sink for F {
    fn take(&mut self, bytes: &[u8]) {
        self(bytes);
    }
}
