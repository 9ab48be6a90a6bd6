//! Tests of planning and of the steps from a spec to a kernel.

mod trees;

use std::path::Path;

use mockall::Sequence;

use super::*;
use crate::metadata::CorruptKind;
use crate::ports::{BuildError, Corrupt, Lease, MockKernelBuilder, MockKernelSource, MockKernelStore};
use crate::progress::{Event, Silent};
use crate::testing::{FakeLease, FakeScratch, Recorder, built as built_entry, entry, key, listed, prebuilt};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn request(text: &str) -> Request {
    Request::new(text.parse().expect("a spec"), Arch::X86_64)
}

fn apt_id() -> SourceId {
    SourceId::Remote(RemoteId::AptSource {
        package: "linux-source-6.12".into(),
        version: "6.12.117-1".into(),
    })
}

fn image_id() -> SourceId {
    SourceId::Remote(RemoteId::AptImage {
        package: "linux-image-6.12.117-cloud-amd64".into(),
        version: "6.12.117-1".into(),
    })
}

fn tree_id(state: TreeState) -> TreeId {
    TreeId { dir: "/src/linux".into(), state, config_hash: None }
}

fn clean() -> TreeState {
    TreeState::Clean { commit: COMMIT.into() }
}

fn apt_key() -> String {
    format!("6.12.117-1-apt-x86_64-kc{}", ktstr_kconfig::kconfig_hash())
}

fn source_of(id: SourceId) -> MockKernelSource {
    let mut source = MockKernelSource::new();
    source.expect_identify().returning(move |_, _| Ok(id.clone()));
    source
}

/// A store without entries that stores what it is told to.
fn empty_store() -> MockKernelStore {
    let mut store = MockKernelStore::new();
    store.expect_lookup().returning(|_| Ok(None));
    store.expect_list().returning(|| Ok(vec![]));
    store.expect_lease().returning(|_, _| Ok(Box::new(FakeLease)));
    store.expect_scratch().returning(|label| Ok(Box::new(FakeScratch(format!("/tmp/{label}").into()))));
    store.expect_store().returning(|key, files| {
        let mut entry =
            entry(key.as_str(), &files.version, files.source.clone(), files.ktstr_kconfig_hash.clone());
        entry.metadata.extra_kconfig_hash = files.extra_kconfig_hash.clone();
        Ok(entry)
    });
    store
}

fn builder() -> MockKernelBuilder {
    let mut builder = MockKernelBuilder::new();
    builder.expect_preflight().returning(|_| Ok(()));
    builder.expect_build().returning(|job, _| {
        let dir = job.build_dir.clone().unwrap_or_else(|| job.tree.clone());
        Ok(Built {
            image: dir.join(job.arch.image_path()),
            vmlinux: dir.join("vmlinux"),
            config: dir.join(".config"),
            release: "6.12.0-local".into(),
        })
    });
    builder
}

/// A builder that must not be asked for anything.
fn idle() -> MockKernelBuilder {
    MockKernelBuilder::new()
}

fn acquire_tree(source: &mut MockKernelSource) {
    source.expect_acquire().returning(|_, _, scratch, _| {
        Ok(Acquired::Tree { dir: scratch.join("src"), build_dir: scratch.join("build") })
    });
}

#[test]
fn a_hit_touches_neither_builder_nor_lease() {
    let mut store = MockKernelStore::new();
    store
        .expect_lookup()
        .withf(|key| key.as_str() == apt_key())
        .returning(|key| Ok(Some(built_entry(key.as_str(), "6.12.117-1"))));
    let kernel =
        resolve(&request("apt:6.12"), &store, &source_of(apt_id()), &idle(), &mut Silent).expect("a hit");
    assert_eq!(kernel.origin, KernelOrigin::Hit { key: key(&apt_key()), built_at: 1_700_000_000 });
}

#[test]
fn a_miss_checks_tools_before_it_downloads_and_then_stores() {
    let mut order = Sequence::new();
    let mut source = source_of(apt_id());
    let mut builder = MockKernelBuilder::new();
    builder.expect_preflight().times(1).in_sequence(&mut order).returning(|_| Ok(()));
    source.expect_acquire().times(1).in_sequence(&mut order).returning(|_, _, scratch, _| {
        Ok(Acquired::Tree { dir: scratch.join("src"), build_dir: scratch.join("build") })
    });
    builder
        .expect_build()
        .times(1)
        .in_sequence(&mut order)
        .withf(|job, _| {
            job.build_dir.as_deref() == Some(&Path::new("/tmp").join(apt_key()).join("build"))
                && job.label.as_str() == apt_key()
        })
        .returning(|_, _| {
            Ok(Built {
                image: "/b/bzImage".into(),
                vmlinux: "/b/vmlinux".into(),
                config: "/b/.config".into(),
                release: "6.12.117".into(),
            })
        });
    let mut progress = Recorder::default();
    let kernel =
        resolve(&request("apt:6.12"), &empty_store(), &source, &builder, &mut progress).expect("built");
    assert_eq!(kernel.origin, KernelOrigin::Stored { key: key(&apt_key()) });
    assert_eq!(kernel.version, "6.12.117-1");
    assert_eq!(
        progress.0,
        [
            Event::Started { stage: Stage::Store, subject: apt_key(), total: None },
            Event::Finished { stage: Stage::Store },
            Event::Started { stage: Stage::CleanUp, subject: format!("/tmp/{}", apt_key()), total: None },
            Event::Finished { stage: Stage::CleanUp },
        ]
    );
}

#[test]
fn missing_tools_stop_before_the_download() {
    let mut builder = MockKernelBuilder::new();
    builder.expect_preflight().returning(|_| {
        Err(BuildError::MissingTools { missing: vec!["flex".into()], remedy: "install it".into() })
    });
    let error = resolve(&request("apt:6.12"), &empty_store(), &source_of(apt_id()), &builder, &mut Silent)
        .expect_err("no tools");
    assert!(matches!(error, KernelError::Build(BuildError::MissingTools { .. })));
}

#[test]
fn a_prebuilt_kernel_needs_no_tools_and_records_no_fragment() {
    let mut source = source_of(image_id());
    source.expect_acquire().returning(|_, _, scratch, _| {
        Ok(Acquired::Prebuilt {
            image: scratch.join("vmlinuz"),
            config: Some(scratch.join("config")),
            vmlinux: None,
            modules: Some(scratch.join("modules")),
        })
    });
    let mut store = MockKernelStore::new();
    store.expect_lookup().returning(|_| Ok(None));
    store.expect_lease().returning(|_, _| Ok(Box::new(FakeLease)));
    store.expect_scratch().returning(|_| Ok(Box::new(FakeScratch("/s".into()))));
    store
        .expect_store()
        .times(1)
        .withf(|key, files| {
            key.as_str() == "6.12.117-1-image-x86_64"
                && files.image == Path::new("/s/vmlinuz")
                && files.modules.as_deref() == Some(Path::new("/s/modules"))
                && files.image_name == "bzImage"
                && files.ktstr_kconfig_hash.is_none()
                && files.extra_kconfig_hash.is_none()
        })
        .returning(|key, files| Ok(prebuilt(key.as_str(), &files.version)));
    let mut request = request("image:6.12");
    request.extra_kconfig = Some("CONFIG_A=y\n".into());
    let kernel = resolve(&request, &store, &source, &idle(), &mut Silent).expect("fetched");
    assert!(matches!(kernel.origin, KernelOrigin::Stored { .. }));
}

#[test]
fn whoever_held_the_lease_may_have_built_it() {
    let mut store = MockKernelStore::new();
    let mut order = Sequence::new();
    store.expect_lookup().times(1).in_sequence(&mut order).returning(|_| Ok(None));
    store
        .expect_lease()
        .times(1)
        .in_sequence(&mut order)
        .withf(|name, _| name.as_str() == format!("build-{}", apt_key()))
        .returning(|_, _| Ok(Box::new(FakeLease)));
    store
        .expect_lookup()
        .times(1)
        .in_sequence(&mut order)
        .returning(|key| Ok(Some(built_entry(key.as_str(), "6.12.117-1"))));
    let mut builder = MockKernelBuilder::new();
    builder.expect_preflight().returning(|_| Ok(()));
    let kernel =
        resolve(&request("apt:6.12"), &store, &source_of(apt_id()), &builder, &mut Silent).expect("a hit");
    assert!(matches!(kernel.origin, KernelOrigin::Hit { .. }));
}

#[test]
fn force_builds_though_the_store_has_it() {
    let mut store = MockKernelStore::new();
    store.expect_lookup().never();
    store.expect_lease().returning(|_, _| Ok(Box::new(FakeLease)));
    store.expect_scratch().returning(|_| Ok(Box::new(FakeScratch("/s".into()))));
    store.expect_store().times(1).returning(|key, files| Ok(built_entry(key.as_str(), &files.version)));
    let mut source = source_of(apt_id());
    acquire_tree(&mut source);
    let mut request = request("apt:6.12");
    request.force = true;
    let kernel = resolve(&request, &store, &source, &builder(), &mut Silent).expect("built");
    assert!(matches!(kernel.origin, KernelOrigin::Stored { .. }));
}

#[test]
fn an_extra_fragment_makes_another_key_and_reaches_the_builder() {
    let mut source = source_of(apt_id());
    acquire_tree(&mut source);
    let mut builder = MockKernelBuilder::new();
    builder.expect_preflight().returning(|_| Ok(()));
    builder.expect_build().withf(|job, _| job.extra_kconfig.as_deref() == Some("123456789")).returning(
        |_, _| {
            Ok(Built {
                image: "/b/bzImage".into(),
                vmlinux: "/b/vmlinux".into(),
                config: "/b/.config".into(),
                release: "6.12.117".into(),
            })
        },
    );
    let mut request = request("apt:6.12");
    request.extra_kconfig = Some("123456789".into());
    let kernel = resolve(&request, &empty_store(), &source, &builder, &mut Silent).expect("built");
    let expected = format!("{}-xkccbf43926", apt_key());
    assert_eq!(kernel.origin, KernelOrigin::Stored { key: key(&expected) });
}

#[test]
fn a_corrupt_entry_is_replaced_with_a_warning() {
    let mut store = MockKernelStore::new();
    store.expect_lookup().returning(|key| {
        Err(StoreError::Corrupt {
            key: key.clone(),
            corrupt: Corrupt { kind: CorruptKind::ImageMissing, detail: "bzImage is gone".into() },
        })
    });
    store.expect_lease().returning(|_, _| Ok(Box::new(FakeLease)));
    store.expect_scratch().returning(|_| Ok(Box::new(FakeScratch("/s".into()))));
    store.expect_store().times(1).returning(|key, files| Ok(built_entry(key.as_str(), &files.version)));
    let mut source = source_of(apt_id());
    acquire_tree(&mut source);
    let mut progress = Recorder::default();
    resolve(&request("apt:6.12"), &store, &source, &builder(), &mut progress).expect("built anew");
    assert!(progress.warnings()[0].contains("bzImage is gone"));
}

fn offline() -> MockKernelSource {
    let mut source = MockKernelSource::new();
    source.expect_identify().returning(|_, _| {
        Err(SourceError::NotFound { what: "linux-source-6.12".into(), remedy: "run apt-get update".into() })
    });
    source
}

#[test]
fn without_a_source_an_earlier_kernel_of_that_name_is_used() {
    let mut store = MockKernelStore::new();
    store.expect_list().returning(|| {
        Ok(vec![listed(&built_entry("other", "6.14.1-1")), listed(&built_entry("right", "6.12.9-1"))])
    });
    let mut progress = Recorder::default();
    let kernel =
        resolve(&request("apt:6.12"), &store, &offline(), &idle(), &mut progress).expect("an earlier one");
    assert!(matches!(kernel.origin, KernelOrigin::Hit { key, .. } if key.as_str() == "right"));
    assert!(progress.warnings()[0].contains("apt-get update"));
}

#[test]
fn without_a_source_and_an_earlier_kernel_the_reason_is_the_sources() {
    for force in [false, true] {
        let mut store = MockKernelStore::new();
        store.expect_list().returning(move || {
            let name = if force { "6.12.9-1" } else { "6.14.1-1" };
            Ok(vec![listed(&built_entry("k", name))])
        });
        let mut request = request("apt:6.12");
        request.force = force;
        let error =
            resolve(&request, &store, &offline(), &idle(), &mut Silent).expect_err("no kernel").to_string();
        assert!(error.contains("run apt-get update"), "{error}");
    }
}

#[test]
fn a_key_must_exist_and_a_range_must_be_expanded() {
    let error = resolve(&request("some-key"), &empty_store(), &MockKernelSource::new(), &idle(), &mut Silent)
        .expect_err("no such key");
    assert!(matches!(error, KernelError::NotCached(_)), "{error}");
    let error =
        resolve(&request("6.12..6.14"), &empty_store(), &MockKernelSource::new(), &idle(), &mut Silent)
            .expect_err("a range");
    assert!(matches!(error, KernelError::Range(_)), "{error}");
}

/// Somebody who waits for the kernel need not wait for our tidying up.
#[test]
fn the_lease_is_given_back_before_the_scratch_directory_is_deleted() {
    use std::sync::{Arc, Mutex};
    struct Told(&'static str, Arc<Mutex<Vec<&'static str>>>);
    impl Drop for Told {
        fn drop(&mut self) {
            self.1.lock().expect("no panic").push(self.0);
        }
    }
    impl Lease for Told {}
    impl Scratch for Told {
        fn path(&self) -> &Path {
            Path::new("/s")
        }
    }
    let told = Arc::new(Mutex::new(Vec::new()));
    let (lease, scratch) = (told.clone(), told.clone());
    let mut store = MockKernelStore::new();
    store.expect_lookup().returning(|_| Ok(None));
    store.expect_lease().returning(move |_, _| Ok(Box::new(Told("lease", lease.clone()))));
    store.expect_scratch().returning(move |_| Ok(Box::new(Told("scratch", scratch.clone()))));
    store.expect_store().returning(|key, files| Ok(built_entry(key.as_str(), &files.version)));
    let mut source = source_of(apt_id());
    acquire_tree(&mut source);
    resolve(&request("apt:6.12"), &store, &source, &builder(), &mut Silent).expect("built");
    assert_eq!(*told.lock().expect("no panic"), ["lease", "scratch"]);
}
