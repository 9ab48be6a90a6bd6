//! CPUID, patched so that the guest finds the declared LLCs, cores and threads,
//! whatever the host looks like.
//!
//! Intel and Zhaoxin guests read leaves 1, 4, 0xB and 0x1F (Intel SDM vol. 2A,
//! CPUID); AMD and Hygon guests 1, 0xB, 0x8000_0008, 0x8000_001D and 0x8000_001E
//! (AMD APM vol. 3, appendix E).

use super::Ids;
use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// Which set of leaves the guest will read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vendor {
    /// Intel, Zhaoxin and whatever else has leaf 4.
    Intel,
    /// AMD and Hygon.
    Amd,
}

/// What of the CPU is up to the machine, beside its place in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Tell the guest that its vCPUs are never preempted (`KVM_HINTS_REALTIME`), so
    /// that it spins instead of yielding. Only true when they are pinned.
    pub realtime: bool,
    /// KVM can emulate the TSC deadline timer (`KVM_CAP_TSC_DEADLINE_TIMER`).
    pub tsc_deadline: bool,
}

const LEAF1_ECX_X2APIC: u32 = 1 << 21;
const LEAF1_ECX_TSC_DEADLINE: u32 = 1 << 24;
const LEAF1_ECX_HYPERVISOR: u32 = 1 << 31;
const LEAF1_EDX_HTT: u32 = 1 << 28;
const EXT1_ECX_CMP_LEGACY: u32 = 1 << 1;
const EXT1_ECX_TOPOLOGY: u32 = 1 << 22;
const EXT8_ECX_PERF_TSC_SIZE: u32 = 0x3_0000;
const LEVEL_THREAD: u32 = 1;
const LEVEL_CORE: u32 = 2;
/// `KVM_CPUID_FEATURES` (arch/x86/include/uapi/asm/kvm_para.h).
const KVM_FEATURES: u32 = 0x4000_0001;
const KVM_HINTS_REALTIME: u32 = 1;
/// `KVM_FEATURE_MSI_EXT_DEST_ID`: interrupts reach 15-bit APIC ids without remapping.
const KVM_MSI_EXT_DEST_ID: u32 = 1 << 15;

/// Size of a cache that the host doesn't describe, by leaf 4's and 0x8000_001D's
/// number of the cache: level, type (1 data, 2 code, 3 both), ways, sets.
const CACHES: [(u32, u32, u32, u32); 4] = [(1, 1, 8, 64), (1, 2, 8, 64), (2, 3, 8, 1024), (3, 3, 16, 16384)];

/// The vendor of these leaves.
#[must_use]
pub fn vendor(leaves: &[kvm_cpuid_entry2]) -> Vendor {
    let words = leaves.iter().find(|l| l.function == 0).map(|l| [l.ebx, l.edx, l.ecx]);
    let name: Vec<u8> = words.into_iter().flatten().flat_map(u32::to_le_bytes).collect();
    if [&b"AuthenticAMD"[..], b"HygonGenuine"].contains(&name.as_slice()) {
        Vendor::Amd
    } else {
        Vendor::Intel
    }
}

/// Leaves of CPU `cpu`, made of what KVM supports on this host
/// (`KVM_GET_SUPPORTED_CPUID`).
#[must_use]
pub fn for_cpu(
    supported: &[kvm_cpuid_entry2],
    ids: Ids,
    cpu: u32,
    options: Options,
) -> Vec<kvm_cpuid_entry2> {
    let mut leaves = Leaves(supported.to_vec());
    let vendor = vendor(supported);
    leaves.raise_maximum(0, 0xb);
    basic(&mut leaves, ids, cpu, options);
    if let Some(leaf) = leaves.get_mut(0xa) {
        performance_counters(leaf);
    }
    levels(&mut leaves, 0xb, ids, cpu);
    match vendor {
        Vendor::Intel => {
            caches(&mut leaves, 4, ids);
            if leaves.get(0).is_some_and(|l| l.eax >= 0x1f) {
                levels(&mut leaves, 0x1f, ids, cpu);
            }
        }
        Vendor::Amd => amd(&mut leaves, ids, cpu),
    }
    if let Some(features) = leaves.get_mut(KVM_FEATURES) {
        features.eax |= KVM_MSI_EXT_DEST_ID;
        features.edx = u32::from(options.realtime) * KVM_HINTS_REALTIME;
    }
    leaves.0
}

fn basic(leaves: &mut Leaves, ids: Ids, cpu: u32, options: Options) {
    let leaf = leaves.get_or_add(1);
    let logical = (1u32 << ids.package_bits()).min(255);
    leaf.ebx = leaf.ebx & 0xffff | logical << 16 | ids.id(cpu) << 24;
    leaf.ecx |= LEAF1_ECX_X2APIC | LEAF1_ECX_HYPERVISOR;
    set(&mut leaf.ecx, LEAF1_ECX_TSC_DEADLINE, options.tsc_deadline);
    set(&mut leaf.edx, LEAF1_EDX_HTT, ids.cpus_per_package() > 1);
}

/// What Intel's leaf 0xA promises, so that guests count alike on hosts of many generations: version 2, which has
/// counters of a fixed purpose and one register to start them all, and no more than so many counters of so many bits. AMD
/// has no such leaf, and its counters have 48 bits.
const PMU_VERSION: u32 = 2;
const PMU_COUNTERS: u32 = 4;
const PMU_BITS: u32 = 48;
const PMU_FIXED_COUNTERS: u32 = 3;

fn performance_counters(leaf: &mut kvm_cpuid_entry2) {
    let field = |word: u32, at: u32, bits: u32, most: u32| (word >> at & ((1 << bits) - 1)).min(most) << at;
    let [version, counters, bits] =
        [(0, PMU_VERSION), (8, PMU_COUNTERS), (16, PMU_BITS)].map(|(at, most)| field(leaf.eax, at, 8, most));
    // The highest byte: how many bits of EBX say which events there are not.
    leaf.eax = leaf.eax & 0xff00_0000 | bits | counters | version;
    // From version 5 on, which counters of a fixed purpose there are; up to then it is their number that counts.
    leaf.ecx = 0;
    leaf.edx = field(leaf.edx, 0, 5, PMU_FIXED_COUNTERS) | field(leaf.edx, 5, 8, PMU_BITS);
}

/// Extended topology: one sub-leaf a level, then an empty one.
fn levels(leaves: &mut Leaves, function: u32, ids: Ids, cpu: u32) {
    leaves.remove(function);
    let levels = [
        (ids.thread_bits(), ids.threads, LEVEL_THREAD),
        (ids.package_bits(), ids.cpus_per_package(), LEVEL_CORE),
        (0, 0, 0),
    ];
    for (index, (eax, ebx, level)) in (0u32..).zip(levels) {
        let (ecx, edx) = (index | level << 8, ids.id(cpu));
        leaves.push(function, index, [eax, ebx, ecx, edx]);
    }
}

/// Deterministic cache parameters; `function` is 4 or 0x8000_001D, which agree but
/// for the cores of a package in leaf 4's EAX.
fn caches(leaves: &mut Leaves, function: u32, ids: Ids) {
    let host: Vec<kvm_cpuid_entry2> = leaves.0.iter().filter(|l| l.function == function).copied().collect();
    leaves.remove(function);
    for (index, (level, kind, ways, sets)) in (0u32..).zip(CACHES) {
        let known = host.iter().find(|l| l.eax & 0x1f == kind && l.eax >> 5 & 7 == level);
        // Line size 64, one partition; bit 8: needs no software to start.
        let (eax, ebx, ecx, edx) = match known {
            Some(leaf) => (leaf.eax & 0x3fff, leaf.ebx, leaf.ecx, leaf.edx),
            None => (kind | level << 5 | 1 << 8, (ways - 1) << 22 | 63, sets - 1, 0),
        };
        let sharing_bits = if level == 3 { ids.package_bits() } else { ids.thread_bits() };
        let sharing = ((1u32 << sharing_bits) - 1).min(0xfff);
        let cores = if function == 4 { (1u32 << (ids.package_bits() - ids.thread_bits())) - 1 } else { 0 };
        leaves.push(function, index, [eax | sharing << 14 | cores.min(0x3f) << 26, ebx, ecx, edx]);
    }
    leaves.push(function, CACHES.len() as u32, [0; 4]);
}

fn amd(leaves: &mut Leaves, ids: Ids, cpu: u32) {
    leaves.raise_maximum(0x8000_0000, 0x8000_001e);
    let several = ids.cpus_per_package() > 1;
    let leaf = leaves.get_or_add(0x8000_0001);
    leaf.ecx |= EXT1_ECX_TOPOLOGY;
    set(&mut leaf.ecx, EXT1_ECX_CMP_LEGACY, several);
    let leaf = leaves.get_or_add(0x8000_0008);
    let threads = (ids.cpus_per_package() - 1).min(255);
    leaf.ecx = leaf.ecx & EXT8_ECX_PERF_TSC_SIZE | ids.package_bits().min(15) << 12 | threads;
    caches(leaves, 0x8000_001d, ids);
    // Has more levels than we need; without it the guest reads leaf 0xB.
    leaves.remove(0x8000_0026);
    leaves.remove(0x8000_001e);
    let core = ids.core(cpu) & 0xff | (ids.threads - 1) << 8;
    let node = ids.package(cpu) & 0xff;
    leaves.push(0x8000_001e, 0, [ids.id(cpu), core, node, 0]);
}

fn set(word: &mut u32, bit: u32, on: bool) {
    if on {
        *word |= bit;
    } else {
        *word &= !bit;
    }
}

struct Leaves(Vec<kvm_cpuid_entry2>);

impl Leaves {
    fn get(&self, function: u32) -> Option<&kvm_cpuid_entry2> {
        self.0.iter().find(|l| l.function == function)
    }

    fn get_mut(&mut self, function: u32) -> Option<&mut kvm_cpuid_entry2> {
        self.0.iter_mut().find(|l| l.function == function)
    }

    fn get_or_add(&mut self, function: u32) -> &mut kvm_cpuid_entry2 {
        let at = self.0.iter().position(|l| l.function == function).unwrap_or_else(|| {
            self.0.push(kvm_cpuid_entry2 { function, ..Default::default() });
            self.0.len() - 1
        });
        &mut self.0[at]
    }

    /// Makes sure that leaf `function`, which tells the largest leaf of its range,
    /// tells at least `maximum`.
    fn raise_maximum(&mut self, function: u32, maximum: u32) {
        let leaf = self.get_or_add(function);
        leaf.eax = leaf.eax.max(maximum);
    }

    fn remove(&mut self, function: u32) {
        self.0.retain(|l| l.function != function);
    }

    fn push(&mut self, function: u32, index: u32, [eax, ebx, ecx, edx]: [u32; 4]) {
        let flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        self.0.push(kvm_cpuid_entry2 { function, index, flags, eax, ebx, ecx, edx, padding: [0; 3] });
    }
}

#[cfg(test)]
mod tests;
