//! Everything of a vCPU that a saved machine must keep, and the order in which KVM
//! gives it out and takes it back (Documentation/virt/kvm/api.rst; where that is
//! silent, arch/x86/kvm/x86.c and lapic.c of Linux 6.12).

use super::msrs;
use crate::VcpuError;
use kvm_bindings::{
    CpuId, Xsave, kvm_cpuid_entry2, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_regs, kvm_sregs,
    kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{Cap, Error, Kvm, VcpuFd, VmFd};
use serde::{Deserialize, Serialize};

/// What this host's KVM can tell of a vCPU.
#[derive(Debug, Clone)]
pub struct StateKinds {
    msrs: Vec<u32>,
    /// Bytes of the extended register state; 4096 where KVM knows no more.
    xsave_bytes: usize,
    /// KVM can have a guest's time stamp counter run at a rate of its own.
    scales_tsc: bool,
}

impl StateKinds {
    /// Asks KVM, and the VM, whose features decide how large the state is.
    ///
    /// # Errors
    /// KVM's.
    pub fn of(kvm: &Kvm, vm: &VmFd) -> Result<Self, Error> {
        let listed = kvm.get_msr_index_list()?;
        // KVM_CAP_XSAVE2: the size of `struct kvm_xsave` with its tail, 0 if there is none.
        let xsave = usize::try_from(vm.check_extension_int(Cap::Xsave2)).unwrap_or(0);
        Ok(Self {
            msrs: msrs::worth_keeping(listed.as_slice()),
            xsave_bytes: xsave.max(size_of::<kvm_xsave>()),
            scales_tsc: kvm.check_extension(Cap::TscControl),
        })
    }
}

/// What a vCPU is made with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Identity {
    /// Its APIC id.
    pub id: u64,
    /// CPUID as it was configured, not as KVM shows it later.
    pub cpuid: Vec<kvm_cpuid_entry2>,
}

/// One vCPU's state but for its [clock](super::VcpuClock), whose timer counts only once the local APIC has it in the
/// right mode (`kvm_set_lapic_tscdeadline_msr`). Nested guests and the pages of KVM's own (`KVM_GET_NESTED_STATE`,
/// system-management mode) are left out: machines of this monitor have neither.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VcpuState {
    identity: Identity,
    tsc_khz: u32,
    mp: kvm_mp_state,
    general: kvm_regs,
    special: kvm_sregs,
    debug: kvm_debugregs,
    apic: kvm_lapic_state,
    xcrs: kvm_xcrs,
    xsave: Vec<u32>,
    msrs: Vec<(u32, u64)>,
    events: kvm_vcpu_events,
}

/// How far two rates of a time stamp counter may lie apart, in parts of a million: what
/// Linux lets two measurements of one counter differ by.
const TSC_TOLERANCE_PPM: u64 = 250;

/// Reads everything of a vCPU that doesn't run, in a machine none of whose vCPUs do.
pub(crate) fn save(
    index: u32,
    fd: &VcpuFd,
    kinds: &StateKinds,
    identity: &Identity,
) -> Result<VcpuState, VcpuError> {
    let kvm = |doing| move |source| VcpuError::Kvm { index, doing, source };
    // Asking for the multiprocessing state has KVM deliver INIT and SIPI that wait
    // (`kvm_apic_accept_events`), which changes almost everything else: first.
    let mp = fd.get_mp_state().map_err(kvm("reading the multiprocessing state"))?;
    let general = fd.get_regs().map_err(kvm("reading the general registers"))?;
    let special = fd.get_sregs().map_err(kvm("reading the special registers"))?;
    let xsave = read_xsave(fd, kinds.xsave_bytes).map_err(kvm("reading the extended registers"))?;
    let xcrs = fd.get_xcrs().map_err(kvm("reading the extended control registers"))?;
    let debug = fd.get_debug_regs().map_err(kvm("reading the debug registers"))?;
    // A timer that runs is told as what is left of it (`kvm_apic_get_state`).
    let apic = fd.get_lapic().map_err(kvm("reading the local APIC"))?;
    let tsc_khz = fd.get_tsc_khz().map_err(kvm("reading the rate of the time stamp counter"))?;
    let msrs = msrs::read(fd, &kinds.msrs).map_err(kvm("reading the MSRs"))?;
    // Last, as the others may leave an event behind.
    let events = fd.get_vcpu_events().map_err(kvm("reading the pending events"))?;
    let identity = identity.clone();
    Ok(VcpuState { identity, tsc_khz, mp, general, special, debug, apic, xcrs, xsave, msrs, events })
}

/// Gives a new vCPU the state of a saved one. `here` is what this host would make it with:
/// a guest that was told of other features would use what isn't there.
///
/// # Errors
/// Another processor, or whatever of it KVM refuses.
pub fn restore(
    index: u32,
    fd: &VcpuFd,
    kinds: &StateKinds,
    here: &Identity,
    state: &VcpuState,
) -> Result<(), VcpuError> {
    let kvm = |doing| move |source| VcpuError::Kvm { index, doing, source };
    let unfit = |why: String| VcpuError::Unfit { index, why };
    check(here, &state.identity).map_err(unfit)?;
    // CPUID decides which of the rest is legal (api.rst, KVM_SET_CPUID2).
    let leaves = &state.identity.cpuid;
    let leaves = CpuId::from_entries(leaves)
        .map_err(|e| unfit(format!("{} CPUID leaves are more than KVM takes: {e:?}", leaves.len())))?;
    fd.set_cpuid2(&leaves).map_err(kvm("setting CPUID"))?;
    // The counter's rate before the counter, which is scaled by it.
    set_tsc_khz(fd, kinds, state.tsc_khz).map_err(unfit)?;
    // Setting them drops a pending exception, so the events come later.
    fd.set_regs(&state.general).map_err(kvm("setting the general registers"))?;
    let xsave = xsave_of(&state.xsave, kinds.xsave_bytes).map_err(unfit)?;
    // SAFETY: `xsave_of` made it as large as KVM said that it reads.
    unsafe { fd.set_xsave2(&xsave) }.map_err(kvm("setting the extended registers"))?;
    fd.set_xcrs(&state.xcrs).map_err(kvm("setting the extended control registers"))?;
    fd.set_debug_regs(&state.debug).map_err(kvm("setting the debug registers"))?;
    // Holds the APIC's base, whose mode decides how its registers are read.
    fd.set_sregs(&state.special).map_err(kvm("setting the special registers"))?;
    fd.set_lapic(&state.apic).map_err(kvm("setting the local APIC"))?;
    msrs::write(fd, &state.msrs).map_err(|e| e.of(index))?;
    fd.set_vcpu_events(&state.events).map_err(kvm("setting the pending events"))?;
    // Last: setting special registers may wake a halted vCPU.
    fd.set_mp_state(state.mp).map_err(kvm("setting the multiprocessing state"))
}

fn check(here: &Identity, saved: &Identity) -> Result<(), String> {
    if here.id != saved.id {
        return Err(format!(
            "it was saved as number {} of a machine where it would be {}",
            saved.id, here.id
        ));
    }
    check_cpuid(&here.cpuid, &saved.cpuid)
}

/// Tells the first leaf that differs.
fn check_cpuid(here: &[kvm_cpuid_entry2], saved: &[kvm_cpuid_entry2]) -> Result<(), String> {
    let same = |a: &kvm_cpuid_entry2, b: &kvm_cpuid_entry2| {
        let key = |l: &kvm_cpuid_entry2| [l.function, l.index, l.flags, l.eax, l.ebx, l.ecx, l.edx];
        key(a) == key(b)
    };
    let differs = here.iter().zip(saved).find(|(a, b)| !same(a, b));
    match differs {
        Some((a, b)) => Err(format!(
            "it was saved with a processor whose CPUID leaf {:#x}.{} is {:#x?}, here it is leaf {:#x}.{}, {:#x?}",
            b.function,
            b.index,
            [b.eax, b.ebx, b.ecx, b.edx],
            a.function,
            a.index,
            [a.eax, a.ebx, a.ecx, a.edx]
        )),
        None if here.len() != saved.len() => Err(format!(
            "it was saved with a processor of {} CPUID leaves, here are {}",
            saved.len(),
            here.len()
        )),
        None => Ok(()),
    }
}

fn set_tsc_khz(fd: &VcpuFd, kinds: &StateKinds, wanted: u32) -> Result<(), String> {
    let here = fd.get_tsc_khz().map_err(|e| format!("asking for the rate of the counter: {e}"))?;
    if here == wanted {
        return Ok(());
    }
    // KVM scales what differs by more than its own tolerance where it can.
    if kinds.scales_tsc && fd.set_tsc_khz(wanted).is_ok() {
        return Ok(());
    }
    let apart = u64::from(here.abs_diff(wanted)) * 1_000_000;
    if apart > u64::from(wanted) * TSC_TOLERANCE_PPM {
        return Err(format!(
            "it was saved with a time stamp counter of {wanted} kHz, this host's has {here} kHz"
        ));
    }
    Ok(())
}

fn read_xsave(fd: &VcpuFd, bytes: usize) -> Result<Vec<u32>, Error> {
    if bytes == size_of::<kvm_xsave>() {
        return Ok(fd.get_xsave()?.region.to_vec());
    }
    let mut xsave = empty_xsave(bytes).ok_or_else(|| Error::new(libc::ENOMEM))?;
    // SAFETY: it is as large as KVM said that it writes; no feature is enabled since.
    unsafe { fd.get_xsave2(&mut xsave) }?;
    Ok([&xsave.as_fam_struct_ref().xsave.region[..], xsave.as_slice()].concat())
}

fn xsave_of(words: &[u32], bytes: usize) -> Result<Xsave, String> {
    let saved = size_of_val(words);
    let differs = || format!("it was saved with {saved} bytes of extended registers, here are {bytes}");
    let mut xsave = empty_xsave(bytes).filter(|_| saved == bytes).ok_or_else(differs)?;
    let header = size_of::<kvm_xsave>() / size_of::<u32>();
    let (region, extra) = words.split_at_checked(header).ok_or_else(differs)?;
    xsave.as_mut_slice().copy_from_slice(extra);
    // SAFETY: the length, the one thing that must not change, is left alone.
    let fixed = unsafe { xsave.as_mut_fam_struct() };
    fixed.xsave.region.copy_from_slice(region);
    Ok(xsave)
}

/// Zeroes of exactly so many bytes; `None` if that is no whole number of words.
fn empty_xsave(bytes: usize) -> Option<Xsave> {
    let extra = bytes.checked_sub(size_of::<kvm_xsave>())?;
    if extra.is_multiple_of(size_of::<u32>()) { Xsave::new(extra / size_of::<u32>()).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32, eax: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { function, eax, ..Default::default() }
    }

    #[test]
    fn another_processor_is_named() {
        let here = [leaf(0, 0xb), leaf(1, 5)];
        assert_eq!(check_cpuid(&here, &here), Ok(()));
        let why = check_cpuid(&here, &[leaf(0, 0xb), leaf(1, 6)]).unwrap_err();
        assert!(why.contains("leaf 0x1.0"), "{why}");
        assert!(check_cpuid(&here, &here[..1]).unwrap_err().contains("of 1 CPUID leaves"));
    }

    #[test]
    fn extended_registers_of_another_size_are_refused() {
        let words: Vec<u32> = (0..1026).collect();
        let xsave = xsave_of(&words, 4104).unwrap();
        assert_eq!(xsave.as_slice(), [1024, 1025]);
        assert_eq!(xsave.as_fam_struct_ref().xsave.region[1023], 1023);
        assert!(xsave_of(&words, 4096).is_err());
        assert!(xsave_of(&words[..1024], 4104).is_err());
        assert!(xsave_of(&words[..10], 40).is_err());
    }
}
