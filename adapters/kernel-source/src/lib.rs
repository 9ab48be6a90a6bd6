//! Where kernels come from: local trees, distribution packages.

mod files;

pub use files::OsFiles;
