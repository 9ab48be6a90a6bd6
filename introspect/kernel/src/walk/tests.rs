//! Lists, trees and tables written here: whole, torn, circular, random.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ktstr_introspect_memory::{LinearRange, MemoryFault, PhysAddr, PhysRange, PhysicalMemory, SparseMemory};
use ktstr_introspect_types::BtfBuilder;
use proptest::prelude::*;

use super::*;
use crate::ErrorKind;

const BASE: u64 = 0xffff_8880_0000_0000;

pub(crate) fn links() -> Links {
    let mut build = BtfBuilder::new();
    let (u8_, u32_, u64_) =
        (build.integer("u8", 1, false), build.integer("u32", 4, false), build.integer("u64", 8, false));
    build.structure("list_head", 16, &[("next", u64_, 0), ("prev", u64_, 8)]);
    build.structure("hlist_head", 8, &[("first", u64_, 0)]);
    build.structure("hlist_node", 16, &[("next", u64_, 0), ("pprev", u64_, 8)]);
    build.structure(
        "rb_node",
        24,
        &[("__rb_parent_color", u64_, 0), ("rb_right", u64_, 8), ("rb_left", u64_, 16)],
    );
    build.structure("rhashtable", 8, &[("tbl", u64_, 0)]);
    let none = build.array(u64_, 0);
    build.structure(
        "bucket_table",
        24,
        &[("size", u32_, 0), ("nest", u32_, 4), ("future_tbl", u64_, 8), ("buckets", none, 16)],
    );
    build.structure("xarray", 8, &[("xa_head", u64_, 0)]);
    let slots = build.array(u64_, 4);
    build.structure("xa_node", 40, &[("shift", u8_, 0), ("slots", slots, 8)]);
    Links::compile(&Btf::parse(build.bytes()).unwrap()).unwrap()
}

/// Words at multiples of 8 from `BASE`.
fn memory(words: &[u64]) -> VirtualMemory {
    let mut physical = SparseMemory::new();
    physical.insert(PhysAddr(0), words.iter().flat_map(|word| word.to_le_bytes()).collect());
    let direct = LinearRange { start: VirtAddr(BASE), length: 1 << 20, physical: PhysAddr(0) };
    VirtualMemory::new(Arc::new(physical)).with_linear(direct)
}

fn at(word: u64) -> u64 {
    BASE + word * 8
}

#[test]
fn a_list_gives_its_objects_in_order() {
    // Head at 0, nodes at 2 and 4.
    let memory = memory(&[at(2), at(4), at(4), at(0), at(0), at(2)]);
    let links = links();
    let found = Walker::new(&memory, &links).list("list", VirtAddr(at(0)), 8, 10).unwrap();
    assert_eq!(found, [VirtAddr(at(1)), VirtAddr(at(3))]);
    let empty = Walker::new(&memory, &links).list("list", VirtAddr(at(0)), 8, 1).unwrap_err();
    assert!(matches!(empty, KernelError::Endless { limit: 1, .. }));
}

#[test]
fn a_list_that_doesnt_lead_back_is_torn_and_a_cycle_too() {
    let links = links();
    let torn = memory(&[at(2), at(4), at(4), at(0), at(0), at(0)]);
    let error = Walker::new(&torn, &links).list("list", VirtAddr(at(0)), 0, 10).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Torn);
    // 2 and 4 point at one another, consistently, and never at the head again.
    let cycle = memory(&[at(2), at(4), at(4), at(0), at(2), at(2)]);
    let error = Walker::new(&cycle, &links).list("list", VirtAddr(at(0)), 0, 10).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Torn);
    let unmapped = memory(&[at(1 << 20), 0]);
    let error = Walker::new(&unmapped, &links).list("list", VirtAddr(at(0)), 0, 10).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unmapped);
}

#[test]
fn an_hlist_checks_what_points_to_each_node() {
    let links = links();
    let good = memory(&[at(1), at(3), at(0), 0, at(1)]);
    let found = Walker::new(&good, &links).hlist("hlist", VirtAddr(at(0)), 0, 10).unwrap();
    assert_eq!(found, [VirtAddr(at(1)), VirtAddr(at(3))]);
    let torn = memory(&[at(1), at(3), at(0), 0, at(0)]);
    assert!(Walker::new(&torn, &links).hlist("hlist", VirtAddr(at(0)), 0, 10).is_err());
}

#[test]
fn a_tree_comes_in_order_and_a_child_must_know_its_parent() {
    let links = links();
    // Root pointer at 0; node 1 with children 7 (left) and 4 (right). Colour bits are set on one.
    let mut words = vec![at(1), 1, at(4), at(7), at(1), 0, 0, at(1) | 1, 0, 0];
    let found = Walker::new(&memory(&words), &links).rbtree("tree", VirtAddr(at(0)), 0, 10).unwrap();
    assert_eq!(found, [VirtAddr(at(7)), VirtAddr(at(1)), VirtAddr(at(4))]);
    words[4] = at(7);
    let error = Walker::new(&memory(&words), &links).rbtree("tree", VirtAddr(at(0)), 0, 10).unwrap_err();
    assert!(matches!(error, KernelError::Torn { at: VirtAddr(node), .. } if node == at(4)));
}

#[test]
fn a_hash_table_is_walked_with_the_one_that_it_grows_into() {
    let links = links();
    // Table at 1: two buckets, one empty (nulls), one with a node whose chain ends odd; it grows into the table at 6.
    let mut words = vec![at(1), 2, at(6), at(5) | 1, at(3) | 1, at(4) | 1, 1, 0, at(10), 0, at(8) | 1];
    let memory_ = memory(&words);
    let found = Walker::new(&memory_, &links).rhashtable("table", VirtAddr(at(0)), 0, 10).unwrap();
    assert_eq!(found, [VirtAddr(at(5)), VirtAddr(at(3)), VirtAddr(at(10))]);
    words[1] = 3;
    let error = Walker::new(&memory(&words), &links).rhashtable("table", VirtAddr(at(0)), 0, 10).unwrap_err();
    assert!(matches!(error, KernelError::Implausible { seen: 3, .. }));
}

#[test]
fn an_xarray_gives_indices_through_its_levels() {
    let links = links();
    // Node at 1 with shift 2, whose slot 1 is the node at 6 with entries in slots 0 and 3; slot 2 is a sibling.
    let words = [at(1) | 2, 2, 0, at(6) | 2, (1 << 2) | 2, 0, 0, 0x1000, 0, 0, 7];
    let memory = memory(&words);
    let found = Walker::new(&memory, &links).xarray("xarray", VirtAddr(at(0)), 10).unwrap();
    assert_eq!(found, [(4, VirtAddr(0x1000)), (7, VirtAddr(7))]);
}

/// Physical memory that another thread writes, word by word, as a running kernel does.
struct SharedWords(Vec<AtomicU64>, [PhysRange; 1]);

impl PhysicalMemory for SharedWords {
    fn read(&self, at: PhysAddr, into: &mut [u8]) -> Result<(), MemoryFault> {
        let word = self.0.get(at.0 as usize / 8).ok_or(MemoryFault { address: at, length: into.len() })?;
        into.copy_from_slice(&word.load(Ordering::Acquire).to_le_bytes()[..into.len()]);
        Ok(())
    }

    fn ranges(&self) -> &[PhysRange] {
        &self.1
    }
}

/// A writer takes nodes out and puts them elsewhere, in the order of stores of `list_del` and `list_add`, without end.
/// Every walk over that must end; what it gives must be nodes of the list; some are seen torn and say so.
#[test]
fn a_list_that_changes_under_the_walk_gives_its_nodes_or_is_torn() {
    const NODES: u64 = 16;
    let words: Vec<_> = (0..=NODES)
        .flat_map(|node| [at((node + 1) % (NODES + 1) * 2), at((node + NODES) % (NODES + 1) * 2)])
        .map(AtomicU64::new)
        .collect();
    let shared = Arc::new(SharedWords(words, [PhysRange { start: PhysAddr(0), length: (NODES + 1) * 16 }]));
    let direct = LinearRange { start: VirtAddr(BASE), length: 1 << 20, physical: PhysAddr(0) };
    let memory = VirtualMemory::new(shared.clone()).with_linear(direct);
    let (links, stop) = (links(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let word = |address: u64| &shared.0[((address - BASE) / 8) as usize];
            let (load, store) = (
                |at: u64| word(at).load(Ordering::Relaxed),
                |at: u64, to: u64| word(at).store(to, Ordering::Release),
            );
            let mut turn = 0u64;
            while !stop.load(Ordering::Relaxed) {
                turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let (node, mut after) =
                    (at((1 + (turn >> 33) % NODES) * 2), at((turn >> 40) % (NODES + 1) * 2));
                if node == after {
                    after = at(0);
                }
                let (next, prev) = (load(node), load(node + 8));
                store(next + 8, prev);
                store(prev, next);
                let next = load(after);
                store(next + 8, node);
                store(node, next);
                store(node + 8, after);
                store(after, node);
            }
        });
        let (mut whole, mut torn) = (0, 0);
        for _ in 0..20_000 {
            match Walker::new(&memory, &links).list("list", VirtAddr(at(0)), 0, 1000) {
                Ok(found) => {
                    whole += 1;
                    assert!(
                        found
                            .iter()
                            .all(|node| node.0 > at(0) && node.0 <= at(NODES * 2) && node.0 % 16 == 0)
                    );
                }
                Err(error) => {
                    torn += 1;
                    assert_eq!(error.kind(), ErrorKind::Torn, "{error}");
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(whole + torn, 20_000);
    });
}

proptest! {
    /// Random memory whose words mostly point into itself: every walk ends, with an answer within its limit.
    #[test]
    fn walks_over_random_memory_end(words in proptest::collection::vec((0u64..64, 0u64..4), 64), start in 0u64..64) {
        let links = links();
        let words: Vec<u64> = words.iter().map(|(word, low)| if *word < 8 { *word } else { at(*word) | low }).collect();
        let memory = memory(&words);
        let walker = Walker::new(&memory, &links);
        let head = VirtAddr(at(start));
        for found in [
            walker.list("list", head, 8, 100),
            walker.hlist("hlist", head, 8, 100),
            walker.rbtree("tree", head, 8, 100),
            walker.rhashtable("table", head, 8, 100),
            walker.xarray("xarray", head, 100).map(|found| found.into_iter().map(|(_, at)| at).collect()),
        ].into_iter().flatten() {
            prop_assert!(found.len() <= 100);
        }
    }
}
