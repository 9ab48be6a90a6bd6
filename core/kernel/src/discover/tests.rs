//! One test for each rule of the search, with mocked store and files.

use std::collections::BTreeMap;

use mockall::Sequence;

use super::*;
use crate::metadata::CorruptKind;
use crate::ports::{Corrupt, MockHostFiles, MockKernelStore, StoreError};
use crate::spec::SpecError;
use crate::testing::{built, corrupt, entry, key, listed, prebuilt};

fn env() -> DiscoverEnv {
    DiscoverEnv {
        test_kernel: None,
        kernel: None,
        uname_release: "6.1.0-9".into(),
        arch: Arch::X86_64,
        cwd: "/proj".into(),
        home: Some("/home/me".into()),
    }
}

fn kernel(text: &str) -> DiscoverEnv {
    DiscoverEnv { kernel: Some(text.into()), ..env() }
}

/// A host that has exactly these paths.
fn host(paths: &[(&str, Probe)]) -> MockHostFiles {
    let paths: BTreeMap<PathBuf, Probe> =
        paths.iter().map(|(path, probe)| (PathBuf::from(path), probe.clone())).collect();
    let mut files = MockHostFiles::new();
    files.expect_probe().returning(move |path| paths.get(path).cloned().unwrap_or(Probe::Missing));
    files
}

fn with_files(paths: &[&str]) -> MockHostFiles {
    host(&paths.iter().map(|p| (*p, Probe::File)).collect::<Vec<_>>())
}

/// A store whose list holds `entries`.
fn store(entries: Vec<Listed>) -> MockKernelStore {
    let mut store = MockKernelStore::new();
    store.expect_list().returning(move || Ok(entries.clone()));
    store
}

/// A store that must not be touched.
fn untouched() -> MockKernelStore {
    MockKernelStore::new()
}

fn found(env: &DiscoverEnv, store: &MockKernelStore, files: &MockHostFiles) -> Found {
    discover(env, store, files).expect("no error").found.expect("a kernel")
}

#[test]
fn test_kernel_comes_first_and_touches_nothing_else() {
    let env = DiscoverEnv { test_kernel: Some("img/bzImage".into()), ..kernel("6.14.2") };
    let files = with_files(&["/proj/img/bzImage", "/proj/img/vmlinux", "/proj/img/config"]);
    let found = found(&env, &untouched(), &files);
    assert_eq!(found.origin, Origin::TestKernel);
    assert_eq!(found.image, Path::new("/proj/img/bzImage"));
    assert_eq!(found.vmlinux.as_deref(), Some(Path::new("/proj/img/vmlinux")));
    assert_eq!(found.config.as_deref(), Some(Path::new("/proj/img/config")));
}

#[test]
fn an_image_in_a_tree_has_its_companions_at_the_trees_top() {
    let env = DiscoverEnv { test_kernel: Some("/src/linux/arch/x86/boot/bzImage".into()), ..env() };
    let files = with_files(&["/src/linux/arch/x86/boot/bzImage", "/src/linux/vmlinux", "/src/linux/.config"]);
    let found = found(&env, &untouched(), &files);
    assert_eq!(found.vmlinux.as_deref(), Some(Path::new("/src/linux/vmlinux")));
    assert_eq!(found.config.as_deref(), Some(Path::new("/src/linux/.config")));
}

#[test]
fn an_image_in_boot_has_its_configuration_beside_it() {
    let env = DiscoverEnv { test_kernel: Some("/boot/vmlinuz-6.12.1-cloud".into()), ..env() };
    let files = with_files(&["/boot/vmlinuz-6.12.1-cloud", "/boot/config-6.12.1-cloud"]);
    let found = found(&env, &untouched(), &files);
    assert_eq!(found.config.as_deref(), Some(Path::new("/boot/config-6.12.1-cloud")));
}

#[test]
fn test_kernel_empty_absent_or_a_directory_is_an_error() {
    let files = host(&[
        ("/proj/dir", Probe::Directory),
        ("/proj/secret", Probe::Unreadable("permission denied".into())),
    ]);
    for (value, seen) in
        [("", "empty"), ("absent", "not there"), ("dir", "a directory"), ("secret", "permission denied")]
    {
        let env = DiscoverEnv { test_kernel: Some(value.into()), ..env() };
        let error = discover(&env, &untouched(), &files).expect_err("an error");
        let text = error.to_string();
        assert!(text.contains("KTSTR_TEST_KERNEL not found"), "{text}");
        assert!(text.contains(seen), "{text}");
    }
}

#[test]
fn a_named_tree_is_the_only_place_looked_at() {
    let image = "/proj/../linux/arch/x86/boot/bzImage";
    let files = with_files(&[image, "/proj/../linux/vmlinux"]);
    let found = found(&kernel("  ../linux "), &untouched(), &files);
    assert_eq!(found.origin, Origin::NamedTree("/proj/../linux".into()));
    assert_eq!(found.image, Path::new(image));
    assert!(found.vmlinux.is_some());
    assert_eq!(found.config, None);
}

#[test]
fn a_named_tree_without_an_image_is_an_error_though_other_kernels_exist() {
    let files = with_files(&["/boot/vmlinuz", "/proj/linux/arch/x86/boot/bzImage"]);
    let error = discover(&kernel("~/linux"), &untouched(), &files).expect_err("an error");
    let text = error.to_string();
    assert!(text.contains("/home/me/linux/arch/x86/boot/bzImage"), "{text}");
}

#[test]
fn a_named_file_is_referred_to_the_other_variable() {
    let files = with_files(&["/proj/./bzImage"]);
    let error = discover(&kernel("./bzImage"), &untouched(), &files).expect_err("an error");
    assert!(matches!(error, KernelError::KernelIsFile(_)), "{error}");
    assert!(error.to_string().contains("KTSTR_TEST_KERNEL"));
}

#[test]
fn aarch64_looks_for_its_own_image() {
    let env = DiscoverEnv { arch: Arch::Aarch64, ..kernel("/src/linux") };
    let files = with_files(&["/src/linux/arch/arm64/boot/Image"]);
    let found = found(&env, &untouched(), &files);
    assert!(found.image.ends_with("arch/arm64/boot/Image"));
}

#[test]
fn a_named_version_is_the_newest_such_entry_of_the_present_fragment() {
    let stale = entry("stale", "6.14.2", Provenance::Tarball, Some("0".into()));
    let entries = vec![
        listed(&built("newer", "6.15.1")),
        listed(&stale),
        listed(&prebuilt("image", "6.14.2")),
        listed(&built("right", "6.14.2-1")),
        listed(&built("older", "6.14.2-0")),
    ];
    let found = found(&kernel("6.14.2"), &store(entries), &with_files(&[]));
    assert_eq!(found.origin, Origin::NamedEntry(key("right")));
}

#[test]
fn a_named_package_is_found_by_kind() {
    let entries = vec![listed(&built("built", "6.12.3")), listed(&prebuilt("image", "6.12.3"))];
    let found = found(&kernel("image:6.12"), &store(entries), &with_files(&[]));
    assert_eq!(found.origin, Origin::NamedEntry(key("image")));
}

#[test]
fn a_named_key_is_looked_up() {
    let mut store = MockKernelStore::new();
    store
        .expect_lookup()
        .withf(|k| k.as_str() == "local-abc")
        .returning(|_| Ok(Some(built("local-abc", "6.14.2"))));
    let found = found(&kernel("local-abc"), &store, &with_files(&[]));
    assert_eq!(found.origin, Origin::NamedEntry(key("local-abc")));
}

#[test]
fn a_missed_version_skips_the_cache_scan_and_goes_on_to_the_trees() {
    let entries = vec![listed(&built("newest", "6.15.1")), listed(&prebuilt("image", "6.12.1"))];
    let files = with_files(&["/proj/linux/arch/x86/boot/bzImage"]);
    let found_tree = found(&kernel("6.14.2"), &store(entries.clone()), &files);
    assert_eq!(found_tree.origin, Origin::Tree("/proj/linux".into()));
    let outcome = discover(&kernel("6.14.2"), &store(entries), &with_files(&[])).expect("no error");
    assert_eq!(outcome.found, None);
    assert!(outcome.skipped[0].what.contains("KTSTR_KERNEL=6.14.2"));
}

#[test]
fn a_missed_or_corrupt_key_skips_the_cache_scan_too() {
    for corrupt in [false, true] {
        let mut store = MockKernelStore::new();
        store.expect_list().never();
        store.expect_lookup().returning(move |key| {
            if !corrupt {
                return Ok(None);
            }
            Err(StoreError::Corrupt {
                key: key.clone(),
                corrupt: Corrupt { kind: CorruptKind::Truncated, detail: "short".into() },
            })
        });
        let found = found(&kernel("some-key"), &store, &with_files(&["/boot/vmlinuz"]));
        assert_eq!(found.origin, Origin::Installed);
    }
}

#[test]
fn a_failing_store_is_an_error_for_a_named_key() {
    let mut store = MockKernelStore::new();
    store.expect_lookup().returning(|_| Err(StoreError::Other("disk on fire".into())));
    let error = discover(&kernel("some-key"), &store, &with_files(&[])).expect_err("an error");
    assert_eq!(error.to_string(), "disk on fire");
}

#[test]
fn ranges_and_git_sources_are_refused() {
    for text in ["6.12..6.14", "git+https://example.org/l#x"] {
        let error = discover(&kernel(text), &untouched(), &with_files(&[])).expect_err("refused");
        assert!(matches!(error, KernelError::Spec(SpecError::NotSingle { .. })));
    }
}

#[test]
fn an_empty_ktstr_kernel_is_unset() {
    for text in ["", "  \n"] {
        let entries = vec![listed(&built("newest", "6.15.1"))];
        let found = found(&kernel(text), &store(entries), &with_files(&[]));
        assert_eq!(found.origin, Origin::NewestEntry(key("newest")));
    }
}

#[test]
fn the_scan_takes_the_newest_of_the_present_fragment_and_architecture() {
    let mut foreign = built("foreign", "6.15.3");
    foreign.metadata.arch = Arch::Aarch64;
    let stale = entry("stale", "6.15.2", Provenance::Tarball, Some("0".into()));
    let entries = vec![
        corrupt("bad", CorruptKind::Malformed),
        listed(&foreign),
        listed(&stale),
        listed(&prebuilt("image", "6.15.1")),
        listed(&built("right", "6.12.1")),
        listed(&built("older", "6.14.1")),
    ];
    let files = with_files(&["/proj/linux/arch/x86/boot/bzImage"]);
    let outcome = discover(&env(), &store(entries), &files).expect("no error");
    let found = outcome.found.expect("a kernel");
    assert_eq!(found.origin, Origin::NewestEntry(key("right")));
    assert_eq!(outcome.skipped.len(), 1);
    assert_eq!(outcome.skipped[0].what, "bad");
}

#[test]
fn an_unreadable_cache_is_noted_and_the_search_goes_on() {
    let mut store = MockKernelStore::new();
    store.expect_list().returning(|| Err(StoreError::Other("permission denied".into())));
    let outcome = discover(&env(), &store, &with_files(&["/boot/vmlinuz"])).expect("no error");
    assert_eq!(outcome.found.expect("a kernel").origin, Origin::Installed);
    assert_eq!(outcome.skipped[0].why, "permission denied");
}

/// Steps 4 to 9, each found when all before it are absent.
#[test]
fn places_on_the_host_are_tried_in_order() {
    let places = [
        "/proj/linux/arch/x86/boot/bzImage",
        "/proj/../linux/arch/x86/boot/bzImage",
        "/lib/modules/6.1.0-9/build/arch/x86/boot/bzImage",
        "/lib/modules/6.1.0-9/vmlinuz",
        "/boot/vmlinuz-6.1.0-9",
        "/boot/vmlinuz",
    ];
    for first in 0..places.len() {
        let found = found(&env(), &store(vec![]), &with_files(&places[first..]));
        assert_eq!(found.image, Path::new(places[first]));
        let tree = matches!(found.origin, Origin::Tree(_));
        assert_eq!(tree, first < 3, "{first}");
    }
}

#[test]
fn the_search_stops_at_the_first_kernel() {
    let mut files = MockHostFiles::new();
    let mut order = Sequence::new();
    for (path, probe) in [
        ("/proj/linux/arch/x86/boot/bzImage", Probe::Missing),
        ("/proj/../linux/arch/x86/boot/bzImage", Probe::File),
        ("/proj/../linux/vmlinux", Probe::Missing),
        ("/proj/../linux/.config", Probe::Missing),
    ] {
        files
            .expect_probe()
            .withf(move |asked| asked == Path::new(path))
            .times(1)
            .in_sequence(&mut order)
            .return_const(probe);
    }
    let found = found(&env(), &store(vec![]), &files);
    assert_eq!(found.origin, Origin::Tree("/proj/../linux".into()));
}

#[test]
fn an_image_that_only_root_may_read_is_passed_over_and_named() {
    let files = host(&[("/boot/vmlinuz-6.1.0-9", Probe::Unreadable("permission denied".into()))]);
    let outcome = discover(&env(), &store(vec![]), &files).expect("no error");
    let error = outcome.require().expect_err("nothing found").to_string();
    assert!(error.contains("/boot/vmlinuz-6.1.0-9: permission denied"), "{error}");
    assert!(error.contains(KTSTR_KERNEL_HINT), "{error}");
}

#[test]
fn the_running_kernel_brings_its_debug_files() {
    let files = host(&[
        ("/boot/vmlinuz-6.1.0-9", Probe::File),
        ("/boot/config-6.1.0-9", Probe::File),
        ("/usr/lib/debug/lib/modules/6.1.0-9/vmlinux", Probe::File),
        ("/lib/modules/6.1.0-9", Probe::Directory),
    ]);
    let found = found(&env(), &store(vec![]), &files);
    assert_eq!(found.config.as_deref(), Some(Path::new("/boot/config-6.1.0-9")));
    assert!(found.vmlinux.is_some());
    assert_eq!(found.modules.as_deref(), Some(Path::new("/lib/modules/6.1.0-9")));
}

#[test]
fn the_unversioned_image_is_not_given_another_kernels_files() {
    let files = with_files(&["/boot/vmlinuz", "/boot/config-6.1.0-9"]);
    let found = found(&env(), &store(vec![]), &files);
    assert_eq!(found.config, None);
}

#[test]
fn a_cached_distribution_kernel_is_the_last_resort() {
    let entries = vec![listed(&prebuilt("image", "6.12.1"))];
    let last = found(&env(), &store(entries.clone()), &with_files(&[]));
    assert_eq!(last.origin, Origin::PrebuiltEntry(key("image")));
    let host = found(&env(), &store(entries), &with_files(&["/boot/vmlinuz"]));
    assert_eq!(host.origin, Origin::Installed);
}
