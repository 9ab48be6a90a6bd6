//! What differs by architecture. Every module here has the same names: `check`,
//! `prepare`, `rests_in_guest`, `rest_in_guest`, `write_acpi`, `identities`, `new_vcpu`, `vcpus`, `SERIAL`, `POWER_PORTS`,
//! `PlatformState` with `save_platform` and `restore_platform`, `Clocks` with `clocks` and `set_clocks`, and the
//! modules `confine` and `probe`.

#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{
    Clocks, POWER_PORTS, PlatformState, SERIAL, check, clocks, confine, identities, new_vcpu, prepare, probe,
    rest_in_guest, restore_platform, rests_in_guest, save_platform, set_clocks, vcpus, write_acpi,
};
