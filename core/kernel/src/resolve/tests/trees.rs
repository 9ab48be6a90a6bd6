//! Tests of kernels that are built in the user's tree.

use super::*;

#[test]
fn a_clean_tree_is_built_in_place_and_stored() {
    let source = source_of(SourceId::Tree(tree_id(clean())));
    let kernel =
        resolve(&request("/src/linux"), &empty_store(), &source, &builder(), &mut Silent).expect("built");
    let expected = format!("local-0123456-x86_64-kc{}", ktstr_kconfig::kconfig_hash());
    assert_eq!(kernel.origin, KernelOrigin::Stored { key: key(&expected) });
    assert_eq!(kernel.version, "6.12.0-local");
}

#[test]
fn dirty_and_plain_trees_are_built_in_place_and_never_stored() {
    let dirty = TreeState::Dirty { commit: COMMIT.into() };
    for (state, reason) in [(dirty, NotStored::Dirty), (TreeState::NotGit, NotStored::NotGit)] {
        let mut store = MockKernelStore::new();
        store
            .expect_lease()
            .withf(|name, _| name.as_str().starts_with("source-"))
            .returning(|_, _| Ok(Box::new(FakeLease)));
        let kernel = resolve(
            &request("/src/linux"),
            &store,
            &source_of(SourceId::Tree(tree_id(state))),
            &builder(),
            &mut Silent,
        )
        .expect("built");
        assert_eq!(kernel.image, Path::new("/src/linux/arch/x86/boot/bzImage"));
        assert_eq!(kernel.origin, KernelOrigin::InTree { dir: "/src/linux".into(), reason });
    }
}

#[test]
fn a_tree_that_changed_during_make_is_not_stored() {
    let mut source = MockKernelSource::new();
    let mut order = Sequence::new();
    let after = TreeState::Dirty { commit: COMMIT.into() };
    for state in [clean(), after] {
        source
            .expect_identify()
            .times(1)
            .in_sequence(&mut order)
            .returning(move |_, _| Ok(SourceId::Tree(tree_id(state.clone()))));
    }
    let kernel =
        resolve(&request("/src/linux"), &empty_store(), &source, &builder(), &mut Silent).expect("built");
    assert!(matches!(kernel.origin, KernelOrigin::InTree { reason: NotStored::Changed, .. }));
}

/// The first build leaves a `.config` behind; the second run must recognise it.
#[test]
fn a_tree_with_the_config_of_its_own_earlier_build_is_a_hit() {
    let local = Provenance::Local { path: "/src/linux".into(), commit: COMMIT.into() };
    let mut earlier = entry("local-0123456", "6.12.0", local, Some(ktstr_kconfig::kconfig_hash()));
    earlier.metadata.config_hash = Some("aaaaaaaa".into());
    for (config, expected_hit) in [("aaaaaaaa", true), ("bbbbbbbb", false)] {
        let mut tree = tree_id(clean());
        tree.config_hash = Some(config.into());
        let mut store = MockKernelStore::new();
        let entries = vec![listed(&earlier)];
        store.expect_lookup().returning(|_| Ok(None));
        store.expect_list().returning(move || Ok(entries.clone()));
        store.expect_lease().returning(|_, _| Ok(Box::new(FakeLease)));
        store.expect_store().returning(|key, files| Ok(built_entry(key.as_str(), &files.version)));
        let kernel = resolve(
            &request("/src/linux"),
            &store,
            &source_of(SourceId::Tree(tree)),
            &builder(),
            &mut Silent,
        )
        .expect("resolved");
        let hit = matches!(kernel.origin, KernelOrigin::Hit { .. });
        assert_eq!(hit, expected_hit, "{config}");
    }
}
