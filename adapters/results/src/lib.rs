//! Result files of runs: one `*.ktstr.json` a variant, written whole or not at all.
//!
//! May touch: the directory it is given. Knows nothing of machines.

use ktstr_monitor::FailureDump;
use ktstr_run::ports::{SidecarError, SidecarStore};
use ktstr_run::{Sidecar, file_stem};
use serde::Serialize;
use std::fs::File;
use std::io::{Error, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What follows a test's name and hash.
const SUFFIX: &str = ".ktstr.json";
/// The same for what the kernel looked like when a run failed.
const DUMP_SUFFIX: &str = ".failure-dump.json";
/// And of the second run of a scheduler that crashed.
const REPRO_SUFFIX: &str = ".repro.failure-dump.json";

/// A directory of result files.
#[derive(Debug, Clone)]
pub struct ResultsDir {
    dir: PathBuf,
}

impl ResultsDir {
    /// Results go to `dir`, which is made when the first is written.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    fn write_file(&self, path: &Path, content: &[u8]) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.dir)?;
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let staged = self.dir.join(format!(".tmp-{name}-{}", std::process::id()));
        let written = File::create(&staged).and_then(|mut file| {
            file.write_all(content)?;
            file.sync_data()
        });
        let renamed = written.and_then(|()| std::fs::rename(&staged, path));
        if renamed.is_err() {
            // Only a leftover; the error that matters is the first.
            let _ = std::fs::remove_file(&staged);
        }
        renamed
    }
}

impl ResultsDir {
    /// Writes `content` as JSON to the file of this variant that ends in `suffix`.
    fn write_json(
        &self,
        sidecar: &Sidecar,
        suffix: &str,
        content: &impl Serialize,
    ) -> Result<PathBuf, SidecarError> {
        let variant = [
            sidecar.module.as_str(),
            &sidecar.topology,
            &sidecar.accel,
            &sidecar.kernel,
            &sidecar.scheduler,
            &sidecar.seed.to_string(),
        ];
        let path = self.dir.join(format!("{}{suffix}", file_stem(&sidecar.test_name, &variant)));
        let fail = |source: Error| {
            let remedy = match source.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                    "free some disk space, or name another place with KTSTR_SIDECAR_DIR"
                }
                _ => "make the directory writable, or name another with KTSTR_SIDECAR_DIR",
            };
            SidecarError { path: path.clone(), source, remedy: remedy.to_string() }
        };
        let mut bytes = serde_json::to_vec_pretty(content).map_err(|e| fail(Error::other(e)))?;
        bytes.push(b'\n');
        self.write_file(&path, &bytes).map_err(fail)?;
        Ok(path)
    }
}

impl SidecarStore for ResultsDir {
    fn write(&self, sidecar: &Sidecar) -> Result<PathBuf, SidecarError> {
        self.write_json(sidecar, SUFFIX, sidecar)
    }

    fn write_dump(&self, sidecar: &Sidecar, dump: &FailureDump) -> Result<PathBuf, SidecarError> {
        self.write_json(sidecar, DUMP_SUFFIX, dump)
    }

    fn write_repro_dump(&self, sidecar: &Sidecar, dump: &FailureDump) -> Result<PathBuf, SidecarError> {
        self.write_json(sidecar, REPRO_SUFFIX, dump)
    }
}

/// The commit of the repository that `dir` lies in: 7 hex digits, `-dirty` when
/// tracked files are modified, `unknown` outside a repository or without git.
pub fn project_commit(dir: &Path) -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git").arg("-C").arg(dir).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
    };
    let Some(hash) = git(&["rev-parse", "--short=7", "HEAD"]) else { return "unknown".to_string() };
    match git(&["status", "--porcelain", "--untracked-files=no"]) {
        Some(changes) if changes.is_empty() => hash,
        _ => format!("{hash}-dirty"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ktstr_assert::AssertResult;
    use ktstr_monitor::KernelState;

    fn sidecar(seed: u64) -> Sidecar {
        Sidecar {
            schema: ktstr_run::SIDECAR_SCHEMA,
            test_name: "my_test".into(),
            module: "m".into(),
            topology: "1n1l2c1t".into(),
            memory_mib: 256,
            accel: "tcg".into(),
            hypervisor: "QEMU 7.2".into(),
            seed,
            kernel_version: "6.12".into(),
            kernel: "/k".into(),
            kernel_crc: "0".into(),
            scheduler: "eevdf".into(),
            schedulers: Vec::new(),
            project_commit: "unknown".into(),
            outcome: "pass".into(),
            passed: true,
            skipped: false,
            inconclusive: false,
            expected_failure: false,
            result: AssertResult::pass(),
            stimulus_events: vec![(0, "step 1".into())],
            console_hash: String::new(),
            output_hash: String::new(),
            kernel_log_hash: String::new(),
            start: "booted".into(),
            vcpus: 2,
            monitor: None,
            snapshots: Vec::new(),
            host: ktstr_run::SidecarTimes::default(),
        }
    }

    #[test]
    fn a_result_reads_back_and_replaces_the_last_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = ResultsDir::new(dir.path().join("deep/er"));
        let path = store.write(&sidecar(1)).unwrap();
        assert_eq!(store.write(&sidecar(1)).unwrap(), path);
        assert_ne!(store.write(&sidecar(2)).unwrap(), path);
        let read: Sidecar = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(read, sidecar(1));
        let dump = FailureDump::new(KernelState::default(), None, "reset".into(), 1);
        let dump = store.write_dump(&sidecar(1), &dump).unwrap();
        let stem = |path: &Path, suffix| path.to_str().unwrap().strip_suffix(suffix).unwrap().to_string();
        assert_eq!(stem(&dump, DUMP_SUFFIX), stem(&path, SUFFIX));
        let again = FailureDump::new(KernelState::default(), None, "reset".into(), 1);
        let again = store.write_repro_dump(&sidecar(1), &again).unwrap();
        assert_eq!(stem(&again, REPRO_SUFFIX), stem(&path, SUFFIX));
        assert_eq!(std::fs::read_dir(store.path()).unwrap().count(), 4);
    }

    #[test]
    fn a_full_disk_names_the_file_and_the_remedy_and_leaves_nothing() {
        // /dev/full answers every write with ENOSPC; a directory can't be made below it,
        // so the failing call is the same for every user, root included.
        let store = ResultsDir::new("/dev/full/results");
        let text = store.write(&sidecar(1)).unwrap_err().to_string();
        assert!(text.contains("/dev/full/results") && text.contains("KTSTR_SIDECAR_DIR"), "{text}");
    }

    #[test]
    fn outside_a_repository_the_commit_is_unknown() {
        assert_eq!(project_commit(Path::new("/proc")), "unknown");
    }
}
