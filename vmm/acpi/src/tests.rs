//! The tables, read back by hand and by `iasl`.

#[path = "../../vcpu/tests/skip/mod.rs"]
mod skip;

use super::*;
use ktstr_topology::{CacheAssociativity, CacheWritePolicy, MemSideCache, NumaDistance, NumaNode};
use proptest::prelude::*;
use std::process::Command;

const PLACE: Place = Place { rsdp: 0xe_0000, tables: 0x10_0000, end: 0x20_0000 };

fn tables(topology: &Topology) -> Result<Tables, AcpiError> {
    let ids: Vec<u32> = (0..topology.total_cpus()).collect();
    let ram: Vec<NodeRam> = (0..topology.num_numa_nodes())
        .map(|node| NodeRam { node, start: u64::from(node) << 28, bytes: 1 << 28 })
        .collect();
    let machine = Machine {
        topology,
        cpu_ids: &ids,
        ram: &ram,
        interrupts: arch::Interrupts { local_apic: 0xfee0_0000, ioapic: 0xfec0_0000 },
        serial: &[SerialPort { port: 0x3f8, irq: 4 }, SerialPort { port: 0x2f8, irq: 3 }],
        virtio: &[VirtioMmio { address: 0xd000_0000, bytes: 0x1000, irq: 5 }],
        power: PowerPorts {
            reset: 0x600,
            reset_value: 1,
            sleep_control: 0x601,
            sleep_status: 0x602,
            off_type: 5,
        },
    };
    build(&machine, PLACE)
}

fn uneven() -> Topology {
    let cache = MemSideCache {
        size_kib: 4096,
        line_bytes: 64,
        associativity: CacheAssociativity::Direct,
        write_policy: CacheWritePolicy::WriteBack,
    };
    let nodes = [
        NumaNode::new(2).with_latency_ns(80).with_bandwidth_mbs(100_000),
        NumaNode::new(1).with_latency_ns(90).with_bandwidth_mbs(50_000),
        NumaNode::memory_only(256).with_latency_ns(250).with_bandwidth_mbs(20_000).with_mem_side_cache(cache),
    ];
    let distances = NumaDistance::new(&[[10, 21, 30], [21, 10, 30], [30, 30, 10]]).unwrap();
    Topology::with_nodes(2, 2, &nodes).unwrap().with_distances(distances).unwrap()
}

fn table<'a>(tables: &'a Tables, signature: &str) -> Option<&'a [u8]> {
    tables.placed.iter().find(|t| t.signature == signature).map(|t| t.bytes.as_slice())
}

#[test]
fn one_node_needs_no_srat() {
    let tables = tables(&Topology::uniform(1, 2, 2, 1)).unwrap();
    let seen: Vec<_> = tables.placed.iter().map(|t| t.signature).collect();
    assert_eq!(seen, ["DSDT", "FACP", "APIC", "XSDT", "RSD PTR "]);
}

#[test]
fn slit_rows_are_the_declared_distances() {
    let tables = tables(&uneven()).unwrap();
    let slit = table(&tables, "SLIT").unwrap();
    assert_eq!(&slit[44..], [10, 21, 30, 21, 10, 30, 30, 30, 10]);
}

#[test]
fn cpus_past_254_are_listed_as_x2apic() {
    let tables = tables(&Topology::uniform(2, 2, 150, 1)).unwrap();
    let madt = table(&tables, "APIC").unwrap();
    let entry = &madt[44 + 255 * 8..][..16];
    assert_eq!(entry, [9, 16, 0, 0, 255, 0, 0, 0, 1, 0, 0, 0, 255, 0, 0, 0]);
}

#[test]
fn the_largest_machine_fits_its_room() {
    let topology = Topology::uniform(64, 64, 32, 2);
    assert!(tables(&topology).is_ok());
}

#[test]
fn what_does_not_fit_is_named() {
    let topology = Topology::uniform(1, 1, 2, 1);
    let machine = Machine {
        topology: &topology,
        cpu_ids: &[0],
        ram: &[],
        interrupts: arch::Interrupts { local_apic: 0, ioapic: 0 },
        serial: &[],
        virtio: &[],
        power: PowerPorts { reset: 0, reset_value: 0, sleep_control: 0, sleep_status: 0, off_type: 0 },
    };
    assert!(matches!(build(&machine, PLACE), Err(AcpiError::CpuIds { cpus: 2, ids: 1 })));
    let machine = Machine { cpu_ids: &[0, 1], ..machine };
    let tiny = Place { end: PLACE.tables + 16, ..PLACE };
    assert!(matches!(build(&machine, tiny), Err(AcpiError::NoRoom { table: "DSDT", .. })));
}

proptest! {
    #[test]
    fn every_table_sums_to_zero_and_none_overlap(
        nodes in 1u32..5, llcs in 1u32..4, cores in 1u32..9, threads in 1u32..3,
    ) {
        let tables = tables(&Topology::uniform(nodes, nodes * llcs, cores, threads)).unwrap();
        for table in &tables.placed {
            let sum = table.bytes.iter().fold(0u8, |sum, b| sum.wrapping_add(*b));
            prop_assert_eq!(sum, 0, "{}", table.signature);
            if table.signature != "RSD PTR " {
                let length = u32::from_le_bytes(table.bytes[4..8].try_into().unwrap());
                prop_assert_eq!(length as usize, table.bytes.len());
            }
        }
        let ends = tables.placed.windows(2).take(tables.placed.len() - 2);
        for pair in ends {
            prop_assert!(pair[0].address + pair[0].bytes.len() as u64 <= pair[1].address);
        }
    }
}

/// `iasl -d` of every table, without what changes with its version.
fn disassembly(test: &str, tables: &Tables) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let mut text = String::new();
    for table in tables.placed.iter().filter(|t| t.signature != "RSD PTR ") {
        let file = dir.path().join(format!("{}.dat", table.signature));
        std::fs::write(&file, &table.bytes).unwrap();
        let output = match Command::new("iasl").arg("-d").arg(&file).output() {
            Ok(output) => output,
            Err(e) => {
                skip::skip(test, &format!("iasl can't be run ({e}); install acpica-tools"));
                return None;
            }
        };
        let said =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}: {said}", table.signature);
        for complaint in ["Error", "Warning", "Invalid", "invalid"] {
            assert!(!said.contains(complaint), "{}: {said}", table.signature);
        }
        let dsl = std::fs::read_to_string(file.with_extension("dsl")).unwrap();
        assert!(!dsl.contains("Invalid") && !dsl.contains("should be"), "{dsl}");
        text.push_str(&format!("== {}\n", table.signature));
        text.push_str(&without_banner(&dsl));
    }
    Some(text)
}

/// Drops the leading comment (version and date of iasl, path of the file) and the
/// raw dump at the end.
fn without_banner(dsl: &str) -> String {
    let body = dsl.split_once("*/").map_or(dsl, |(_, rest)| rest);
    let body = body.split("Raw Table Data").next().unwrap_or(body);
    let keep = |line: &&str| !line.contains("Compiler ID") && !line.contains("Compiler Version");
    let lines = body.lines().filter(keep).map(str::trim_end).filter(|l| !l.is_empty());
    lines.map(|l| format!("{l}\n")).collect()
}

#[test]
fn iasl_reads_an_uneven_machine() {
    if let Some(text) = disassembly("iasl_reads_an_uneven_machine", &tables(&uneven()).unwrap()) {
        insta::assert_snapshot!(text);
    }
}

#[test]
fn iasl_reads_a_machine_with_x2apic_ids() {
    let tables = tables(&Topology::uniform(2, 2, 150, 1)).unwrap();
    if let Some(text) = disassembly("iasl_reads_a_machine_with_x2apic_ids", &tables) {
        assert!(text.contains("Processor x2Apic ID") || text.contains("x2Apic"), "{}", &text[..2000]);
    }
}
