//! A guest that mistreats a serial port.

#![no_main]

#[path = "../../../devices/tests/hostile/mod.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|input: &[u8]| hostile::serial(input));
