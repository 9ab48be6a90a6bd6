//! Paths over types written here, read from memory written here.

use std::sync::Arc;

use ktstr_introspect_memory::{LinearRange, PhysAddr, SparseMemory};
use proptest::prelude::*;

use super::*;
use crate::BtfBuilder;

const BASE: VirtAddr = VirtAddr(0xffff_8880_0000_0000);

fn btf() -> Btf {
    let mut build = BtfBuilder::new();
    let u8_ = build.integer("unsigned char", 1, false);
    let int = build.integer("int", 4, true);
    let u64_ = build.integer("u64", 8, false);
    let comm = build.array(u8_, 8);
    let inner = build.union("", 8, &[("wide", u64_), ("narrow", int)]);
    let bits = build.bitfields("", 8, &[("on", int, 3, 1), ("level", int, 4, 9)]);
    let task = build.structure(
        "task_struct",
        48,
        &[("pid", int, 0), ("comm", comm, 4), ("", inner, 16), ("", bits, 24), ("prio", int, 32)],
    );
    let pointer = build.pointer(task);
    let pair = build.array(task, 2);
    let undeclared = build.forward("secret");
    let secret = build.pointer(undeclared);
    let rq = build.structure("rq", 128, &[("curr", pointer, 8), ("both", pair, 16), ("secret", secret, 112)]);
    build.typedef("rq_t", rq);
    Btf::parse(build.bytes()).unwrap()
}

fn memory(bytes: &[u8]) -> VirtualMemory {
    let mut physical = SparseMemory::new();
    physical.insert(PhysAddr(0), bytes.to_vec());
    let direct = LinearRange { start: BASE, length: 1 << 20, physical: PhysAddr(0) };
    VirtualMemory::new(Arc::new(physical)).with_linear(direct)
}

#[test]
fn members_of_anonymous_ones_arrays_and_pointers_are_reached() {
    let btf = btf();
    assert_eq!(btf.plan("task_struct.narrow").unwrap().offset(), Some(16));
    assert_eq!(btf.plan("rq_t.both[1].prio").unwrap().offset(), Some(16 + 48 + 32));
    let mut bytes = vec![0; 256];
    bytes[8..16].copy_from_slice(&(BASE.0 + 128).to_le_bytes());
    bytes[128..132].copy_from_slice(&(-7i32).to_le_bytes());
    bytes[132..136].copy_from_slice(b"swap");
    let memory = memory(&bytes);
    assert_eq!(btf.plan("rq.curr->pid").unwrap().read(&memory, BASE).unwrap() as i64, -7);
    assert_eq!(btf.plan("rq.curr.comm").unwrap().read_text(&memory, BASE).unwrap(), "swap");
    assert_eq!(btf.plan("rq.curr->comm[1]").unwrap().read(&memory, BASE).unwrap(), u64::from(b'w'));
    assert_eq!(btf.plan("rq.curr").unwrap().read(&memory, BASE).unwrap(), BASE.0 + 128);
}

#[test]
fn bitfields_are_cut_out_and_sign_extended() {
    let btf = btf();
    let mut bytes = vec![0; 64];
    bytes[24..32].copy_from_slice(&(0x1fe_u64 << 4 | 1 << 3).to_le_bytes());
    let memory = memory(&bytes);
    assert_eq!(btf.plan("task_struct.on").unwrap().read(&memory, BASE).unwrap() as i64, -1);
    assert_eq!(btf.plan("task_struct.level").unwrap().read(&memory, BASE).unwrap() as i64, -2);
}

#[test]
fn absent_wrong_and_broken_are_told_apart() {
    let btf = btf();
    assert!(btf.plan("task_struct.scx").unwrap_err().is_absent());
    assert!(btf.plan("scx_sched.ops").unwrap_err().is_absent());
    let wrong = btf.plan("task_struct.pid.x").unwrap_err();
    assert!(matches!(&wrong, PlanError::NotComposite { .. }) && !wrong.is_absent());
    assert!(matches!(btf.plan("rq.secret->x"), Err(PlanError::NotComposite { .. })));
    assert!(matches!(btf.plan("rq.both[2].pid"), Err(PlanError::Index { index: 2, count: 2, .. })));
    assert!(matches!(btf.plan("rq both"), Err(PlanError::Syntax { .. })));
    assert_eq!(btf.plan_any(&["rq.gone", "rq.curr"]).unwrap().path(), "rq.curr");
    assert_eq!(
        btf.plan_any(&["task_struct.pid.counter", "task_struct.pid"]).unwrap().path(),
        "task_struct.pid"
    );
    assert!(btf.plan_any(&["rq.gone", "rq.lost"]).unwrap_err().is_absent());
}

/// A pointer to what its own file only declared leads on where another file had the whole of it, of the same kind.
#[test]
fn a_declaration_stands_for_the_definition_of_its_name_and_kind() {
    let mut build = BtfBuilder::new();
    let u64_ = build.integer("u64", 8, false);
    let (declared, of_union) = (build.forward("later"), build.forward_union("later"));
    let (to_struct, to_union) = (build.pointer(declared), build.pointer(of_union));
    build.structure("early", 16, &[("one", to_struct, 0), ("other", to_union, 8)]);
    build.union("later", 8, &[("in_union", u64_)]);
    build.structure("later", 24, &[("pad", u64_, 0), ("in_struct", u64_, 16)]);
    let btf = Btf::parse(build.bytes()).unwrap();
    assert_eq!(btf.plan("early.one->in_struct").unwrap().offsets().collect::<Vec<_>>(), [0, 16]);
    assert_eq!(btf.plan("early.other->in_union").unwrap().offsets().collect::<Vec<_>>(), [8, 0]);
    assert_eq!(btf.plan("early.one[2].in_struct").unwrap().offsets().collect::<Vec<_>>(), [0, 2 * 24 + 16]);
    // It is looked into, so that what it lacks is absent on this kernel, and no mistake in the path.
    assert!(btf.plan("early.one->in_union").unwrap_err().is_absent());
}

#[test]
fn null_and_unmapped_keep_path_and_address() {
    let plan = btf().plan("rq.curr->pid").unwrap();
    let fault = plan.read(&memory(&[0; 64]), BASE).unwrap_err();
    assert_eq!(fault, PlanFault::Null { path: "rq.curr->pid".into(), at: VirtAddr(BASE.0 + 8) });
    let fault = plan.read(&memory(&[0xff; 64]), BASE).unwrap_err();
    assert!(fault.to_string().starts_with("cannot read rq.curr->pid: "), "{fault}");
    assert!(matches!(
        btf().plan("rq.both").unwrap().read(&memory(&[0; 64]), BASE),
        Err(PlanFault::NotANumber { .. })
    ));
}

#[test]
fn anonymous_structs_without_end_are_broken_not_absent() {
    let mut build = BtfBuilder::new();
    // Each is the other's anonymous member, twice.
    build.structure("a", 8, &[("", TypeId(2), 0), ("", TypeId(2), 0)]);
    build.structure("", 8, &[("", TypeId(1), 0), ("", TypeId(1), 0)]);
    let refused = Btf::parse(build.bytes()).unwrap().plan("a.x").unwrap_err();
    assert!(matches!(&refused, PlanError::Btf { source: BtfError::Members { .. }, .. }), "{refused}");
}

proptest! {
    #[test]
    fn any_text_compiles_or_is_refused(text in "[a-z_.>\\[\\]0-9-]{0,24}") {
        let _ = btf().plan(&text);
        let _ = btf().plan(&format!("rq.{text}"));
    }

    #[test]
    fn a_bitfield_reads_what_was_written(shift in 0u8..8, bits in 1u8..=57, value: u64) {
        let mut build = BtfBuilder::new();
        let u64_ = build.integer("u64", 8, false);
        build.bitfields("s", 16, &[("f", u64_, u32::from(shift), bits)]);
        let btf = Btf::parse(build.bytes()).unwrap();
        let value = value & (u64::MAX >> (64 - bits));
        let memory = memory(&(u128::from(value) << shift).to_le_bytes());
        prop_assert_eq!(btf.plan("s.f").unwrap().read(&memory, BASE).unwrap(), value);
    }
}
