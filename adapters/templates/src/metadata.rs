//! What is recorded of a saved machine, and whether it still holds.

use crate::files::{self, FileMark};
use crate::{TemplateError, stamp};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The record's own version.
const SCHEMA: u32 = 2;
pub(crate) const FILE: &str = "metadata.json";

/// Which kernel a machine was booted from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelMark {
    /// Where its image was.
    pub path: PathBuf,
    /// CRC-32 of the image, 8 hex digits.
    pub crc: String,
    /// Its length.
    pub bytes: u64,
}

/// `metadata.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    schema: u32,
    /// All that went into the machine, as text.
    pub identity: String,
    /// A few words for a list, such as `tcg 1n1l2c1t 256 MiB`.
    pub label: String,
    /// The kernel it was booted from.
    pub kernel: KernelMark,
    /// When it was made, seconds since the Unix epoch.
    pub made_unix: u64,
    files: Vec<FileMark>,
}

impl Metadata {
    pub(crate) fn describe(
        dir: &Path,
        identity: &str,
        label: &str,
        kernel: &KernelMark,
        made_unix: u64,
    ) -> Result<Self, TemplateError> {
        Ok(Self {
            schema: SCHEMA,
            identity: identity.to_string(),
            label: label.to_string(),
            kernel: kernel.clone(),
            made_unix,
            files: files::mark_all(dir)?,
        })
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<(), TemplateError> {
        let path = dir.join(FILE);
        let json = serde_json::to_vec_pretty(self)
            .map_err(|e| TemplateError::io("writing", &path)(std::io::Error::other(e)))?;
        stamp::replace(&path, &json)
    }

    /// The record in `dir`; the error says in a few words what is wrong with it.
    pub(crate) fn read(dir: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(dir.join(FILE)).map_err(|e| format!("reading {FILE}: {e}"))?;
        let found: Self = serde_json::from_slice(&bytes).map_err(|e| format!("reading {FILE}: {e}"))?;
        if found.schema != SCHEMA {
            return Err(format!("written by another version (layout {}, ours is {SCHEMA})", found.schema));
        }
        Ok(found)
    }

    /// Compares the files with the record; true if the record is another now, which spares
    /// the next one reading them.
    pub(crate) fn check(&mut self, dir: &Path, identity: &str) -> Result<bool, String> {
        if self.identity != identity {
            return Err("it was made of something else".to_string());
        }
        self.files.iter_mut().try_fold(false, |other, file| Ok(file.check(dir)? | other))
    }
}
