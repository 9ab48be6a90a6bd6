//! What differs by architecture. Every module here has the same names: `check`,
//! `prepare`, `write_acpi`, `identities`, `new_vcpu`, `vcpus`, `SERIAL`, `POWER_PORTS`,
//! `PlatformState` with `save_platform` and `restore_platform`, and the modules `confine` and `probe`.

#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{
    POWER_PORTS, PlatformState, SERIAL, check, confine, identities, new_vcpu, prepare, probe,
    restore_platform, save_platform, vcpus, write_acpi,
};
