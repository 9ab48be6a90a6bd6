//! Builders shared by the unit tests.

use std::path::{Path, PathBuf};

use crate::arch::Arch;
use crate::key::CacheKey;
use crate::metadata::{CacheEntry, CorruptKind, METADATA_SCHEMA, Metadata, Provenance};
use crate::ports::{Corrupt, Lease, Listed, Scratch};
use crate::progress::{Event, Progress};

pub(crate) fn key(text: &str) -> CacheKey {
    CacheKey::new(text).expect("a valid key")
}

/// An entry built from the source package `version` with the present fragment.
pub(crate) fn built(name: &str, version: &str) -> CacheEntry {
    let source = Provenance::AptSource { package: "linux-source-6.12".into() };
    entry(name, version, source, Some(ktstr_kconfig::kconfig_hash()))
}

/// A prebuilt entry.
pub(crate) fn prebuilt(name: &str, version: &str) -> CacheEntry {
    let source = Provenance::AptImage { package: "linux-image-6.12-cloud-amd64".into() };
    entry(name, version, source, None)
}

pub(crate) fn entry(name: &str, version: &str, source: Provenance, kconfig: Option<String>) -> CacheEntry {
    let dir = PathBuf::from("/cache").join(name);
    CacheEntry {
        key: key(name),
        image: dir.join("bzImage"),
        vmlinux: Some(dir.join("vmlinux")),
        config: Some(dir.join("config")),
        modules: None,
        metadata: Metadata {
            schema: METADATA_SCHEMA,
            version: version.into(),
            source,
            arch: Arch::X86_64,
            image_name: "bzImage".into(),
            image_bytes: 1,
            config_hash: None,
            built_at: 1_700_000_000,
            ktstr_kconfig_hash: kconfig,
            extra_kconfig_hash: None,
            has_vmlinux: true,
            vmlinux_stripped: false,
            has_modules: false,
        },
    }
}

pub(crate) fn listed(entry: &CacheEntry) -> Listed {
    Listed { key: entry.key.clone(), state: Ok(entry.clone()) }
}

pub(crate) fn corrupt(name: &str, kind: CorruptKind) -> Listed {
    Listed { key: key(name), state: Err(Corrupt { kind, detail: "seen by the test".into() }) }
}

pub(crate) struct FakeScratch(pub(crate) PathBuf);

impl Scratch for FakeScratch {
    fn path(&self) -> &Path {
        &self.0
    }
}

pub(crate) struct FakeLease;

impl Lease for FakeLease {}

/// Keeps every event.
#[derive(Default)]
pub(crate) struct Recorder(pub(crate) Vec<Event>);

impl Progress for Recorder {
    fn report(&mut self, event: Event) {
        self.0.push(event);
    }
}

impl Recorder {
    pub(crate) fn warnings(&self) -> Vec<&str> {
        self.0
            .iter()
            .filter_map(|event| match event {
                Event::Warning(text) => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }
}
