//! A writer that is killed at any instant leaves the cache valid, and readers
//! never see half an entry.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ktstr_kernel::ports::{KernelStore, NewEntry};
use ktstr_kernel::{Arch, CacheKey, Provenance};
use ktstr_kernel_cache::KernelCache;

/// Set for the process that writes until it is killed: where to.
const WRITER_DIR: &str = "KTSTR_CACHE_TEST_WRITER_DIR";

fn key() -> CacheKey {
    CacheKey::new("6.12.0-tarball-x86_64-kc00000000").expect("a key")
}

/// Stores generation after generation of one entry: every file of generation
/// `n` holds nothing but the byte `n`, and the version is `n`.
fn write_generations(dir: &Path) -> ! {
    let cache = KernelCache::new(dir.join("cache"));
    let file = |name: &str| dir.join(format!("{name}-{}", std::process::id()));
    for generation in (0..=u8::MAX).cycle() {
        let (image, vmlinux, config) = (file("image"), file("vmlinux"), file("config"));
        for (path, kib) in [(&image, 64 + usize::from(generation)), (&vmlinux, 256), (&config, 1)] {
            fs::write(path, vec![generation; kib * 1024]).expect("written");
        }
        let files = NewEntry {
            image,
            image_name: "bzImage".into(),
            vmlinux: Some(vmlinux),
            config: Some(config),
            modules: None,
            version: generation.to_string(),
            source: Provenance::Tarball,
            arch: Arch::X86_64,
            ktstr_kconfig_hash: None,
            extra_kconfig_hash: None,
        };
        cache.store(&key(), &files).expect("stored");
        println!("stored {generation}");
    }
    unreachable!("the generations never end");
}

#[test]
#[ignore = "the writer that the other tests start and kill"]
fn writer() {
    if let Some(dir) = std::env::var_os(WRITER_DIR) {
        write_generations(&PathBuf::from(dir));
    }
}

struct Writer {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Writer {
    fn start(dir: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--ignored", "--exact", "writer", "--nocapture"])
            .env(WRITER_DIR, dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, lines }
    }

    /// Waits until it has stored something.
    fn await_store(&mut self) {
        let mut line = String::new();
        while !line.contains("stored ") {
            line.clear();
            let read = self.lines.read_line(&mut line).expect("readable");
            assert!(read > 0, "the writer ended by itself");
        }
    }

    fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One generation whole: the version, every byte of every file, and lengths.
fn assert_whole(cache: &KernelCache) {
    let entry = cache.lookup(&key()).expect("valid").expect("an entry once there stays there");
    let generation: u8 = entry.metadata.version.parse().expect("a generation");
    let image = fs::read(&entry.image).expect("readable");
    assert_eq!(image.len(), (64 + usize::from(generation)) * 1024);
    let vmlinux = fs::read(entry.vmlinux.expect("vmlinux")).expect("readable");
    let config = fs::read(entry.config.expect("config")).expect("readable");
    for bytes in [image, vmlinux, config] {
        assert!(bytes.iter().all(|byte| *byte == generation));
    }
    for listed in cache.list().expect("readable") {
        listed.state.expect("every entry is valid");
    }
}

fn leftovers(cache: &KernelCache) -> Vec<PathBuf> {
    fs::read_dir(cache.root())
        .expect("readable")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.to_string_lossy().contains("/.tmp-"))
        .collect()
}

#[test]
fn a_writer_killed_at_any_instant_leaves_the_cache_valid() {
    let dir = tempfile::tempdir().expect("a directory");
    let cache = KernelCache::new(dir.path().join("cache"));
    let mut with_leftovers = 0;
    for instant in 0..40 {
        let mut writer = Writer::start(dir.path());
        writer.await_store();
        std::thread::sleep(Duration::from_micros(instant * 700));
        writer.kill();
        assert_whole(&cache);
        with_leftovers += usize::from(!leftovers(&cache).is_empty());
        drop(cache.scratch(&key()).expect("made"));
        assert_eq!(leftovers(&cache), Vec::<PathBuf>::new());
    }
    // Else the kills all hit between two stores and proved nothing.
    assert!(with_leftovers > 0);
}

#[test]
fn readers_see_whole_entries_while_writers_replace_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let cache = KernelCache::new(dir.path().join("cache"));
    let mut writers = [Writer::start(dir.path()), Writer::start(dir.path())];
    writers[0].await_store();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..300 {
        let entry = cache.lookup(&key()).expect("valid").expect("there");
        seen.insert(entry.metadata.version);
        for listed in cache.list().expect("readable") {
            listed.state.expect("every entry is valid");
        }
    }
    for writer in &mut writers {
        writer.await_store();
        writer.kill();
    }
    assert_whole(&cache);
    assert!(!seen.is_empty());
}
