//! A guest that mistreats a virtio block device.

#![no_main]

#[path = "../../../devices/tests/hostile/mod.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|input: &[u8]| hostile::block(input));
