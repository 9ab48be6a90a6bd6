//! Lists, hlists, trees, XArrays and hash tables over any memory, that may change while it is read: each walk ends within
//! reads that its limit explains.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ktstr_introspect_kernel::{Links, Walker};
use ktstr_introspect_memory::{
    LinearRange, MemoryFault, PhysAddr, PhysRange, PhysicalMemory, VirtAddr, VirtualMemory,
};
use ktstr_introspect_types::{Btf, BtfBuilder};

const BASE: u64 = 0xffff_8880_0000_0000;
const WORDS: usize = 128;
const LIMIT: usize = 64;
/// Three attempts at each walk, a few reads a node, nodes without entries on the way, depth of trees.
const READS: u64 = 40_000;

/// Words that change as they are read: read number `n` sees them all turned by `n / turn`.
struct Shifting {
    words: [u64; WORDS],
    turn: u64,
    reads: AtomicU64,
    ranges: [PhysRange; 1],
}

impl PhysicalMemory for Shifting {
    fn read(&self, at: PhysAddr, into: &mut [u8]) -> Result<(), MemoryFault> {
        let reads = self.reads.fetch_add(1, Ordering::Relaxed);
        assert!(reads < READS, "a walk without end");
        let fault = MemoryFault { address: at, length: into.len() };
        let shift = reads.checked_div(self.turn).unwrap_or(0) as usize;
        let bytes: Vec<u8> = (0..into.len())
            .map(|byte| {
                let byte = at.0 as usize + byte;
                let word = (byte < WORDS * 8).then(|| self.words[(byte / 8 + shift) % WORDS].to_le_bytes());
                word.map(|word| word[byte % 8])
            })
            .collect::<Option<_>>()
            .ok_or(fault)?;
        into.copy_from_slice(&bytes);
        Ok(())
    }

    fn ranges(&self) -> &[PhysRange] {
        &self.ranges
    }
}

fn links() -> Links {
    let mut b = BtfBuilder::new();
    let [u8_, u32_, u64_] =
        [("u8", 1), ("u32", 4), ("u64", 8)].map(|(name, size)| b.integer(name, size, false));
    b.structure("list_head", 16, &[("next", u64_, 0), ("prev", u64_, 8)]);
    b.structure("hlist_head", 8, &[("first", u64_, 0)]);
    b.structure("hlist_node", 16, &[("next", u64_, 0), ("pprev", u64_, 8)]);
    b.structure(
        "rb_node",
        24,
        &[("__rb_parent_color", u64_, 0), ("rb_right", u64_, 8), ("rb_left", u64_, 16)],
    );
    b.structure("rhashtable", 8, &[("tbl", u64_, 0)]);
    let none = b.array(u64_, 0);
    b.structure(
        "bucket_table",
        24,
        &[("size", u32_, 0), ("nest", u32_, 4), ("future_tbl", u64_, 8), ("buckets", none, 16)],
    );
    b.structure("xarray", 8, &[("xa_head", u64_, 0)]);
    let slots = b.array(u64_, 4);
    b.structure("xa_node", 40, &[("shift", u8_, 0), ("slots", slots, 8)]);
    Links::compile(&Btf::parse(b.bytes()).expect("BTF written here")).expect("all members are there")
}

pub(crate) fn walks(input: &[u8]) {
    let [start, turn, rest @ ..] = input else { return };
    let mut words = [0; WORDS];
    for (word, pair) in words.iter_mut().zip(rest.as_chunks::<2>().0) {
        // Mostly pointers into the memory itself with the low bits that trees and XArrays use; or small numbers.
        let (place, kind) = (u64::from(pair[0]), pair[1]);
        *word = if kind & 0x80 == 0 { BASE + place % WORDS as u64 * 8 + u64::from(kind & 7) } else { place };
    }
    let shared = Arc::new(Shifting {
        words,
        turn: u64::from(*turn),
        reads: AtomicU64::new(0),
        ranges: [PhysRange { start: PhysAddr(0), length: WORDS as u64 * 8 }],
    });
    let direct = LinearRange { start: VirtAddr(BASE), length: 1 << 20, physical: PhysAddr(0) };
    let memory = VirtualMemory::new(shared.clone()).with_linear(direct);
    let links = links();
    let walker = Walker::new(&memory, &links);
    let head = VirtAddr(BASE + u64::from(*start) % WORDS as u64 * 8);
    let each: [&dyn Fn() -> usize; 5] = [
        &|| walker.list("a list", head, 8, LIMIT).map_or(0, |found| found.len()),
        &|| walker.hlist("an hlist", head, 8, LIMIT).map_or(0, |found| found.len()),
        &|| walker.rbtree("a tree", head, 8, LIMIT).map_or(0, |found| found.len()),
        &|| walker.rhashtable("a table", head, 8, LIMIT).map_or(0, |found| found.len()),
        &|| walker.xarray("an xarray", head, LIMIT).map_or(0, |found| found.len()),
    ];
    for walk in each {
        shared.reads.store(0, Ordering::Relaxed);
        assert!(walk() <= LIMIT);
    }
}
