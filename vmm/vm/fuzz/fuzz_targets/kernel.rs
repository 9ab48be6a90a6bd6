//! Any file as a kernel image: a bzImage or a vmlinux.

#![no_main]

#[path = "../../../boot/tests/hostile/mod.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|input: &[u8]| hostile::kernel(input));
