//! The initramfs of a test: the test binary as `/init`, its libraries, the plan.

use super::schedulers::Schedulers;
use crate::settings::Settings;
use anyhow::{Context, Result};
use ktstr_initramfs::{
    Archive, Library, LibrarySearch, LoadedPart, closure, loaded_part, read_without_debug, with_symbols_only,
};
use ktstr_machine::Blob;
use ktstr_run::GuestPlan;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// What the tests of a binary share.
pub(crate) struct Image {
    program: Program,
    libraries: Vec<Library>,
    /// Tells builds of the binary apart: both sides must be the same one.
    pub(crate) build_id: String,
}

/// What runs as `/init`.
enum Program {
    Read(Arc<Vec<u8>>),
    /// The loaded part of this binary; it is copied straight into the guest's memory.
    Part(PathBuf, LoadedPart),
}

/// Reads the running binary and finds its libraries.
pub(crate) fn of_this_binary(settings: &Settings) -> Result<Image> {
    let exe = std::env::current_exe().context("finding the test binary's own path")?;
    let read = || std::fs::read(&exe).with_context(|| format!("reading the test binary {}", exe.display()));
    let build_id = build_id(&exe)?;
    // A back-trace needs symbols for its names and debug information for its lines; the
    // less there is to unpack, the sooner the guest is up.
    let program = match settings.backtrace.as_deref() {
        Some("full") => Program::Read(Arc::new(read()?)),
        Some(level) if level != "0" => Program::Read(Arc::new(with_symbols_only(&read()?).into_owned())),
        _ => match loaded_part(&exe)? {
            Some(part) => Program::Part(exe.clone(), part),
            None => Program::Read(Arc::new(read()?)),
        },
    };
    let search = LibrarySearch::of_system(std::env::var("LD_LIBRARY_PATH").ok().as_deref());
    let libraries = closure(&exe, &search)?;
    Ok(Image { build_id, program, libraries })
}

/// Size and time of modification: enough to tell two builds apart, and no pass over
/// all bytes of a large debug binary.
fn build_id(exe: &Path) -> Result<String> {
    let doing = || format!("looking at the test binary {}", exe.display());
    let found = exe.metadata().with_context(doing)?;
    let modified = found.modified().with_context(doing)?;
    let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(format!("{:x}-{:x}", found.len(), since.as_nanos()))
}

impl Image {
    /// The program that runs as `/init`.
    pub(crate) fn program(&self) -> Vec<Blob> {
        match &self.program {
            Program::Read(bytes) => vec![Blob::Bytes(Arc::clone(bytes))],
            Program::Part(path, part) => {
                let from = part.head.len() as u64;
                let rest = Blob::Range { path: path.clone(), from, bytes: part.bytes - from };
                vec![Blob::Bytes(Arc::new(part.head.clone())), rest]
            }
        }
    }

    /// Its bytes.
    pub(crate) fn program_len(&self) -> u64 {
        match &self.program {
            Program::Read(bytes) => bytes.len() as u64,
            Program::Part(_, part) => part.bytes,
        }
    }

    /// Bytes of program and libraries, about.
    pub(crate) fn len(&self) -> usize {
        self.program_len() as usize + self.libraries.iter().map(|l| file_len(&l.source)).sum::<u64>() as usize
    }

    /// Where the libraries lie in the guest.
    pub(crate) fn library_paths(&self) -> BTreeSet<String> {
        self.libraries.iter().map(|l| l.destination.clone()).collect()
    }

    /// Text that changes with the libraries.
    pub(crate) fn libraries_identity(&self) -> String {
        let line = |l: &Library| {
            let found = std::fs::metadata(&l.source);
            let seen = found.map(|m| format!("{} bytes {}.{:09}", m.len(), m.mtime(), m.mtime_nsec()));
            format!("{} from {} {}\n", l.destination, l.source.display(), seen.unwrap_or_default())
        };
        self.libraries.iter().map(line).collect()
    }

    /// The basic directories with `init` and the libraries.
    pub(crate) fn base(&self, init: &[u8]) -> Result<Archive> {
        let mut archive = Archive::new();
        // The kernel opens it as PID 1's standard streams before anything is mounted.
        archive.char_device("/dev/console", 5, 1)?;
        for dir in ["proc", "sys", "tmp", "run"] {
            archive.dir(dir)?;
        }
        archive.file("/init", 0o755, init)?;
        for library in &self.libraries {
            archive.file(&library.destination, 0o755, &read_without_debug(&library.source)?)?;
        }
        Ok(archive)
    }

    /// All but the test's own part, for a machine that boots to run it.
    pub(crate) fn whole(&self) -> Result<Vec<Blob>> {
        let base = match &self.program {
            Program::Read(bytes) => self.base(bytes)?,
            Program::Part(path, _) => self.base(&read_without_debug(path)?)?,
        };
        Ok(vec![Blob::Bytes(Arc::new(base.finish()))])
    }
}

/// The part that differs from test to test.
pub(super) fn plan_archive(plan: &GuestPlan, schedulers: &Schedulers) -> Result<Blob> {
    let mut archive = Archive::new();
    schedulers.pack(&mut archive)?;
    archive.file(GuestPlan::PATH, 0o600, &plan.encode()?)?;
    Ok(Blob::Bytes(Arc::new(archive.finish())))
}

fn file_len(path: &Path) -> u64 {
    std::fs::metadata(path).map(|m| m.len()).unwrap_or_default()
}
