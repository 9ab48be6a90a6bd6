//! Tests of cache keys.

use proptest::prelude::*;

use super::*;
use crate::testing::key;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn tree(state: TreeState, config_hash: Option<&str>) -> TreeId {
    TreeId { dir: "/src/linux".into(), state, config_hash: config_hash.map(Into::into) }
}

fn clean() -> TreeState {
    TreeState::Clean { commit: COMMIT.into() }
}

#[test]
fn fetched_kernels_are_named_by_version_kind_arch_and_configuration() {
    let tarball = RemoteId::Tarball { version: "6.14.2".into() };
    let apt =
        RemoteId::AptSource { package: "linux-source-6.12".into(), version: "6.12.117-1~deb12u1".into() };
    let image = RemoteId::AptImage {
        package: "linux-image-6.12.117+deb12-cloud-amd64".into(),
        version: "6.12.117-1~deb12u1".into(),
    };
    let names = [&tarball, &apt, &image].map(|id| remote_key(id, Arch::X86_64, "1234").to_string());
    assert_eq!(
        names,
        [
            "6.14.2-tarball-x86_64-kc1234",
            "6.12.117-1~deb12u1-apt-x86_64-kc1234",
            "6.12.117-1~deb12u1-image-x86_64",
        ]
    );
}

#[test]
fn clean_trees_are_named_by_commit_and_their_own_config() {
    let name = |config| tree_key(&tree(clean(), config), Arch::Aarch64, "12").map(|k| k.to_string());
    assert_eq!(name(None).as_deref(), Some("local-0123456-aarch64-kc12"));
    assert_eq!(name(Some("cbf43926")).as_deref(), Some("local-0123456-aarch64-kc12-cfgcbf43926"));
}

#[test]
fn trees_without_a_commit_have_no_key_but_a_label_and_a_lease() {
    let dirty = TreeState::Dirty { commit: COMMIT.into() };
    for state in [dirty, TreeState::NotGit] {
        assert_eq!(tree_key(&tree(state, None), Arch::X86_64, "12"), None);
    }
    // CRC-32 of "123456789".
    let path = Path::new("123456789");
    assert_eq!(uncached_label(path, Arch::X86_64, "12").as_str(), "local-unknown-cbf43926-x86_64-kc12");
    assert_eq!(source_lease(path).as_str(), "source-cbf43926");
    assert_eq!(build_lease(&key("k")).as_str(), "build-k");
}

#[test]
fn an_epoch_can_not_break_a_key() {
    let apt = RemoteId::AptSource { package: "p".into(), version: "1:6.8.0/x".into() };
    assert_eq!(remote_key(&apt, Arch::X86_64, "12").as_str(), "1_6.8.0_x-apt-x86_64-kc12");
}

#[test]
fn only_generated_names_are_ours_to_delete() {
    for ours in [
        "6.14.2-tarball-x86_64-kc1234",
        "6.12.117-1~deb12u1-image-aarch64",
        "local-0123456-x86_64-kc12-cfgcbf43926",
    ] {
        assert!(key(ours).is_generated(), "{ours}");
    }
    for other in ["Documents", "linux-6.12", "local-notes", "build-apt"] {
        assert!(!key(other).is_generated(), "{other}");
    }
}

#[test]
fn long_keys_stay_file_names_and_stay_different() {
    let long = |tail: &str| {
        let version = format!("{}{tail}", "9".repeat(300));
        remote_key(&RemoteId::Tarball { version }, Arch::X86_64, "12")
    };
    assert_eq!(long("a").as_str().len(), 200);
    assert_ne!(long("a"), long("b"));
}

proptest! {
    #[test]
    fn every_key_is_a_plain_file_name(text in "\\PC{0,220}") {
        if let Ok(key) = CacheKey::new(text.as_str()) {
            prop_assert_eq!(key.as_str(), &text);
            prop_assert!(!text.contains(['/', '\0', ' ']) && !text.starts_with(['.', '-', '~']));
        }
    }

    #[test]
    fn generated_keys_are_valid_and_recognised(version in "\\PC{1,60}", suffix in "[0-9a-f]{8}") {
        let id = RemoteId::Tarball { version };
        let key = remote_key(&id, Arch::X86_64, &suffix);
        prop_assert!(key.is_generated());
        prop_assert_eq!(CacheKey::new(key.as_str()), Ok(key));
    }
}
