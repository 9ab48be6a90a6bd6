//! Hostile bytes on every build: what the fuzz targets have kept, and some thousand inputs more.

mod hostile;
mod world;

use proptest::prelude::*;
use std::path::Path;
use std::process::Command;

/// Runs `target` on each input kept under its name: seeds, and what an hour of fuzzing has found a way for.
fn replay(name: &str, target: fn(&[u8])) {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let corpus = tempfile::tempdir().unwrap();
    let unpacked = Command::new("tar")
        .arg("-xzf")
        .arg(fuzz.join(format!("corpora/{name}.tar.gz")))
        .arg("-C")
        .arg(corpus.path())
        .output()
        .expect("running tar");
    assert!(unpacked.status.success(), "{}", String::from_utf8_lossy(&unpacked.stderr));
    for folder in [&fuzz.join("seeds").join(name), corpus.path()] {
        let files: Vec<_> = std::fs::read_dir(folder)
            .unwrap_or_else(|e| panic!("reading {}: {e}", folder.display()))
            .map(|entry| entry.unwrap().path())
            .collect();
        assert!(!files.is_empty(), "{} has no inputs", folder.display());
        for file in files {
            // What panics is the one named last.
            eprintln!("{}", file.display());
            target(&std::fs::read(&file).unwrap());
        }
    }
}

#[test]
fn types_that_were_kept_do_no_harm() {
    replay("btf", hostile::btf);
}

#[test]
fn files_that_were_kept_do_no_harm() {
    replay("files", hostile::files);
}

#[test]
fn tables_of_symbols_that_were_kept_do_no_harm() {
    replay("kallsyms", hostile::kallsyms);
}

#[test]
fn kernels_that_were_kept_do_no_harm() {
    replay("kernel", hostile::kernel);
}

#[test]
fn links_and_page_tables_that_were_kept_do_no_harm() {
    replay("page_tables", hostile::page_tables);
    replay("walks", hostile::walks);
}

fn input() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..600)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_types_harm(input in input()) {
        hostile::btf(&input);
    }

    #[test]
    fn no_tables_of_symbols_harm(input in input()) {
        hostile::kallsyms(&input);
    }

    #[test]
    fn no_kernel_harms(input in input()) {
        hostile::kernel(&input);
    }

    #[test]
    fn no_page_tables_harm(input in input()) {
        hostile::page_tables(&input);
    }

    #[test]
    fn no_links_harm(input in input()) {
        hostile::walks(&input);
    }
}
