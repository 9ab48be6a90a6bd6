//! Names and shapes agree.

use std::collections::BTreeSet;

use super::*;

/// The number before `unit` in a preset's name.
fn number(name: &str, unit: &str) -> Option<u32> {
    name.split('-').find_map(|part| part.strip_suffix(unit)?.parse().ok())
}

#[test]
fn names_tell_the_shape() {
    for preset in PRESETS {
        let Preset { name, numa_nodes, llcs, .. } = *preset;
        let topology = preset.topology();
        assert_eq!(topology.validate(), Ok(()), "{name}");
        assert_eq!(number(name, "cpu"), Some(topology.total_cpus()), "{name}");
        assert_eq!(number(name, "llc"), Some(llcs), "{name}");
        assert_eq!(number(name, "numa").unwrap_or(1), numa_nodes, "{name}");
        assert_eq!(name.ends_with("-smt"), preset.is_smt(), "{name}");
        assert_eq!(name.ends_with("-nosmt"), !preset.is_smt(), "{name}");
    }
}

#[test]
fn there_are_25_and_14_without_smt() {
    let names: BTreeSet<&str> = PRESETS.iter().map(|preset| preset.name).collect();
    assert_eq!((PRESETS.len(), names.len()), (25, 25));
    assert_eq!(PRESETS.iter().filter(|preset| !preset.is_smt()).count(), 14);
}

#[test]
fn a_preset_is_found_by_name() {
    let label = |name| Preset::by_name(name).map(|preset| preset.topology().label());
    assert_eq!(label("9cpu-3llc-nosmt").as_deref(), Some("1n3l3c1t"));
    assert_eq!(label("4numa-192cpu-12llc-smt").as_deref(), Some("4n12l8c2t"));
    assert_eq!(label("9cpu-3llc"), None);
}
