//! Hostile guests on every build: what the fuzz targets of `vmm/vm/fuzz` have kept, and some thousand inputs more.

mod hostile;

use proptest::prelude::*;
use std::path::Path;

/// Runs `target` on each input kept under its name.
fn replay(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vm/fuzz/seeds").join(name);
    let files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("reading {}: {e}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(!files.is_empty(), "{} has no inputs", folder.display());
    for file in files {
        eprintln!("{}", file.display());
        target(&std::fs::read(&file).unwrap());
    }
}

#[test]
fn inputs_that_were_kept_do_no_harm() {
    replay("serial", hostile::serial);
    replay("power", hostile::power);
    replay("transport", hostile::transport);
    replay("console", hostile::console);
    replay("block", hostile::block);
}

fn input() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..600)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_guest_harms_the_serial_port(input in input()) {
        hostile::serial(&input);
    }

    #[test]
    fn no_guest_harms_the_power_registers(input in input()) {
        hostile::power(&input);
    }

    #[test]
    fn no_guest_harms_the_transport(input in input()) {
        hostile::transport(&input);
    }

    #[test]
    fn no_guest_harms_the_console(input in input()) {
        hostile::console(&input);
    }

    #[test]
    fn no_guest_harms_the_disk(input in input()) {
        hostile::block(&input);
    }
}
