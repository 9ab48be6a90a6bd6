//! The initramfs of a test: the test binary as `/init`, its libraries, the plan.

use crate::guest::PLAN_PATH;
use crate::settings::Settings;
use anyhow::{Context, Result};
use ktstr_initramfs::{Archive, LibrarySearch, closure, with_symbols_only, without_debug};
use ktstr_machine::Blob;
use ktstr_run::GuestPlan;
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// The part that all tests of a binary share.
pub(crate) struct Image {
    base: Arc<Vec<u8>>,
    /// Tells builds of the binary apart: both sides must be the same one.
    pub(crate) build_id: String,
}

/// Packs the running binary.
pub(crate) fn of_this_binary(settings: &Settings) -> Result<Image> {
    let exe = std::env::current_exe().context("finding the test binary's own path")?;
    let bytes = std::fs::read(&exe).with_context(|| format!("reading the test binary {}", exe.display()))?;
    let build_id = build_id(&exe, bytes.len())?;
    // A back-trace needs symbols for its names and debug information for its lines; the
    // less there is to unpack, the sooner the guest is up.
    let program = match settings.backtrace.as_deref() {
        Some("full") => Cow::Borrowed(bytes.as_slice()),
        Some(level) if level != "0" => with_symbols_only(&bytes),
        _ => without_debug(&bytes),
    };
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

/// Size and time of modification: enough to tell two builds apart, and no pass over
/// all bytes of a large debug binary.
fn build_id(exe: &Path, bytes: usize) -> Result<String> {
    let doing = || format!("looking at the test binary {}", exe.display());
    let modified = exe.metadata().and_then(|m| m.modified()).with_context(doing)?;
    let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(format!("{bytes:x}-{:x}", since.as_nanos()))
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
