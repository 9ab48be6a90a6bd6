//! Initial RAM disks: cpio archives with the shared-library closure of a binary.
