//! BPF programs, maps and a scheduler's end, out of a kernel written by hand: whole, cut short, and damaged.

mod world;

use ktstr_introspect_kernel::{
    BpfMap, BpfMapKind, BpfProgram, DispatchQueue, ErrorKind, Kernel, KernelError, MapValue, ProgramSampler,
};
use ktstr_introspect_memory::{MemoryFault, PhysAddr, PhysRange, PhysicalMemory, SparseMemory, VirtAddr};
use ktstr_introspect_types::DecodeLimits;
use proptest::prelude::*;
use world::{Counters, SIZE, address, at, healthy, kernel, put};

fn place(offset: usize) -> VirtAddr {
    VirtAddr(address(offset))
}

#[test]
fn programs_come_with_names_statistics_and_maps() {
    let kernel = kernel(healthy());
    assert_eq!(kernel.bpf_programs().unwrap(), [place(at::PROGRAM)]);
    let program = BpfProgram::read(&kernel, place(at::PROGRAM));
    assert_eq!((program.id.unwrap(), program.name.unwrap().as_str()), (2, "world_enqueue"));
    assert_eq!(program.verified_insns.unwrap(), 123);
    assert_eq!(program.load_time.unwrap_err().kind(), ErrorKind::Absent);
    assert_eq!(kernel.bpf_program_kind(place(at::PROGRAM)).unwrap(), "struct_ops");
    assert_eq!(kernel.bpf_program_tag(place(at::PROGRAM)).unwrap(), "0102030405060708");
    assert_eq!(kernel.bpf_program_implements(place(at::PROGRAM)).unwrap(), "enqueue");
    assert_eq!(kernel.bpf_program_maps(place(at::PROGRAM)).unwrap(), [place(at::BSS)]);
    let stats = kernel.bpf_program_stats(place(at::PROGRAM)).unwrap();
    assert_eq!((stats.run_count, stats.run_time_ns, stats.misses), (12, 1200, 1));
    assert_eq!(stats.by_cpu, [(0, 5, 500), (1, 7, 700)]);
    let sampled = ProgramSampler::new(&kernel).unwrap().sample(&kernel).unwrap();
    let [one] = sampled.as_slice() else { panic!("{sampled:?}") };
    assert_eq!((one.program, one.id), (place(at::PROGRAM), 2));
    assert_eq!((one.runs, one.run_time_ns, one.misses), (12, 1200, 1));
    assert_eq!(kernel.bpf_stats_enabled().unwrap_err().kind(), ErrorKind::Absent);
    assert_eq!(kernel.bpf_program_at(VirtAddr(0xffff_ffff_c000_00ff)).unwrap(), Some(place(at::PROGRAM)));
    assert_eq!(kernel.bpf_program_at(VirtAddr(0xffff_ffff_c000_0100)).unwrap(), None);
}

#[test]
fn arrays_and_hashes_give_keys_and_values_and_say_when_cut() {
    let kernel = kernel(healthy());
    let hash = kernel.bpf_map_contents(place(at::HASH), 10).unwrap();
    let entries: Vec<_> = hash.entries.iter().map(|entry| (entry.key.clone(), entry.value.clone())).collect();
    let value = |number: u64| MapValue::Shared(number.to_le_bytes().to_vec());
    assert_eq!(entries, [(vec![11, 0, 0, 0], value(1111)), (vec![22, 0, 0, 0], value(2222))]);
    assert!(!hash.truncated);
    let cut = kernel.bpf_map_contents(place(at::HASH), 1).unwrap();
    assert!(cut.truncated && cut.entries.len() == 1);
    let each = kernel.bpf_map_contents(place(at::PERCPU_ARRAY), 10).unwrap();
    let MapValue::PerCpu(by_cpu) = &each.entries[1].value else { panic!("per CPU") };
    assert_eq!(by_cpu[..], [(0, vec![0x20, 0, 0, 0, 0, 0, 0, 0]), (1, vec![0x40, 0, 0, 0, 0, 0, 0, 0])]);
    let other = kernel.bpf_map_contents(place(at::ARENA), 1).unwrap_err();
    assert!(matches!(other, KernelError::Implausible { .. } | KernelError::Unsupported { .. }), "{other}");
    assert_eq!(kernel.bpf_map_kind(place(at::ARENA)).unwrap(), BpfMapKind::Arena);
}

#[test]
fn references_give_what_they_stand_for_and_empty_places_nothing() {
    let contents = |kind: u8| {
        let mut bytes = healthy();
        bytes[at::REFERENCES] = kind;
        kernel(bytes).bpf_map_contents(place(at::REFERENCES), 10).unwrap()
    };
    let found = contents(3);
    let [entry] = found.entries.as_slice() else { panic!("{found:?}") };
    let (target, at) = (place(at::PROGRAM), place(at::REFERENCES + 136 + 8));
    assert_eq!(entry.value, MapValue::Reference { target, id: Some(2) });
    assert_eq!((&entry.key[..], entry.at, found.truncated), (&[1, 0, 0, 0][..], at, false));
    // Perf events have no ID.
    assert_eq!(contents(4).entries[0].value, MapValue::Reference { target, id: None });
    let kernel = kernel(healthy());
    assert_eq!(kernel.bpf_reference_name(BpfMapKind::ProgramArray, target).unwrap(), "world_enqueue");
    assert_eq!(kernel.bpf_reference_name(BpfMapKind::MapArray, place(at::HASH)).unwrap(), "a_hash");
    assert!(kernel.bpf_map_contents(place(at::REFERENCES), 0).unwrap().truncated);
    // A hash of maps holds a pointer where others hold a value.
    let mut bytes = healthy();
    bytes[at::HASH] = 13;
    put(&mut bytes, &[(at::ELEMENTS + 32, address(at::BSS)), (at::ELEMENTS + 0x40 + 32, address(at::RING))]);
    let found = world::kernel(bytes).bpf_map_contents(place(at::HASH), 10).unwrap();
    let target = |index: usize| match found.entries[index].value {
        MapValue::Reference { target, id } => (target, id),
        ref other => panic!("{other:?}"),
    };
    assert_eq!((target(0), target(1)), ((place(at::BSS), Some(3)), (place(at::RING), Some(2))));
}

#[test]
fn traces_end_where_they_end_and_queues_come_in_order() {
    let traces = kernel(healthy()).bpf_map_contents(place(at::TRACES), 10).unwrap();
    let [trace] = traces.entries.as_slice() else { panic!("{traces:?}") };
    let frames = [0xffff_ffff_8100_0010u64, 0xffff_ffff_8100_0020, 0, 0];
    let expected = frames.iter().flat_map(|frame| frame.to_le_bytes()).collect();
    assert_eq!((trace.key[0], &trace.value), (1, &MapValue::Shared(expected)));
    let mut bytes = healthy();
    put(&mut bytes, &[(at::TRACE + 8, 5 << 32)]);
    let error = kernel(bytes).bpf_map_contents(place(at::TRACES), 10).unwrap_err();
    assert!(matches!(error, KernelError::Implausible { seen: 5, .. }), "{error}");
    for (kind, order) in [(22, [7, 8]), (23, [8, 7])] {
        let mut bytes = healthy();
        bytes[at::QUEUE] = kind;
        let queue = kernel(bytes).bpf_map_contents(place(at::QUEUE), 10).unwrap();
        let values: Vec<_> = queue.entries.iter().map(|entry| entry.value.clone()).collect();
        assert_eq!(values, order.map(|n| MapValue::Shared(vec![n, 0, 0, 0])), "kind {kind}");
    }
    let mut bytes = healthy();
    put(&mut bytes, &[(at::QUEUE + 128, 9)]);
    let error = kernel(bytes).bpf_map_contents(place(at::QUEUE), 10).unwrap_err();
    assert!(matches!(error, KernelError::Implausible { seen: 9, .. }), "{error}");
}

/// Kernels keep the pointer to an element's per-CPU values behind the key or behind the key rounded up.
#[test]
fn a_per_cpu_hash_is_read_in_either_layout() {
    for distance in [28, 32] {
        let mut bytes = healthy();
        bytes[at::HASH] = 5;
        for (element, values) in
            [(at::ELEMENTS, at::PERCPU_VALUES), (at::ELEMENTS + 0x40, at::PERCPU_VALUES + 8)]
        {
            bytes[element + 32..element + 40].fill(0);
            put(&mut bytes, &[(element + distance, address(values))]);
        }
        let found = kernel(bytes).bpf_map_contents(place(at::HASH), 10).unwrap();
        let MapValue::PerCpu(by_cpu) = &found.entries[1].value else { panic!("per CPU") };
        assert_eq!(
            (found.entries[1].key[0], by_cpu[0].1[0], by_cpu[1].1[0]),
            (22, 0x20, 0x40),
            "at {distance}"
        );
    }
}

#[test]
fn a_hash_chain_that_leads_into_another_bucket_or_back_is_torn() {
    for (what, at, word) in [
        ("ends in the second bucket's", at::ELEMENTS + 0x40, 1 << 1 | 1),
        ("second element's back link", at::ELEMENTS + 0x48, address(at::BUCKETS)),
        ("a cycle", at::ELEMENTS + 0x40, address(at::ELEMENTS)),
    ] {
        let mut bytes = healthy();
        put(&mut bytes, &[(at, word)]);
        let error = kernel(bytes).bpf_map_contents(place(at::HASH), 10).unwrap_err();
        assert!(matches!(error, KernelError::Torn { .. }), "{what}: {error}");
    }
    let mut bytes = healthy();
    put(&mut bytes, &[(at::HASH + 136, 3)]);
    let error = kernel(bytes).bpf_map_contents(place(at::HASH), 10).unwrap_err();
    assert!(matches!(error, KernelError::Implausible { seen: 3, .. }), "{error}");
}

#[test]
fn variables_are_named_placed_and_decoded() {
    let kernel = kernel(healthy());
    let names: Vec<_> =
        kernel.bpf_variables(place(at::BSS)).unwrap().into_iter().map(|found| found.name).collect();
    assert_eq!(names, ["nr", "stats", "uei", "uei_dump"]);
    let member = kernel.bpf_variable(".bss", "stats.by_kind[2]").unwrap();
    assert_eq!((member.at, member.size), (place(at::BSS + 136 + 8 + 12), 4));
    assert_eq!(member.physical, Some(PhysAddr(at::BSS as u64 + 136 + 8 + 12)));
    let value = |path| {
        let found = kernel.bpf_variable(".bss", path).unwrap();
        kernel.bpf_value(&found, DecodeLimits::default()).unwrap().to_string()
    };
    assert_eq!(value("nr"), "77");
    assert_eq!(value("stats"), "{total = 0, by_kind = [0, 0, 9]}");
    assert_eq!(value("stats.by_kind[2]"), "9");
    for (suffix, path, kind) in [
        (".bss", "absent", ErrorKind::Absent),
        (".data", "nr", ErrorKind::Absent),
        (".bss", "stats.absent", ErrorKind::Absent),
        (".bss", "stats.by_kind[3]", ErrorKind::Broken),
        (".bss", "statsx", ErrorKind::Absent),
    ] {
        assert_eq!(kernel.bpf_variable(suffix, path).unwrap_err().kind(), kind, "{path}");
    }
    assert!(kernel.bpf_variables(place(at::HASH)).unwrap().is_empty());
}

/// Of two sections with the same variable that of the loaded scheduler is meant; without one nobody can tell.
#[test]
fn a_variable_of_two_schedulers_is_the_loaded_ones_or_ambiguous() {
    let mut bytes = healthy();
    bytes.copy_within(at::BSS..at::BSS + 224, at::PERCPU_ARRAY);
    bytes[at::PERCPU_ARRAY + 16] = 5;
    put(&mut bytes, &[(at::PERCPU_ARRAY + 136, 66)]);
    let found = kernel(bytes.clone()).bpf_variable(".bss", "nr").unwrap();
    assert_eq!(found.at, place(at::BSS + 136));
    let maps: Vec<_> = kernel(bytes.clone()).bpf_scheduler_maps().unwrap().into_iter().collect();
    assert_eq!(maps, [place(at::BSS)]);
    for gone in [(at::SCX_ROOT, 0), (at::STRUCT_OPS + 144 + 24, 0xffff_ffff_c000_0030)] {
        let mut bytes = bytes.clone();
        put(&mut bytes, &[gone]);
        let error = kernel(bytes).bpf_variable(".bss", "nr").unwrap_err();
        let told = "several of the BPF variables are called nr: nr in map world.bss (ID 3), nr in map world.bss (ID 5)";
        assert_eq!(error.to_string(), told);
    }
    // Another one of the loaded scheduler's own sections.
    put(&mut bytes, &[(at::USED + 8, address(at::PERCPU_ARRAY)), (at::AUX, 2 | 2 << 32)]);
    let error = kernel(bytes).bpf_variable(".bss", "nr").unwrap_err();
    assert!(matches!(error, KernelError::Ambiguous { .. }), "{error}");
}

#[test]
fn arena_pages_are_found_by_their_user_addresses() {
    let kernel = kernel(healthy());
    let arena = kernel.bpf_arena_pages(place(at::ARENA), 100).unwrap();
    assert_eq!(
        (arena.user_start, arena.pages.len(), arena.truncated),
        (VirtAddr(0x7000_0000_0000), 3, false)
    );
    assert_eq!(arena.pages[1].user, VirtAddr(0x7000_0000_1000));
    assert_eq!(arena.pages[1].bytes[..2], [0xea, 0xa2]);
    let at_page = kernel.bpf_arena_address(place(at::ARENA), VirtAddr(0x1008)).unwrap();
    assert_eq!(at_page, place(at::WINDOW + 0x1008));
    assert!(kernel.bpf_arena_pages(place(at::ARENA), 2).unwrap().truncated);
    assert!(kernel.bpf_arena_pages(place(at::HASH), 2).is_err());
}

#[test]
fn local_storage_comes_by_owner_and_rings_by_position() {
    let storage = kernel(healthy()).bpf_map_contents(place(at::STORAGE), 10).unwrap();
    let [entry] = &storage.entries[..] else { panic!("one element") };
    assert_eq!(entry.key, 0x5555u64.to_le_bytes());
    assert_eq!(entry.value, MapValue::Shared(333u64.to_le_bytes().to_vec()));
    let ring = kernel(healthy()).bpf_ring_positions(place(at::RING)).unwrap();
    assert_eq!((ring.producer, ring.consumer, ring.size, ring.waiting()), (180, 100, 4096, 80));
    assert!(kernel(healthy()).bpf_ring_positions(place(at::HASH)).is_err());
    let mut bytes = healthy();
    put(&mut bytes, &[(at::STORAGE_ELEMENT + 16, 0)]);
    assert!(kernel(bytes).bpf_map_contents(place(at::STORAGE), 10).unwrap().entries.is_empty());
}

#[test]
fn a_struct_ops_map_names_its_programs() {
    let ops = kernel(healthy()).bpf_struct_ops(place(at::STRUCT_OPS)).unwrap();
    assert_eq!((ops.interface.as_str(), ops.state.as_str()), ("sched_ext_ops", "inuse"));
    assert_eq!(ops.programs, [("enqueue".to_owned(), 2), ("init".to_owned(), 2)]);
}

#[test]
fn a_scheduler_behind_scx_root_shows_its_end_operations_queues_and_events() {
    let kernel = kernel(healthy());
    let state = kernel.sched_ext();
    assert_eq!(
        (state.state.unwrap().as_str(), state.exit_kind.unwrap().as_str()),
        ("enabled", "error_stall")
    );
    let report = kernel.scx_exit_report().unwrap().unwrap();
    assert_eq!((report.kind.as_str(), report.exit_code), ("error_stall", -110));
    assert_eq!(
        (report.reason.as_str(), report.message.as_str()),
        ("runnable task stall", "work[7] failed to run")
    );
    assert!(report.dump.starts_with("CPU states"));
    assert_eq!(report.trace.len(), 2);
    let operations = kernel.scx_operations().unwrap();
    let names: Vec<_> = operations.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["enqueue", "init"]);
    assert_eq!(kernel.scx_events().unwrap(), [("SCX_EV_A".to_owned(), 33), ("SCX_EV_B".to_owned(), 44)]);
    let queues = kernel.dispatch_queues().unwrap();
    assert_eq!(queues, [place(at::NODES + 24), place(at::QUEUE_TABLE + 0x40)]);
    let global = DispatchQueue::read(&kernel, queues[0]).id.unwrap();
    assert_eq!(kernel.queue_name(global), "global");
    assert_eq!(kernel.bypass_queue(1).unwrap(), place(at::EVENTS + 0x40 + 32));
    let records = kernel.bpf_exit_records().unwrap();
    assert_eq!((records[0].variable.as_str(), records[0].kind, records[0].exit_code), ("uei", 1026, -5));
    assert_eq!((records[0].message.as_str(), records[0].dump.as_str()), ("a task waits", "a dump"));
}

/// A variable, behind a pointer, and in what a scheduler keeps of each CPU: one form after the other since 6.14.
#[test]
fn event_counters_are_found_in_each_form_that_kernels_had() {
    for form in [Counters::Variable, Counters::Pointer, Counters::Inside] {
        let kernel = world::counting(form);
        let by_cpu = kernel.scx_events_by_cpu().unwrap();
        let numbers: Vec<_> = by_cpu.iter().map(|(cpu, events)| (*cpu, events[0].1, events[1].1)).collect();
        assert_eq!(numbers, [(0, 3, 4), (1, 30, 40)], "{form:?}");
        let sums = kernel.scx_events().unwrap();
        assert_eq!(sums, [("SCX_EV_A".to_owned(), 33), ("SCX_EV_B".to_owned(), 44)], "{form:?}");
        assert!(kernel.sched_ext().aborting.unwrap());
    }
    // A variable is there without a scheduler, what a scheduler keeps is not.
    let mut bytes = healthy();
    put(&mut bytes, &[(at::SCX_ROOT, 0)]);
    assert_eq!(kernel(bytes).scx_events().unwrap_err().kind(), ErrorKind::Null);
}

#[test]
fn no_scheduler_is_no_report_and_null_not_broken() {
    let mut bytes = healthy();
    put(&mut bytes, &[(at::SCX_ROOT, 0), (at::SCX_STATE, 0)]);
    let kernel = kernel(bytes);
    assert_eq!(kernel.scx_exit_report().unwrap(), None);
    assert_eq!(kernel.scx_events().unwrap_err().kind(), ErrorKind::Null);
    assert_eq!(kernel.sched_ext().exit_kind.unwrap_err().kind(), ErrorKind::Null);
}

#[test]
fn ids_of_queues_and_states_of_tasks_have_names() {
    let kernel = kernel(healthy());
    let names = [1 << 63 | 1, 1 << 63 | 2, 3 << 62 | 5, 99].map(|id| kernel.queue_name(id));
    assert_eq!(names, ["global", "local", "local_on 5", "0x63"]);
    assert_eq!(kernel.scx_ops_state(7 << 2 | 2), ("queued".to_owned(), 7));
    assert_eq!(kernel.scx_task_state(3 << 8 | 1), "enabled");
    let map = BpfMap::read(&kernel, place(at::BSS));
    assert_eq!((map.name.unwrap().as_str(), map.value_size.unwrap()), ("world.bss", 88));
}

/// The second task of the first CPU; nobody's wait counts while no scheduler is enabled, nor one that began after now.
#[test]
fn the_longest_wait_is_told_with_what_the_watchdog_allows() {
    let found = kernel(healthy()).scx_longest_wait().unwrap().expect("a task waits");
    assert_eq!((found.cpu, found.task, found.waited, found.limit), (0, place(at::TASKS + 0x40), 300, 400));
    let changed = |words: &[(usize, u64)]| {
        let mut bytes = healthy();
        put(&mut bytes, words);
        kernel(bytes).scx_longest_wait()
    };
    assert_eq!(changed(&[(at::SCX_STATE, 0)]).unwrap(), None);
    let young = changed(&[(at::TASKS + 0x40 + 24, 1001)]).unwrap().expect("another");
    assert_eq!((young.task, young.waited), (place(at::TASKS), 100));
    let torn = changed(&[(at::TASKS + 16, 0)]).unwrap_err();
    assert_eq!(torn.kind(), ErrorKind::Torn, "{torn}");
}

/// A guest's memory that is written while a kernel reads it.
struct Changing(std::sync::Mutex<SparseMemory>);

impl PhysicalMemory for Changing {
    fn read(&self, at: PhysAddr, into: &mut [u8]) -> Result<(), MemoryFault> {
        self.0.lock().unwrap().read(at, into)
    }
    fn ranges(&self) -> &[PhysRange] {
        &[]
    }
}

/// A program's types are parsed once; other bytes under another ID are read anew.
#[test]
fn types_are_read_once_for_as_long_as_they_are_the_same() {
    let mut memory = SparseMemory::new();
    memory.insert(PhysAddr(0), healthy());
    let memory = std::sync::Arc::new(Changing(std::sync::Mutex::new(memory)));
    let kernel = world::over(memory.clone());
    let types = || kernel.bpf_types(place(at::BTF));
    let first = types().unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &types().unwrap()));
    // The bytes go; with the old ID nobody looks at them.
    assert!(memory.0.lock().unwrap().write(PhysAddr(at::BTF_DATA as u64), &[0; 2]));
    assert!(std::sync::Arc::ptr_eq(&first, &types().unwrap()));
    assert!(memory.0.lock().unwrap().write(PhysAddr(at::BTF as u64 + 12), &[9]));
    assert!(matches!(types(), Err(KernelError::Btf(_))), "{:?}", types().map(|types| types.len()));
}

/// Everything there is to read of BPF and sched_ext.
fn all(kernel: &Kernel) {
    let without_id = [at::REFERENCES, at::TRACES, at::QUEUE].map(place);
    for map in kernel.bpf_maps().unwrap_or_default().into_iter().chain(without_id) {
        let _ =
            (kernel.bpf_map_contents(map, 50), kernel.bpf_arena_pages(map, 8), kernel.bpf_struct_ops(map));
        for variable in kernel.bpf_variables(map).unwrap_or_default() {
            let _ = kernel.bpf_value(&variable, DecodeLimits { elements: 100, values: 1000 });
        }
    }
    for program in kernel.bpf_programs().unwrap_or_default() {
        let _ = (kernel.bpf_program_stats(program), kernel.bpf_program_maps(program));
        let _ = (kernel.bpf_program_implements(program), kernel.bpf_program_kind(program));
    }
    let _ = (kernel.bpf_variable(".bss", "stats.by_kind[2]"), kernel.bpf_exit_records());
    let _ = kernel.bpf_scheduler_maps();
    let _ = kernel.scx_longest_wait();
    let _ =
        (kernel.scx_exit_report(), kernel.scx_operations(), kernel.scx_events(), kernel.dispatch_queues());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Words overwritten by pointers into the kernel itself, small numbers or noise: all that can be asked ends.
    #[test]
    fn damage_is_refused_or_answered(damage in proptest::collection::vec((0usize..0x2400 / 4, 0u8..4, any::<u64>()), 0..60)) {
        let mut bytes = healthy();
        for (at, kind, value) in damage {
            let word = match kind {
                0 => address(value as usize % SIZE),
                1 => address(value as usize % (SIZE / 8) * 8),
                2 => value % 64,
                _ => value,
            };
            bytes[at * 4..at * 4 + 4].copy_from_slice(&(word as u32).to_le_bytes());
            if kind < 2 && at % 2 == 0 {
                put(&mut bytes, &[(at * 4, word)]);
            }
        }
        all(&kernel(bytes));
    }
}
