//! Tests of the store in a temporary directory.

use ktstr_kernel::{Arch, CorruptKind, Event, Provenance, Silent};
use serde::Serialize;
use tempfile::TempDir;

use super::*;

const NAME: &str = "6.12.117-1-apt-x86_64-kc00000000";

struct Fixture {
    dir: TempDir,
    cache: KernelCache,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().expect("a directory");
    let cache = KernelCache::new(dir.path().join("cache"));
    Fixture { dir, cache }
}

fn key(text: &str) -> CacheKey {
    CacheKey::new(text).expect("a key")
}

impl Fixture {
    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, content).expect("written");
        path
    }

    fn files(&self, content: &str) -> NewEntry {
        NewEntry {
            image: self.file("image", content),
            image_name: "bzImage".into(),
            vmlinux: Some(self.file("elf", "ELF")),
            config: Some(self.file("dotconfig", "123456789")),
            modules: None,
            version: "6.12.117-1".into(),
            source: Provenance::AptSource { package: "linux-source-6.12".into() },
            arch: Arch::X86_64,
            ktstr_kconfig_hash: Some("00000000".into()),
            extra_kconfig_hash: None,
        }
    }

    fn store(&self, name: &str, content: &str) -> CacheEntry {
        self.cache.store(&key(name), &self.files(content)).expect("stored")
    }

    fn leftovers(&self) -> usize {
        fs::read_dir(self.cache.root())
            .expect("readable")
            .flatten()
            .filter(|e| e.file_name().to_string_lossy().starts_with(".tmp-"))
            .count()
    }

    /// The kind of damage that both lookup and list see in the entry `NAME`.
    fn damage(&self) -> CorruptKind {
        let error = self.cache.lookup(&key(NAME)).expect_err("corrupt");
        let StoreError::Corrupt { corrupt, .. } = error else {
            panic!("{error}");
        };
        let listed = self.cache.list().expect("readable").remove(0);
        assert_eq!(listed.state.expect_err("corrupt"), corrupt);
        corrupt.kind
    }
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).expect("readable")
}

#[test]
fn what_is_stored_is_found() {
    let f = fixture();
    assert_eq!(f.cache.list().expect("empty"), vec![]);
    assert_eq!(f.cache.lookup(&key(NAME)).expect("no error"), None);
    let stored = f.store(NAME, "image");
    assert_eq!(text(&stored.image), "image");
    assert_eq!(text(stored.vmlinux.as_ref().expect("vmlinux")), "ELF");
    assert_eq!(text(stored.config.as_ref().expect("config")), "123456789");
    assert_eq!(stored.metadata.config_hash.as_deref(), Some("cbf43926"));
    assert_eq!(stored.metadata.image_bytes, 5);
    assert!(stored.metadata.built_at > 1_700_000_000);
    assert_eq!(f.cache.lookup(&key(NAME)).expect("no error"), Some(stored.clone()));
    let listed = f.cache.list().expect("readable");
    assert_eq!(listed[0].state.as_ref(), Ok(&stored));
    assert_eq!(f.leftovers(), 0);
}

#[test]
fn an_entry_is_replaced_whole() {
    let f = fixture();
    f.store(NAME, "old image");
    let mut files = f.files("new");
    files.vmlinux = None;
    let stored = f.cache.store(&key(NAME), &files).expect("stored");
    assert_eq!(text(&stored.image), "new");
    assert_eq!(stored.vmlinux, None);
    assert_eq!(f.cache.list().expect("readable").len(), 1);
    assert_eq!(f.leftovers(), 0);
}

#[test]
fn modules_are_copied_with_their_directories_but_without_links() {
    let f = fixture();
    let modules = f.dir.path().join("6.12.117");
    fs::create_dir_all(modules.join("kernel/drivers")).expect("made");
    fs::write(modules.join("kernel/drivers/a.ko.xz"), "module").expect("written");
    std::os::unix::fs::symlink("/usr/src", modules.join("build")).expect("linked");
    let mut files = f.files("image");
    files.modules = Some(modules);
    let entry = f.cache.store(&key(NAME), &files).expect("stored");
    let copied = entry.modules.expect("modules");
    assert_eq!(text(&copied.join("kernel/drivers/a.ko.xz")), "module");
    assert!(!copied.join("build").is_symlink());
    fs::remove_dir_all(copied).expect("removed");
    assert_eq!(f.damage(), CorruptKind::Unknown);
}

#[test]
fn replacing_works_without_the_exchanging_rename() {
    let f = fixture();
    f.store(NAME, "old");
    let staged = ScratchDir::create(f.cache.root(), "k").expect("made");
    f.cache.fill(staged.path(), &f.files("new")).expect("filled");
    f.cache.publish_in_two_steps(staged.path(), &f.cache.dir(&key(NAME))).expect("published");
    drop(staged);
    let entry = f.cache.lookup(&key(NAME)).expect("sound").expect("there");
    assert_eq!(text(&entry.image), "new");
    assert_eq!(f.leftovers(), 0);
}

#[test]
fn a_failed_store_leaves_nothing_and_names_the_file() {
    let f = fixture();
    f.store(NAME, "old");
    let mut files = f.files("new");
    files.vmlinux = Some("/nonexistent/vmlinux".into());
    let error = f.cache.store(&key(NAME), &files).expect_err("no such file");
    assert!(error.to_string().contains("/nonexistent/vmlinux"), "{error}");
    let mut files = f.files("new");
    files.image_name = "../bzImage".into();
    f.cache.store(&key(NAME), &files).expect_err("bad name");
    assert_eq!(f.leftovers(), 0);
    let entry = f.cache.lookup(&key(NAME)).expect("sound").expect("there");
    assert_eq!(text(&entry.image), "old");
}

#[test]
fn every_kind_of_damage_is_told() {
    let f = fixture();
    let entry = f.store(NAME, "image");
    let record = f.cache.dir(&key(NAME)).join(METADATA_FILE);
    let good = text(&record);
    let with = |from: &str, to: &str| {
        assert!(good.contains(from), "{good}");
        good.replace(from, to)
    };
    let cases = [
        (good[..good.len() / 2].to_owned(), CorruptKind::Truncated),
        (String::new(), CorruptKind::Truncated),
        ("kernel".to_owned(), CorruptKind::Malformed),
        (with("\"schema\": 1", "\"schema\": 2"), CorruptKind::SchemaDrift),
        ("{}".to_owned(), CorruptKind::SchemaDrift),
        (with("x86_64", "vax"), CorruptKind::ParseError),
        (with("bzImage", "../bzImage"), CorruptKind::ParseError),
        (with("bzImage", "zImage"), CorruptKind::ImageMissing),
        (with("\"image_bytes\": 5", "\"image_bytes\": 9"), CorruptKind::Truncated),
        (with("\"image_bytes\": 5", "\"image_bytes\": 4"), CorruptKind::Unknown),
    ];
    for (content, kind) in cases {
        fs::write(&record, &content).expect("written");
        assert_eq!(f.damage(), kind, "{content}");
    }
    fs::write(&record, &good).expect("written");
    fs::remove_file(entry.vmlinux.expect("vmlinux")).expect("removed");
    assert_eq!(f.damage(), CorruptKind::Unknown);
    fs::remove_file(&record).expect("removed");
    assert_eq!(f.damage(), CorruptKind::Missing);
    fs::create_dir(&record).expect("made");
    assert_eq!(f.damage(), CorruptKind::Unreadable);
}

#[test]
fn unknown_fields_of_the_same_schema_are_passed_over() {
    let f = fixture();
    let entry = f.store(NAME, "image");
    let record = f.cache.dir(&key(NAME)).join(METADATA_FILE);
    let more = text(&record).replacen('{', "{\n  \"colour\": \"blue\",", 1);
    fs::write(&record, more).expect("written");
    assert_eq!(f.cache.lookup(&key(NAME)).expect("sound"), Some(entry));
}

/// Changes one entry's time, which can't be done through the store.
fn set_built_at(f: &Fixture, name: &str, built_at: u64) {
    #[derive(Serialize)]
    struct Edit {
        #[serde(flatten)]
        metadata: Metadata,
    }
    let entry = f.cache.lookup(&key(name)).expect("sound").expect("there");
    let mut metadata = entry.metadata;
    metadata.built_at = built_at;
    let json = serde_json::to_vec(&Edit { metadata }).expect("encoded");
    fs::write(f.cache.dir(&key(name)).join(METADATA_FILE), json).expect("written");
}

#[test]
fn the_list_is_newest_first_and_damaged_last() {
    let f = fixture();
    for (name, built_at) in [("local-a-x86_64-kc0", 5), ("local-b-x86_64-kc0", 9)] {
        f.store(name, "image");
        set_built_at(&f, name, built_at);
    }
    fs::create_dir(f.cache.root().join("local-z-x86_64-kc0")).expect("made");
    let keys: Vec<String> =
        f.cache.list().expect("readable").iter().map(|listed| listed.key.to_string()).collect();
    assert_eq!(keys, ["local-b-x86_64-kc0", "local-a-x86_64-kc0", "local-z-x86_64-kc0"]);
}

#[test]
fn clean_removes_entries_and_nothing_else_in_the_directory() {
    let f = fixture();
    for (name, built_at) in [("local-a-x86_64-kc0", 5), ("local-b-x86_64-kc0", 9)] {
        f.store(name, "image");
        set_built_at(&f, name, built_at);
    }
    // As if the cache had been pointed at somebody's home directory.
    fs::create_dir_all(f.cache.root().join("Documents/letters")).expect("made");
    fs::write(f.cache.root().join("notes"), "x").expect("written");
    fs::create_dir(f.cache.root().join("local-z-x86_64-kc0")).expect("made");
    fs::create_dir(f.cache.root().join(".tmp-dead-1-0")).expect("made");
    let names = |keys: Vec<CacheKey>| -> Vec<String> { keys.iter().map(ToString::to_string).collect() };
    let removed = f.cache.clean(CleanPolicy::CorruptOnly).expect("cleaned");
    assert_eq!(names(removed), ["local-z-x86_64-kc0"]);
    let removed = f.cache.clean(CleanPolicy::Keep(1)).expect("cleaned");
    assert_eq!(names(removed), ["local-a-x86_64-kc0"]);
    let removed = f.cache.clean(CleanPolicy::Keep(0)).expect("cleaned");
    assert_eq!(names(removed), ["local-b-x86_64-kc0"]);
    assert!(f.cache.root().join("Documents/letters").exists());
    assert!(f.cache.root().join("notes").exists());
    assert_eq!(f.leftovers(), 0);
}

#[test]
fn removing_what_is_not_there_is_no_error() {
    let f = fixture();
    assert!(!f.cache.remove(&key(NAME)).expect("no error"));
    f.store(NAME, "image");
    assert!(f.cache.remove(&key(NAME)).expect("removed"));
    assert_eq!(f.cache.lookup(&key(NAME)).expect("no error"), None);
}

#[test]
fn scratch_is_in_the_cache_and_goes_when_dropped() {
    let f = fixture();
    let scratch = f.cache.scratch(&key("k")).expect("made");
    let path = scratch.path().to_owned();
    assert!(path.starts_with(f.cache.root()));
    fs::write(path.join("file"), "x").expect("written");
    drop(scratch);
    assert!(!path.exists());
}

#[derive(Default)]
struct Events(Vec<Event>);

impl Progress for Events {
    fn report(&mut self, event: Event) {
        self.0.push(event);
    }
}

#[test]
fn a_lease_waits_for_the_other_holder_and_says_so() {
    let f = fixture();
    let held = f.cache.lease(&key("build-k"), &mut Silent).expect("free");
    let (told, wait_told) = std::sync::mpsc::channel();
    struct Tell(std::sync::mpsc::Sender<Event>);
    impl Progress for Tell {
        fn report(&mut self, event: Event) {
            self.0.send(event).expect("listening");
        }
    }
    let cache = f.cache.clone();
    let waiter = std::thread::spawn(move || {
        cache.lease(&key("build-k"), &mut Tell(told)).map(drop).map_err(|error| error.to_string())
    });
    let event = wait_told.recv().expect("an event");
    let Event::Started { stage, subject, .. } = event else {
        panic!("{event:?}");
    };
    assert_eq!(stage, Stage::Wait);
    assert!(subject.contains("build-k"), "{subject}");
    drop(held);
    waiter.join().expect("no panic").expect("got the lease");
    let finished = Event::Finished { stage: Stage::Wait };
    assert_eq!(wait_told.recv().expect("an event"), finished);
}

#[test]
fn an_entry_lock_and_a_build_lease_do_not_meet() {
    let f = fixture();
    let name = ktstr_kernel::build_lease(&key(NAME));
    let mut events = Events::default();
    let _lease = f.cache.lease(&name, &mut events).expect("free");
    f.store(NAME, "image");
    assert_eq!(events.0, vec![]);
}

#[test]
fn a_cache_without_its_lock_directory_can_still_be_read() {
    let f = fixture();
    let stored = f.store(NAME, "image");
    fs::remove_dir_all(f.cache.root().join(".locks")).expect("removed");
    assert_eq!(f.cache.lookup(&key(NAME)).expect("sound"), Some(stored));
    assert!(!f.cache.root().join(".locks").exists());
}
