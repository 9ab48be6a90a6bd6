//! Reading the leaves back the way Linux does.

use super::*;
use ktstr_topology::Topology;
use proptest::prelude::*;

fn host(vendor: &[u8; 12], maximum: u32) -> Vec<kvm_cpuid_entry2> {
    let word = |at: usize| u32::from_le_bytes(vendor[at..at + 4].try_into().unwrap());
    let leaf = |function, index, eax, ebx, ecx, edx| kvm_cpuid_entry2 {
        function,
        index,
        eax,
        ebx,
        ecx,
        edx,
        ..Default::default()
    };
    vec![
        leaf(0, 0, maximum, word(0), word(8), word(4)),
        leaf(1, 0, 0x8_06f8, 0x1210_0800, 0xfffa_3203, 0x1f8b_fbff),
        // A 32 MiB L3 shared by 64 threads; the size must survive, the sharing not.
        leaf(4, 3, 0xfc0f_c163, 0x03c0_003f, 0x7fff, 4),
        leaf(0x8000_0000, 0, 0x8000_0008, 0, 0, 0),
        leaf(0x8000_0008, 0, 0x3030, 0, 0x3f, 0),
        leaf(0x8000_001d, 3, 0x3c163, 0x03c0_003f, 0x7fff, 1),
        leaf(KVM_FEATURES, 0, 0x0100_7efb, 0, 0, 1),
    ]
}

fn find(leaves: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
    let mut found = leaves.iter().filter(|l| l.function == function && l.index == index);
    let leaf = *found.next().unwrap_or_else(|| panic!("no leaf {function:#x}.{index}"));
    assert!(found.next().is_none(), "leaf {function:#x}.{index} twice");
    leaf
}

fn shape(llcs: u32, cores: u32, threads: u32) -> Topology {
    Topology::uniform(1, llcs, cores, threads)
}

#[test]
fn the_hosts_cache_size_survives_and_its_sharing_does_not() {
    let ids = Ids::new(&shape(2, 4, 2));
    for (vendor, function) in [(b"GenuineIntel", 4), (b"AuthenticAMD", 0x8000_001d)] {
        let leaves = for_cpu(&host(vendor, 0x1f), ids, 3, Options::default());
        let l3 = find(&leaves, function, 3);
        assert_eq!((l3.ebx, l3.ecx), (0x03c0_003f, 0x7fff));
        assert_eq!((l3.eax >> 14 & 0xfff) + 1, 8, "{function:#x}");
        assert_eq!((find(&leaves, function, 0).eax >> 14 & 0xfff) + 1, 2);
        assert_eq!(find(&leaves, function, 4).eax & 0x1f, 0, "the list must end");
    }
}

#[test]
fn a_pmu_is_no_more_than_version_2_of_four_counters() {
    let ids = Ids::new(&shape(1, 2, 1));
    let pmu = |eax, ecx, edx| {
        let mut host = host(b"GenuineIntel", 0x1f);
        host.push(kvm_cpuid_entry2 { function: 0xa, eax, ebx: 3, ecx, edx, ..Default::default() });
        let leaf = find(&for_cpu(&host, ids, 1, Options::default()), 0xa, 0);
        [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]
    };
    // Version 5, 8 counters of 52 bits, 8 architectural events; 4 fixed ones of 52 bits, AnyThread deprecated.
    assert_eq!(pmu(0x0834_0805, 0xf, 0x8000 | 52 << 5 | 4), [0x0830_0402, 3, 0, 48 << 5 | 3]);
    // Less stays less, as does nothing.
    assert_eq!(pmu(0x0720_0201, 0, 40 << 5 | 2), [0x0720_0201, 3, 0, 40 << 5 | 2]);
    assert_eq!(pmu(0, 0, 0), [0, 3, 0, 0]);
}

#[test]
fn hints_follow_the_options() {
    let ids = Ids::new(&shape(1, 2, 1));
    let hints = |realtime| {
        let options = Options { realtime, tsc_deadline: true };
        let leaves = for_cpu(&host(b"AuthenticAMD", 0xd), ids, 0, options);
        assert_ne!(find(&leaves, 1, 0).ecx & LEAF1_ECX_TSC_DEADLINE, 0);
        find(&leaves, KVM_FEATURES, 0).edx
    };
    assert_eq!((hints(false), hints(true)), (0, 1));
}

proptest! {
    /// What arch/x86/kernel/cpu/topology_ext.c, cacheinfo.c and topology_amd.c make
    /// of the leaves is the declared shape.
    #[test]
    fn linux_finds_the_declared_shape(
        llcs in 1u32..9, cores in 1u32..33, threads in 1u32..3,
        vendor in prop::sample::select(vec![b"GenuineIntel", b"AuthenticAMD"]),
        maximum in prop::sample::select(vec![0x4u32, 0xd, 0x1f, 0x20]),
    ) {
        let topology = shape(llcs, cores, threads);
        let ids = Ids::new(&topology);
        let mut seen = std::collections::BTreeSet::new();
        for cpu in 0..topology.total_cpus() {
            let leaves = for_cpu(&host(vendor, maximum), ids, cpu, Options::default());
            let apic = find(&leaves, 0xb, 0).edx;
            prop_assert!(seen.insert(apic), "APIC id {} twice", apic);
            prop_assert_eq!(find(&leaves, 1, 0).ebx >> 24, apic & 0xff);
            let thread_shift = find(&leaves, 0xb, 0).eax & 0x1f;
            let package_shift = find(&leaves, 0xb, 1).eax & 0x1f;
            prop_assert_eq!(find(&leaves, 0xb, 0).ebx & 0xffff, threads);
            prop_assert_eq!(find(&leaves, 0xb, 1).ebx & 0xffff, cores * threads);
            prop_assert_eq!(find(&leaves, 0xb, 2).ecx >> 8 & 0xff, 0);
            prop_assert_eq!(apic >> package_shift, topology.llc_of_cpu(cpu).unwrap());
            prop_assert_eq!((apic >> thread_shift) & ((1 << (package_shift - thread_shift)) - 1), ids.core(cpu));
            prop_assert_eq!(apic & ((1 << thread_shift) - 1), topology.thread_of_cpu(cpu).unwrap());
            let function = if vendor == b"AuthenticAMD" { 0x8000_001d } else { 4 };
            let sharing = (find(&leaves, function, 3).eax >> 14 & 0xfff) + 1;
            prop_assert_eq!(sharing.next_power_of_two().trailing_zeros(), package_shift);
            if function == 4 {
                if maximum >= 0x1f {
                    prop_assert_eq!(find(&leaves, 0x1f, 1).eax & 0x1f, package_shift);
                }
            } else {
                let leaf = find(&leaves, 0x8000_001e, 0);
                prop_assert_eq!(leaf.eax, apic);
                prop_assert_eq!((leaf.ebx >> 8 & 0xff) + 1, threads);
                let size = find(&leaves, 0x8000_0008, 0).ecx;
                prop_assert_eq!(size >> 12 & 0xf, package_shift);
                prop_assert_eq!((size & 0xff) + 1, cores * threads);
                prop_assert!(find(&leaves, 0x8000_0000, 0).eax >= 0x8000_001e);
            }
        }
    }
}
