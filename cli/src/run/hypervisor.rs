//! Which hypervisor serves the mode that was asked for.

use crate::settings::Settings;
use anyhow::Result;
use ktstr_kvm::Kvm;
use ktstr_machine::{Accel, AccelChoice, Hypervisor};
use ktstr_qemu::Qemu;

/// The hypervisor and the mode to use it in.
///
/// `auto` takes `kvm` where a tiny guest shows that it runs kernel code as hardware
/// does, and software emulation elsewhere: a `/dev/kvm` alone proves nothing.
pub(crate) fn choose(settings: &Settings) -> Result<(Box<dyn Hypervisor>, Accel)> {
    let accel = match settings.accel {
        AccelChoice::Auto if Kvm::probe().is_ok() => Accel::Kvm,
        AccelChoice::Auto => Accel::Tcg,
        AccelChoice::Only(Accel::Kvm) => {
            Kvm::probe()?;
            Accel::Kvm
        }
        AccelChoice::Only(accel) => accel,
    };
    if accel == Accel::Kvm {
        return Ok((Box::new(Kvm::new()), accel));
    }
    let path = std::env::var("PATH").ok();
    let qemu = Qemu::find(settings.qemu.as_deref(), path.as_deref())?;
    Ok((Box::new(qemu), accel))
}
