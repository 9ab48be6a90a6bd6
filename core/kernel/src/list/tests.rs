//! Tests of list rows and of what clean removes.

use super::*;
use crate::metadata::{CacheEntry, Provenance};
use crate::testing::{built, corrupt, entry, listed, prebuilt};

fn prefix(text: &str) -> VersionPrefix {
    text.parse().expect("a version prefix")
}

fn one_row(entry: &CacheEntry, maintained: Option<&[VersionPrefix]>) -> ListRow {
    let hash = ktstr_kconfig::kconfig_hash();
    list_rows(&[listed(entry)], &hash, maintained).remove(0)
}

#[test]
fn a_usable_entry_shows_what_it_is() {
    let row = one_row(&built("k-apt", "6.12.117-1"), None);
    assert_eq!(row.key, "k-apt");
    assert_eq!(row.version.as_deref(), Some("6.12.117-1"));
    assert_eq!((row.source, row.arch), (Some("apt"), Some("x86_64")));
    assert_eq!(row.remarks(), Vec::<String>::new());
    assert_eq!(row.eol, None);
}

#[test]
fn remarks_say_stale_extra_and_end_of_life() {
    let mut old = entry("k", "6.9.3", Provenance::Tarball, Some("00000000".into()));
    old.metadata.extra_kconfig_hash = Some("11111111".into());
    let row = one_row(&old, Some(&[prefix("6.12"), prefix("6.1")]));
    assert_eq!(row.remarks(), ["(stale kconfig)", "(extra kconfig)", "(EOL)"]);
}

#[test]
fn end_of_life_compares_whole_numbers() {
    let eol = |version: &str| {
        let entry = entry("k", version, Provenance::Tarball, None);
        one_row(&entry, Some(&[prefix("6.1")])).eol
    };
    assert_eq!(eol("6.1.170"), Some(false));
    assert_eq!(eol("6.12.1"), Some(true));
    assert_eq!(eol("6.15-rc3"), Some(false));
    assert_eq!(eol("next-20260101"), None);
}

#[test]
fn a_prebuilt_kernel_is_never_stale() {
    assert!(!one_row(&prebuilt("k", "6.12.1"), None).stale_kconfig);
}

#[test]
fn a_corrupt_entry_shows_its_kind_in_json() {
    let rows = list_rows(&[corrupt("k", CorruptKind::ImageMissing)], "0", None);
    assert_eq!(rows[0].remarks(), ["(corrupt: seen by the test)"]);
    let json = serde_json::to_value(&rows[0]).expect("serializes");
    assert_eq!(json["error_kind"], "image_missing");
    assert_eq!(json["eol"], serde_json::Value::Null);
}

#[test]
fn every_error_kind_has_its_documented_name() {
    let names: Vec<String> = [
        CorruptKind::Missing,
        CorruptKind::Unreadable,
        CorruptKind::SchemaDrift,
        CorruptKind::Malformed,
        CorruptKind::Truncated,
        CorruptKind::ParseError,
        CorruptKind::ImageMissing,
        CorruptKind::Unknown,
    ]
    .iter()
    .map(|kind| serde_json::to_string(kind).expect("serializes"))
    .collect();
    assert_eq!(
        names.join(" ").replace('"', ""),
        "missing unreadable schema_drift malformed truncated parse_error image_missing unknown"
    );
}

#[test]
fn clean_keeps_the_newest_usable_and_gives_no_slot_to_the_corrupt() {
    let entries = [
        corrupt("bad1", CorruptKind::Missing),
        listed(&built("new", "6.14.1")),
        corrupt("bad2", CorruptKind::Missing),
        listed(&built("mid", "6.13.1")),
        listed(&built("old", "6.12.1")),
    ];
    let names =
        |policy| select_for_clean(&entries, policy).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(CleanPolicy::Keep(2)), ["bad1", "bad2", "old"]);
    assert_eq!(names(CleanPolicy::Keep(9)), ["bad1", "bad2"]);
    assert_eq!(names(CleanPolicy::Keep(0)).len(), 5);
    assert_eq!(names(CleanPolicy::CorruptOnly), ["bad1", "bad2"]);
}

#[test]
fn ages_are_in_the_largest_unit() {
    let ages = [59, 60, 3599, 3600, 86399, 86400, 864_000].map(|s| age(s + 5, 5));
    assert_eq!(ages, ["59s", "1m", "59m", "1h", "23h", "1d", "10d"]);
    assert_eq!(age(5, 10), "0s");
}
