//! What the BPF maps of a kernel written by hand come to: values that a check can ask for.

#[path = "../../../introspect/kernel/tests/world/mod.rs"]
mod world;

use ktstr_live_kernel::maps;
use ktstr_monitor::{KernelState, SchedExtState, Snapshot, SnapshotCause, SnapshotError, Value};
use world::{at, healthy, kernel, put};

fn snapshot(bytes: Vec<u8>) -> Snapshot {
    let maps = maps(&kernel(bytes)).expect("the maps are found");
    let scx = SchedExtState { state: "enabled".into(), maps, ..SchedExtState::default() };
    let state = Some(KernelState { sched_ext: Some(scx), ..KernelState::default() });
    Snapshot { state, ..Snapshot::new("s", 0, 0, SnapshotCause::Op) }
}

#[test]
fn sections_hashes_and_arrays_are_read_by_type() -> Result<(), SnapshotError> {
    let s = snapshot(healthy());
    assert_eq!((s.var("nr")?.as_u64()?, s.var("stats.by_kind[2]")?.as_u64()?), (77, 9));
    let exit = s.var("uei")?;
    assert_eq!((exit.get("exit_code")?.as_i64()?, exit.get("reason")?.as_str()?), (-5, "stalled"));
    let hash = s.map("a_hash")?;
    let found = hash.find(|entry| entry.key().as_u64() == Ok(22))?;
    assert_eq!((found.value()?.as_u64()?, hash.len()), (2222, 2));
    let most = hash.max_by(|entry| entry.value()?.as_u64())?;
    assert_eq!(most.key().as_u64()?, 22);
    Ok(())
}

#[test]
fn each_cpus_values_are_told_apart() -> Result<(), SnapshotError> {
    let s = snapshot(healthy());
    let each = s.map("per_cpu")?;
    assert_eq!((each.at(1)?.cpu_sum_u64("")?, each.at(0)?.cpu_max_u64("")?), (0x60, 0x30));
    assert_eq!(each.cpu(1)?.at(0)?.value()?.as_u64()?, 0x30);
    assert!(matches!(each.at(0)?.value(), Err(SnapshotError::PerCpu(_))));
    // What is zero on every CPU is left out, and known all the same.
    let mut bytes = healthy();
    put(&mut bytes, &[(at::PERCPU_VALUES, 0), (at::PERCPU_VALUES + 0x40, 0)]);
    let s = snapshot(bytes);
    let each = s.map("per_cpu")?;
    assert_eq!((each.entries().count(), each.len()), (1, 2));
    assert_eq!((each.at(0)?.cpu_sum_u64("")?, each.at(1)?.cpu_sum_u64("")?), (0, 0x60));
    assert!(matches!(each.at(2), Err(SnapshotError::EntryMissing { looked_at: 2, .. })));
    Ok(())
}

#[test]
fn rings_arenas_and_storage_are_read_as_what_they_are() -> Result<(), SnapshotError> {
    let s = snapshot(healthy());
    assert_eq!(s.map("a_ring")?.ringbuf()?.waiting(), 80);
    let arena = s.map("an_arena")?.arena()?;
    assert_eq!((arena.pages.len(), arena.u64_at(0x7000_0000_1000)), (3, Some(0xa2ea)));
    assert_eq!((arena.pages[0].bytes.len(), arena.pages[1].bytes.len()), (0, 2));
    let of_task = s.map("of_tasks")?.at(0)?;
    // There is no task at that address.
    assert_eq!(of_task.key().get("address")?.as_u64()?, 0x5555);
    assert_eq!(of_task.key().get("comm")?.value(), &Value::Absent);
    assert_eq!(of_task.value()?.as_u64()?, 333);
    Ok(())
}

#[test]
fn only_the_loaded_schedulers_maps_are_active() {
    let s = snapshot(healthy());
    let active = s.active().expect("one is loaded");
    assert_eq!(active.var("nr").expect("its own").as_u64(), Ok(77));
    assert!(matches!(active.map("a_hash"), Err(SnapshotError::MapMissing { .. })));
    let mut bytes = healthy();
    put(&mut bytes, &[(at::SCX_ROOT, 0)]);
    let s = snapshot(bytes);
    assert!(s.active().is_err());
    assert_eq!(s.var("nr").expect("what is left").as_u64(), Ok(77));
}
