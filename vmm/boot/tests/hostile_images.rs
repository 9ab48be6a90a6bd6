//! Hostile kernel images on every build: what the fuzz target `kernel` of `vmm/vm/fuzz` has kept, and some hundred more.

mod hostile;

use proptest::prelude::*;
use std::path::Path;

#[test]
fn inputs_that_were_kept_do_no_harm() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vm/fuzz/seeds/kernel");
    let files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!files.is_empty(), "{} has no inputs", folder.display());
    for file in files {
        eprintln!("{}", file.display());
        hostile::kernel(&std::fs::read(&file).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_image_ends_up_where_it_must_not(input in prop::collection::vec(any::<u8>(), 0..60)) {
        hostile::kernel(&input);
    }
}
