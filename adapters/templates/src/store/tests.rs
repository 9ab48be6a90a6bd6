//! Made once, shared, thrown away when in doubt.

use super::*;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};

const IDENTITY: &str = "a machine";

fn kernel(crc: &str) -> KernelMark {
    KernelMark { path: "/k/bzImage".into(), crc: crc.to_string(), bytes: 8 }
}

fn store(max: u64) -> (TemplateStore, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (TemplateStore::new(dir.path().join("templates"), max), dir)
}

/// Gets a machine; returns what was told and how often it was made.
fn get(store: &TemplateStore, identity: &str, crc: &str) -> (Result<Lease, TemplateError>, Vec<Notice>, u32) {
    let (mut told, mut made) = (Vec::new(), 0);
    let kernel = kernel(crc);
    let need = Need { identity, label: "l", kernel: &kernel, patience: Duration::from_secs(5) };
    let mut make = |dir: &Path| {
        made += 1;
        fs::write(dir.join("state"), identity).map_err(Unmade::for_good)?;
        let ram = File::create(dir.join("ram0")).map_err(Unmade::for_good)?;
        ram.set_len(8 << 20).and_then(|()| ram.write_all_at(b"kernel", 5 << 20)).map_err(Unmade::for_good)
    };
    let lease = store.get(&need, &mut make, &mut |n| told.push(n));
    (lease, told, made)
}

fn made_of(store: &TemplateStore) -> (Vec<Notice>, u32) {
    let (lease, told, made) = get(store, IDENTITY, "1");
    lease.unwrap();
    (told, made)
}

#[test]
fn the_second_one_is_the_first_one() {
    let (store, _dir) = store(u64::MAX);
    assert_eq!(made_of(&store), (vec![Notice::Making], 1));
    assert_eq!(made_of(&store), (vec![], 0));
    let other = get(&store, "another machine", "1");
    assert_eq!(other.2, 1);
    assert_eq!(store.list().unwrap().len(), 2);
}

#[test]
fn whatever_is_off_is_made_anew() {
    let (store, _dir) = store(u64::MAX);
    let dir = store.dir(&TemplateStore::key(IDENTITY));
    type Harm = fn(&Path);
    let harms: [(Harm, &str); 8] = [
        (|d| fs::write(d.join("state"), "a machinf").unwrap(), "state was changed"),
        (|d| fs::write(d.join("state"), "a ma").unwrap(), "state has 4 bytes"),
        (
            |d| File::options().write(true).open(d.join("ram0")).unwrap().set_len(5).unwrap(),
            "ram0 has 5 bytes",
        ),
        (|d| write_at(&d.join("ram0"), b"k", (5 << 20) + 1), "ram0 was changed"),
        (|d| write_at(&d.join("ram0"), b"x", 1 << 20), "ram0 was changed"),
        (|d| fs::remove_file(d.join("ram0")).unwrap(), "looking at ram0"),
        (|d| fs::write(d.join(FILE), "{}").unwrap(), "reading metadata.json"),
        (
            |d| {
                let text = fs::read_to_string(d.join(FILE)).unwrap();
                fs::write(d.join(FILE), text.replace("\"schema\": 2", "\"schema\": 1")).unwrap();
            },
            "another version",
        ),
    ];
    made_of(&store);
    for (harm, why) in harms {
        harm(&dir);
        let (told, made) = made_of(&store);
        assert_eq!(made, 1, "{why}");
        let [Notice::Broken(text)] = told.as_slice() else { panic!("{told:?}") };
        assert!(text.contains(why), "{text}");
    }
    assert_eq!(made_of(&store), (vec![], 0));
}

#[test]
fn a_failed_maker_leaves_nothing_and_is_not_asked_again_at_once() {
    let (store, _dir) = store(u64::MAX);
    let kernel = kernel("1");
    let need = Need { identity: IDENTITY, label: "l", kernel: &kernel, patience: Duration::from_secs(5) };
    let tries = AtomicUsize::new(0);
    let mut make = |dir: &Path| {
        tries.fetch_add(1, Ordering::Relaxed);
        fs::write(dir.join("state"), "half").map_err(Unmade::for_good)?;
        Err(Unmade::for_good("the guest is dead"))
    };
    let first = store.get(&need, &mut make, &mut |_| {}).unwrap_err().to_string();
    assert_eq!(first, "the guest is dead");
    let second = store.get(&need, &mut make, &mut |_| {}).unwrap_err().to_string();
    assert!(second.contains("tried 0 s ago: the guest is dead"), "{second}");
    assert_eq!(tries.load(Ordering::Relaxed), 1);
    assert!(store.list().unwrap().is_empty());
    assert!(!store.names().unwrap().iter().any(|n| n.starts_with(SCRATCH)));
}

#[test]
fn a_maker_that_failed_by_chance_is_asked_again() {
    let (store, _dir) = store(u64::MAX);
    let kernel = kernel("1");
    let need = Need { identity: IDENTITY, label: "l", kernel: &kernel, patience: Duration::from_secs(5) };
    let mut killed = |_: &Path| Err(Unmade::by_chance("killed"));
    assert_eq!(store.get(&need, &mut killed, &mut |_| {}).unwrap_err().to_string(), "killed");
    assert_eq!(made_of(&store), (vec![Notice::Making], 1));
}

/// As a cache that was packed and unpacked elsewhere.
#[test]
fn files_with_other_stamps_are_read_once_and_believed_from_then_on() {
    let (store, _dir) = store(u64::MAX);
    made_of(&store);
    let dir = store.dir(&TemplateStore::key(IDENTITY));
    let record = || fs::read_to_string(dir.join(FILE)).unwrap();
    let before = record();
    let bytes = fs::read(dir.join("ram0")).unwrap();
    fs::remove_file(dir.join("ram0")).unwrap();
    fs::write(dir.join("ram0"), &bytes).unwrap();
    assert_eq!(made_of(&store), (vec![], 0));
    let after = record();
    assert_ne!(before, after);
    assert_eq!(made_of(&store), (vec![], 0));
    assert_eq!(after, record());
}

fn write_at(path: &Path, bytes: &[u8], at: u64) {
    File::options().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

#[test]
fn makers_that_come_at_once_make_one() {
    let (store, _dir) = store(u64::MAX);
    let made: u32 = std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(|| made_of(&store).1)).collect();
        all.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert_eq!(made, 1);
}

#[test]
fn who_waits_too_long_is_told_so() {
    let (store, _dir) = store(u64::MAX);
    let path = store.lock_path(&TemplateStore::key(IDENTITY));
    let held = lock::open(&path).unwrap();
    assert!(lock::try_exclusive(&held, &path).unwrap());
    let kernel = kernel("1");
    let need = Need { identity: IDENTITY, label: "l", kernel: &kernel, patience: Duration::ZERO };
    let mut told = Vec::new();
    let error = store.get(&need, &mut |_| panic!("made"), &mut |n| told.push(n)).unwrap_err();
    assert!(matches!(error, TemplateError::Busy { .. }), "{error}");
    assert_eq!(told, [Notice::Waiting]);
}

#[test]
fn the_oldest_goes_when_there_are_too_many_but_none_in_use() {
    let (store, _dir) = store(1);
    let (used, ..) = get(&store, "in use", "1");
    get(&store, "old", "1").0.unwrap();
    get(&store, "new", "1").0.unwrap();
    let left: Vec<String> = store.list().unwrap().into_iter().map(|l| l.key).collect();
    let keys = ["new", "in use"].map(TemplateStore::key);
    assert!(left.len() == 2 && keys.iter().all(|k| left.contains(k)), "{left:?}");
    drop(used);
    assert_eq!(store.clean(&|_| true).unwrap().len(), 2);
}

#[test]
fn a_kernel_that_was_replaced_takes_its_machines_along() {
    let (store, _dir) = store(u64::MAX);
    get(&store, "of the old kernel", "1").0.unwrap();
    get(&store, "of the new kernel", "2").0.unwrap();
    let left = store.list().unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].state.as_ref().unwrap().kernel.crc, "2");
}

#[test]
fn scratch_of_dead_makers_is_swept() {
    let (store, _dir) = store(u64::MAX);
    made_of(&store);
    for key in [TemplateStore::key(IDENTITY), TemplateStore::key("other")] {
        fs::create_dir(store.root().join(format!("{SCRATCH}{key}-1-0"))).unwrap();
    }
    store.clean(&|_| false).unwrap();
    assert!(!store.names().unwrap().iter().any(|n| n.starts_with(SCRATCH)));
    assert_eq!(store.list().unwrap().len(), 1);
}

#[test]
fn a_machine_that_did_not_come_up_is_thrown_away() {
    let (store, _dir) = store(u64::MAX);
    let lease = get(&store, IDENTITY, "1").0.unwrap();
    store.discard(lease).unwrap();
    assert!(store.list().unwrap().is_empty());
}
