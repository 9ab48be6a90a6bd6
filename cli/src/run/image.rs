//! The initramfs of a test: the test binary as `/init`, its libraries, the plan.

use crate::guest::PLAN_PATH;
use crate::settings::Settings;
use anyhow::{Context, Result};
use ktstr_initramfs::{Archive, LibrarySearch, closure, without_debug};
use ktstr_machine::Blob;
use ktstr_run::GuestPlan;
use std::sync::Arc;

/// The part that all tests of a binary share.
pub(crate) struct Image {
    base: Arc<Vec<u8>>,
    /// CRC-32 of the binary: both sides must be the same build.
    pub(crate) build_id: String,
}

/// Packs the running binary.
pub(crate) fn of_this_binary(settings: &Settings) -> Result<Image> {
    let exe = std::env::current_exe().context("finding the test binary's own path")?;
    let bytes = std::fs::read(&exe).with_context(|| format!("reading the test binary {}", exe.display()))?;
    let build_id = ktstr_kernel::crc_hex(&bytes);
    // Names in a guest's back-trace need the symbols; without them it boots faster.
    let wants_symbols = settings.backtrace.as_deref().is_some_and(|v| v != "0");
    let program = if wants_symbols { bytes.as_slice().into() } else { without_debug(&bytes) };
    let mut archive = Archive::new();
    // The kernel opens it as PID 1's standard streams before anything is mounted.
    archive.char_device("/dev/console", 5, 1)?;
    for dir in ["proc", "sys", "tmp", "run"] {
        archive.dir(dir)?;
    }
    archive.file("/init", 0o755, &program)?;
    let search = LibrarySearch::of_system(std::env::var("LD_LIBRARY_PATH").ok().as_deref());
    for library in closure(&exe, &search)? {
        let content = std::fs::read(&library.source)
            .with_context(|| format!("reading library {}", library.source.display()))?;
        archive.file(&library.destination, 0o755, &without_debug(&content))?;
    }
    Ok(Image { base: Arc::new(archive.finish()), build_id })
}

impl Image {
    /// Size of the shared part in bytes.
    pub(crate) fn len(&self) -> usize {
        self.base.len()
    }

    /// The parts of one test's initramfs.
    pub(crate) fn with_plan(&self, plan: &GuestPlan) -> Result<Vec<Blob>> {
        let mut archive = Archive::new();
        archive.file(PLAN_PATH, 0o600, &plan.encode()?)?;
        Ok(vec![Blob::Bytes(Arc::clone(&self.base)), Blob::Bytes(Arc::new(archive.finish()))])
    }
}
