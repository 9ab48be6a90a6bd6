//! RAM goes out and comes back as it was; the mailbox is found and filled.

use super::*;
use ktstr_machine::mailbox::layout::{ARCHIVE_BYTES_AT, MAGIC, MARK};
use std::sync::Arc;

fn node(pages: u64) -> NodeRam {
    let file = tempfile::tempfile().unwrap();
    file.set_len(pages * PAGE as u64).unwrap();
    NodeRam { file: Arc::new(file), bytes: pages * PAGE as u64 }
}

fn write_page(node: &NodeRam, page: u64, content: &[u8]) {
    node.file.write_all_at(content, page * PAGE as u64).unwrap();
}

fn mark(node: &NodeRam, page: u64, index: u64) {
    write_page(node, page, &[&MARK[..], &index.to_le_bytes(), &(!index).to_le_bytes()].concat());
}

fn read_page(node: &NodeRam, page: u64) -> Vec<u8> {
    let mut bytes = vec![0; PAGE];
    node.file.read_exact_at(&mut bytes, page * PAGE as u64).unwrap();
    bytes
}

/// Two nodes; the mailbox's four pages lie scattered over both.
fn machine() -> Vec<NodeRam> {
    let nodes = vec![node(600), node(300)];
    write_page(&nodes[0], 0, b"zero");
    write_page(&nodes[0], 599, &[7; PAGE]);
    write_page(&nodes[1], 3, b"three");
    for (number, page, index) in [(0, 300, 0), (0, 301, 1), (1, 9, 2), (0, 5, 3)] {
        mark(&nodes[number], page, index);
    }
    nodes
}

#[test]
fn a_copy_has_the_same_pages_and_the_work_in_its_mailbox() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = machine();
    save_ram(&nodes, 4, dir.path()).unwrap();
    let copy = vec![node(600), node(300)];
    for (number, node) in copy.iter().enumerate() {
        load_node(node, number, dir.path()).unwrap();
    }
    let work: Vec<u8> = (0..2 * PAGE).map(|i| (i % 251) as u8).collect();
    let bytes = |range: std::ops::Range<usize>| Blob::Bytes(Arc::new(work[range].to_vec()));
    let wake = Wake { init: vec![bytes(0..100), bytes(100..5000)], clock: None, entropy: [1; 32] };
    fill_mailbox(&copy, &[bytes(5000..6000), bytes(6000..7000)], &wake, dir.path()).unwrap();
    for (number, page) in [(0, 0), (0, 599), (0, 100), (1, 3), (1, 4)] {
        assert_eq!(read_page(&copy[number], page), read_page(&nodes[number], page), "{number} {page}");
    }
    let mailbox: Vec<u8> =
        [(0, 300), (0, 301), (1, 9), (0, 5)].iter().flat_map(|(n, p)| read_page(&copy[*n], *p)).collect();
    assert_eq!(mailbox[..5000], work[..5000]);
    assert!(mailbox[5000..2 * PAGE].iter().all(|b| *b == 0), "what follows the program is zero");
    assert_eq!(mailbox[2 * PAGE..2 * PAGE + 2000], work[5000..7000]);
    let number = |at: usize| u64::from_le_bytes(mailbox[at..at + 8].try_into().unwrap());
    assert_eq!((number(3 * PAGE), number(3 * PAGE + ARCHIVE_BYTES_AT)), (MAGIC, 2000));
}

#[test]
fn a_saved_machine_takes_no_room_for_empty_pages() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = machine();
    write_page(&nodes[0], 50, &[0; PAGE]);
    save_ram(&nodes, 4, dir.path()).unwrap();
    use std::os::unix::fs::MetadataExt;
    let blocks = std::fs::metadata(ram_file(dir.path(), 0)).unwrap().blocks();
    assert!(blocks * 512 <= 4 * PAGE as u64, "{blocks} blocks");
}

#[test]
fn a_mailbox_with_a_page_lost_or_twice_is_refused() {
    let lost = save_ram(&machine(), 5, tempfile::tempdir().unwrap().path()).unwrap_err().to_string();
    assert!(lost.contains("page 4 of the mailbox is nowhere"), "{lost}");
    let nodes = machine();
    mark(&nodes[1], 200, 2);
    let twice = save_ram(&nodes, 4, tempfile::tempdir().unwrap().path()).unwrap_err().to_string();
    assert!(twice.contains("page 2 of the mailbox is in two places"), "{twice}");
}

#[test]
fn broken_files_are_refused_and_harm_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = machine();
    save_ram(&nodes, 4, dir.path()).unwrap();
    let fill = |bytes: usize| {
        let init = vec![Blob::Bytes(Arc::new(vec![1; bytes]))];
        fill_mailbox(&nodes, &[], &Wake { init, clock: None, entropy: [0; 32] }, dir.path())
    };
    let text = fill(4 * PAGE).unwrap_err().to_string();
    assert!(text.contains("12288 bytes for 16384 bytes of work"), "{text}");
    // Places outside of RAM.
    std::fs::write(dir.path().join(MAILBOX), [0xff; 32]).unwrap();
    assert!(matches!(fill(100), Err(MachineError::Template { .. })));
    std::fs::remove_file(dir.path().join(MAILBOX)).unwrap();
    assert!(matches!(fill(100), Err(MachineError::Template { .. })));
    let ram = std::fs::OpenOptions::new().write(true).open(ram_file(dir.path(), 1)).unwrap();
    ram.set_len(PAGE as u64).unwrap();
    let text = load_node(&nodes[1], 1, dir.path()).unwrap_err().to_string();
    assert!(text.contains("ram1 has 4096 bytes, expected 1228800"), "{text}");
    assert!(matches!(load_node(&nodes[0], 7, dir.path()), Err(MachineError::Template { .. })));
}
