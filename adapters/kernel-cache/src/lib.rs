//! Kernel images kept under the XDG cache, written atomically.
