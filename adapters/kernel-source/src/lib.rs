//! Where kernels come from: local trees, distribution packages.
