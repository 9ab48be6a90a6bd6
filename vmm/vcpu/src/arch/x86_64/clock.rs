//! The clock that a vCPU has of its own, and the timer that goes by it.

use super::msrs::{self, TSC, TSC_DEADLINE};
use crate::VcpuError;
use kvm_ioctls::{Error, VcpuFd};
use serde::{Deserialize, Serialize};

/// What a vCPU's time stamp counter stood at, and which value of it the local APIC's timer waits for.
///
/// A timer that counts by itself (one-shot or periodic; Linux uses it only where there is no deadline mode) isn't
/// here: KVM tells what is left of it with all of the local APIC, and setting that again would lose the
/// interrupts that come in between. While a machine stands still it runs out, and the guest has one interrupt early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuClock {
    tsc: u64,
    /// 0 when the timer isn't set.
    deadline: u64,
}

pub(crate) fn clock(fd: &VcpuFd) -> Result<VcpuClock, Error> {
    let values = msrs::read(fd, &[TSC, TSC_DEADLINE])?;
    let value = |msr| values.iter().find(|(index, _)| *index == msr).map(|(_, value)| *value);
    let tsc = value(TSC).ok_or_else(|| Error::new(libc::EOPNOTSUPP))?;
    Ok(VcpuClock { tsc, deadline: value(TSC_DEADLINE).unwrap_or(0) })
}

/// Has the counter go on from there.
///
/// KVM takes a value that lies within a second of what the machine's counters show for an attempt to make them
/// equal, and has them all go on as they did (`kvm_synchronize_tsc` in arch/x86/kvm/x86.c): most pauses
/// are shorter. So the machine's first counter is set twice, to something else before; that begins a new count,
/// which those of the other vCPUs join, so that all show the same again. (A guest that has set them apart by less
/// than a second finds them together. Linux doesn't.)
///
/// Setting the deadline arms the timer anew and takes back its interrupt, if it came meanwhile and wasn't delivered
/// (`__start_apic_timer` in arch/x86/kvm/lapic.c).
pub(crate) fn set_clock(index: u32, fd: &VcpuFd, clock: &VcpuClock) -> Result<(), VcpuError> {
    let kvm = |doing| move |source| VcpuError::Kvm { index, doing, source };
    let mut values = vec![(TSC, clock.tsc)];
    if index == 0 {
        let khz = fd.get_tsc_khz().map_err(kvm("reading the rate of the time stamp counter"))?;
        values.insert(0, (TSC, clock.tsc.wrapping_add(SECONDS_APART * u64::from(khz) * 1000)));
    }
    if clock.deadline != 0 {
        values.push((TSC_DEADLINE, clock.deadline));
    }
    msrs::write(fd, &values).map_err(|e| e.of(index))
}

/// Far more than the second within which KVM takes two values for one.
const SECONDS_APART: u64 = 10;
