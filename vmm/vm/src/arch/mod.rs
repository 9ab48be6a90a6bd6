//! What differs by architecture. Every module here has the same names: `check`,
//! `prepare`, `write_acpi`, `vcpus`, `SERIAL`, `POWER_PORTS`, and the modules `confine` and `probe`.

#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{POWER_PORTS, SERIAL, check, confine, prepare, probe, vcpus, write_acpi};
