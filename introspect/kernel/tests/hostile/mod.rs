//! Bytes that mean harm, as everything that is read here: what the fuzz targets in `fuzz/` and the test beside this folder
//! run.
//!
//! Whatever the bytes, there is an answer or an error, after reads that a bound explains, and what is found agrees with
//! itself. A broken rule is a panic.

// Each target uses a part.
#![allow(dead_code, unused_imports, reason = "shared by several targets")]

mod btf;
mod files;
mod kallsyms;
mod kernel;
mod page_tables;
mod walks;

pub(crate) use btf::btf;
pub(crate) use files::files;
pub(crate) use kallsyms::kallsyms;
pub(crate) use kernel::kernel;
pub(crate) use page_tables::page_tables;
pub(crate) use walks::walks;
