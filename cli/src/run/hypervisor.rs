//! Which hypervisor serves the mode that was asked for.

use crate::settings::Settings;
use anyhow::Result;
use ktstr_machine::{Accel, AccelChoice, Hypervisor, MachineError};
use ktstr_qemu::Qemu;

/// The hypervisor and the mode to use it in.
///
/// There is no adapter for `kvm` yet, so `auto` means software emulation.
pub(crate) fn choose(settings: &Settings) -> Result<(Box<dyn Hypervisor>, Accel)> {
    let accel = match settings.accel {
        AccelChoice::Auto => Accel::Tcg,
        AccelChoice::Only(Accel::Kvm) => {
            return Err(MachineError::Unsupported {
                accel: Accel::Kvm,
                what: "the VMM of our own is not part of this version; use --accel tcg or deterministic"
                    .to_string(),
            }
            .into());
        }
        AccelChoice::Only(accel) => accel,
    };
    let path = std::env::var("PATH").ok();
    let qemu = Qemu::find(settings.qemu.as_deref(), path.as_deref())?;
    Ok((Box::new(qemu), accel))
}
