//! Maps of every kind, whole, cut, ambiguous and unreadable.

use super::*;
use crate::ArenaPage;
use proptest::prelude::*;

fn fields(members: &[(&str, Value)]) -> Value {
    Value::Fields(members.iter().map(|(name, value)| ((*name).to_string(), value.clone())).collect())
}

fn shared(key: u64, value: Value) -> EntryState {
    EntryState { typed_key: Value::Unsigned(key), typed: EntryValue::Shared(value), ..EntryState::default() }
}

fn map(kind: &str, entries: Vec<EntryState>) -> MapState {
    MapState { name: "m".into(), kind: kind.into(), looked_at: entries.len(), entries, ..MapState::default() }
}

fn seen(n: i64) -> Value {
    fields(&[("seen", Value::Signed(n)), ("on", Value::Flag(true))])
}

fn told<T: std::fmt::Debug>(result: Result<T, SnapshotError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn an_arrays_elements_are_had_by_index_zero_or_not() {
    let mut state = map("array", vec![shared(2, seen(5))]);
    (state.looked_at, state.zero) = (4, Some(EntryValue::Shared(seen(0))));
    let view = MapView::new(&state);
    assert_eq!(view.at(2).unwrap().get("seen").unwrap().as_u64(), Ok(5));
    let zero = view.at(3).unwrap();
    assert_eq!((zero.get("seen").unwrap().as_u64(), zero.key().as_u64()), (Ok(0), Ok(3)));
    assert_eq!(told(view.at(4)), "no entry at index 4 among the 4 of map \"m\"");
    assert_eq!((view.len(), view.is_empty(), view.entries().count()), (4, false, 1));
    let truncated = MapState { truncated: true, ..state.clone() };
    let text = told(MapView::new(&truncated).at(4));
    assert_eq!(text, "no entry at index 4 among the 4 of map \"m\" that were read; it has more");
    assert_eq!(told(view.at(2).unwrap().get("gone")), "m[2].gone: no field \"gone\"; there is on, seen");
    assert_eq!(
        told(view.at(2).unwrap().get("on").unwrap().as_str()),
        "m[2].on: expected text, the value is true"
    );
}

#[test]
fn a_hashs_entries_are_found_filtered_and_compared() {
    let task = |pid| fields(&[("pid", Value::Signed(pid)), ("comm", Value::Text(format!("w{pid}")))]);
    let of = |pid, n| EntryState { typed_key: task(pid), ..shared(0, seen(n)) };
    let state = map("task_storage", vec![of(7, 1), of(8, 9), of(9, 3)]);
    let view = MapView::new(&state);
    let found = view.find(|entry| entry.key().get("comm").is_ok_and(|c| c.as_str() == Ok("w8"))).unwrap();
    assert_eq!(found.get("seen").unwrap().as_i64(), Ok(9));
    let many = view.filter(|entry| entry.get("seen").is_ok_and(|n| n.as_i64().is_ok_and(|n| n > 1))).unwrap();
    assert_eq!(many.len(), 2);
    let most = view.max_by(|entry| entry.get("seen")?.as_i64()).unwrap();
    assert_eq!(most.key().get("pid").unwrap().as_i64(), Ok(8));
    assert_eq!(view.at(2).unwrap().key().get("pid").unwrap().as_i64(), Ok(9));
    assert_eq!(told(view.find(|_| false)), "no entry that fits among the 3 of map \"m\"");
    let odd = view.max_by(|entry| entry.get("unseen")?.as_i64());
    assert!(told(odd).ends_with("no field \"unseen\"; there is on, seen"));
    assert!(told(view.cpu(0)).contains("one value for all CPUs"));
    assert!(told(found.cpu_sum_u64("seen")).contains("one value for all CPUs"));
}

#[test]
fn values_of_each_cpu_are_chosen_or_taken_together() {
    let each = EntryValue::PerCpu(vec![(0, seen(4)), (1, seen(-1)), (3, seen(7))]);
    let state = map("percpu_array", vec![EntryState { typed: each, ..shared(0, Value::Absent) }]);
    let view = MapView::new(&state);
    let entry = view.at(0).unwrap();
    assert_eq!((entry.cpu_sum_i64("seen"), entry.cpu_min_i64("seen")), (Ok(10), Ok(-1)));
    assert_eq!((entry.cpu_max_f64("seen"), entry.cpu_sum_f64("seen")), (Ok(7.0), Ok(10.0)));
    assert_eq!(
        told(entry.cpu_max_u64("seen")),
        "m[0] on cpu1.seen: expected an unsigned number, the value is -1"
    );
    let cpus: Vec<u32> = entry.cpu_each("").unwrap().into_iter().map(|(cpu, _)| cpu).collect();
    assert_eq!(cpus, [0, 1, 3]);
    assert!(matches!(entry.get("seen"), Err(SnapshotError::PerCpu(_))));
    let of_cpu = |cpu| view.cpu(cpu)?.at(0)?.get("seen")?.as_i64();
    assert_eq!(of_cpu(3), Ok(7));
    assert_eq!(told(of_cpu(2)), "CPUs of m: expected an index below 3, got 2");
}

#[test]
fn a_sum_that_does_not_fit_is_none() {
    let half = Value::Unsigned(1 << 63);
    let each = EntryValue::PerCpu(vec![(0, half.clone()), (1, half)]);
    let state = map("percpu_hash", vec![EntryState { typed: each, ..shared(0, Value::Absent) }]);
    let entry = MapView::new(&state).at(0).unwrap();
    assert_eq!(entry.cpu_sum_u64(""), Err(SnapshotError::Overflow("u64")));
    assert_eq!(entry.cpu_max_u64(""), Ok(1 << 63));
}

#[test]
fn rings_arenas_and_traces_are_read_as_what_they_are() {
    let ring = MapState {
        ring: Some(RingState { producer: 180, consumer: 100, size: 4096 }),
        ..map("ringbuf", vec![])
    };
    assert_eq!(MapView::new(&ring).ringbuf().unwrap().waiting(), 80);
    let arena = ArenaState { pages: vec![ArenaPage::new(0x1000, vec![7; 8])], ..ArenaState::default() };
    let arena = MapState { arena: Some(arena), ..map("arena", vec![]) };
    assert_eq!(MapView::new(&arena).arena().unwrap().bytes(0x1000, 2), Some(vec![7, 7]));
    let names = ["pick_next", "schedule"].map(|name| Value::Text(name.into()));
    let traces = map("stack_trace", vec![shared(5, Value::List(names.to_vec()))]);
    assert_eq!(MapView::new(&traces).stack_trace(5).unwrap(), ["pick_next", "schedule"]);
    assert_eq!(told(MapView::new(&traces).stack_trace(6)), "no entry with ID 6 among the 1 of map \"m\"");
    assert_eq!(told(MapView::new(&ring).arena()), "map \"m\" is of kind ringbuf, expected an arena");
    assert_eq!(
        told(MapView::new(&ring).stack_trace(0)),
        "map \"m\" is of kind ringbuf, expected stack_trace"
    );
}

#[test]
fn why_there_are_no_entries_is_told() {
    let torn = MapState { note: Some("its contents can't be read: torn".into()), ..map("hash", vec![]) };
    let view = MapView::new(&torn);
    let text = "map \"m\" is of kind hash, expected one with entries (its contents can't be read: torn)";
    assert_eq!(told(view.at(0)), text);
    assert_eq!(told(view.filter(|_| true)), text);
    let empty = MapState { note: Some("empty".into()), ..map("hash", vec![]) };
    assert_eq!(MapView::new(&empty).filter(|_| true).unwrap(), []);
    assert_eq!(
        told(MapView::new(&empty).max_by(|_| Ok(1))),
        "no entry at all that is not zero among the 0 of map \"m\""
    );
}

#[test]
fn a_name_stands_for_one_map() {
    let named = |id, name: &str, in_use| MapState { id, in_use, name: name.into(), ..MapState::default() };
    let maps = [
        named(1, "old.bss", false),
        named(2, "fixture.bss", true),
        named(3, "tasks", true),
        named(4, "tasks", true),
    ];
    let all: Vec<&MapState> = maps.iter().collect();
    let find = |name: &str| find_map("s", &all, name).map(|view| view.state().id);
    assert_eq!((find("old.bss"), find(".bss")), (Ok(1), Ok(2)));
    assert_eq!(told(find("tasks")), "several BPF maps are meant by \"tasks\": tasks (ID 3), tasks (ID 4)");
    assert_eq!(
        told(find("task")),
        "no BPF map \"task\" in snapshot \"s\"; there is old.bss, fixture.bss, tasks, tasks"
    );
}

proptest! {
    /// The figures over all CPUs agree with those of each.
    #[test]
    fn cpus_are_summed_as_one_by_one(values in proptest::collection::vec(-1000i64..1000, 1..20)) {
        let each = (0u32..).zip(values.iter().map(|n| Value::Signed(*n))).collect();
        let state = map("percpu_array", vec![EntryState { typed: EntryValue::PerCpu(each), ..shared(0, Value::Absent) }]);
        let entry = MapView::new(&state).at(0).unwrap();
        prop_assert_eq!(entry.cpu_sum_i64(""), Ok(values.iter().sum()));
        prop_assert_eq!(entry.cpu_min_i64("").ok(), values.iter().min().copied());
        prop_assert_eq!(entry.cpu_max_i64("").ok(), values.iter().max().copied());
        let one_by_one: Result<Vec<i64>, _> = (0..values.len() as u32)
            .map(|cpu| MapView::new(&state).cpu(cpu)?.at(0)?.value()?.as_i64())
            .collect();
        prop_assert_eq!(one_by_one, Ok(values));
    }
}
