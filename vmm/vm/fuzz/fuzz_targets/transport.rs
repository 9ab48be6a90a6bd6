//! A guest that mistreats the virtio-mmio transport.

#![no_main]

#[path = "../../../devices/tests/hostile/mod.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|input: &[u8]| hostile::transport(input));
