//! Model-specific registers of a saved vCPU.

use crate::VcpuError;
use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::{Error, VcpuFd};
use std::ops::Range;

pub(super) const TSC: u32 = 0x10;
pub(super) const TSC_DEADLINE: u32 = 0x6e0;
/// Of Hyper-V (arch/x86/include/asm/hyperv-tlfs.h): guests aren't told of it, and the
/// first access makes KVM set up what it takes.
const HYPERV: Range<u32> = 0x4000_0000..0x4000_0200;
/// As many as go into one request; `KVM_MAX_MSR_ENTRIES` is 256.
const AT_ONCE: usize = 128;

/// An MSR that KVM refused.
pub(super) enum MsrError {
    Kvm(Error),
    Refused { msr: u32, wanted: u64, has: Option<u64> },
}

impl From<Error> for MsrError {
    fn from(error: Error) -> Self {
        Self::Kvm(error)
    }
}

impl MsrError {
    pub(super) fn of(self, index: u32) -> VcpuError {
        match self {
            Self::Kvm(source) => VcpuError::Kvm { index, doing: "setting the MSRs", source },
            Self::Refused { msr, wanted, has } => {
                let has = has.map_or("can't be read".to_string(), |v| format!("has {v:#x} here"));
                VcpuError::Unfit {
                    index,
                    why: format!("KVM doesn't take {wanted:#x} for MSR {msr:#x}, which {has}"),
                }
            }
        }
    }
}

/// Of the MSRs that KVM lists, those that a saved vCPU keeps. Its clock is kept elsewhere
/// ([`VcpuClock`](super::VcpuClock)): that goes on when the machine runs, not when it is restored.
pub(super) fn worth_keeping(listed: &[u32]) -> Vec<u32> {
    let kept = |msr: &u32| !HYPERV.contains(msr) && ![TSC, TSC_DEADLINE].contains(msr);
    listed.iter().copied().filter(kept).collect()
}

/// Reads MSRs; those that KVM lists and this guest doesn't have are left out.
pub(super) fn read(fd: &VcpuFd, msrs: &[u32]) -> Result<Vec<(u32, u64)>, Error> {
    let mut found = Vec::with_capacity(msrs.len());
    let mut rest = msrs;
    while !rest.is_empty() {
        let asked: Vec<_> =
            rest.iter().take(AT_ONCE).map(|&index| kvm_msr_entry { index, ..Default::default() }).collect();
        let mut answer = list(&asked)?;
        let read = fd.get_msrs(&mut answer)?;
        found.extend(answer.as_slice().iter().take(read).map(|e| (e.index, e.data)));
        // KVM stops before the first one that it can't read.
        let done = if read < asked.len() { read + 1 } else { read };
        rest = rest.get(done..).unwrap_or_default();
    }
    Ok(found)
}

/// Sets MSRs in their order. One that KVM doesn't take is of no account where it has that value already:
/// some can only be read.
pub(super) fn write(fd: &VcpuFd, msrs: &[(u32, u64)]) -> Result<(), MsrError> {
    let entry = |&(index, data): &(u32, u64)| kvm_msr_entry { index, data, ..Default::default() };
    let entries: Vec<kvm_msr_entry> = msrs.iter().map(entry).collect();
    let mut rest = &entries[..];
    while let Some(first) = rest.first() {
        let some = rest.get(..AT_ONCE).unwrap_or(rest);
        let set = fd.set_msrs(&list(some)?)?;
        rest = rest.get(set..).unwrap_or_default();
        if set < some.len() {
            let refused = rest.first().unwrap_or(first);
            let has = read(fd, &[refused.index])?.first().map(|(_, value)| *value);
            if has != Some(refused.data) {
                return Err(MsrError::Refused { msr: refused.index, wanted: refused.data, has });
            }
            rest = rest.get(1..).unwrap_or_default();
        }
    }
    Ok(())
}

fn list(entries: &[kvm_msr_entry]) -> Result<Msrs, Error> {
    Msrs::from_entries(entries).map_err(|_| Error::new(libc::E2BIG))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_and_hyperv_are_not_among_them() {
        assert_eq!(worth_keeping(&[0x6e0, 0x10, 0x4000_0020, 0x174, 0x3b]), [0x174, 0x3b]);
    }
}
