//! A guest that writes anything to the power registers.

#![no_main]

#[path = "../../../devices/tests/hostile/mod.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|input: &[u8]| hostile::power(input));
