//! Marks of files: enough to tell one that was truncated or damaged.

use crate::TemplateError;
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Files up to this size are read whole each time; RAM is not: a copy of it is read by
/// every test anyway, and a machine that does not come up is thrown away then.
const SUMMED: u64 = 4 << 20;

/// A file as it was when the machine was saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileMark {
    name: String,
    bytes: u64,
    /// CRC-32 of a small file.
    crc: Option<u32>,
}

impl FileMark {
    pub(crate) fn check(&self, dir: &Path) -> Result<(), String> {
        let path = dir.join(&self.name);
        let found = fs::metadata(&path).map_err(|e| format!("looking at {}: {e}", self.name))?;
        if found.len() != self.bytes {
            return Err(format!("{} has {} bytes, {} were written", self.name, found.len(), self.bytes));
        }
        let Some(crc) = self.crc else { return Ok(()) };
        let bytes = fs::read(&path).map_err(|e| format!("reading {}: {e}", self.name))?;
        if crc32fast::hash(&bytes) == crc { Ok(()) } else { Err(format!("{} was changed", self.name)) }
    }
}

/// Marks of all files in a directory, by name.
pub(crate) fn mark_all(dir: &Path) -> Result<Vec<FileMark>, TemplateError> {
    let mut marks = Vec::new();
    for entry in fs::read_dir(dir).map_err(TemplateError::io("reading", dir))? {
        let path = entry.map_err(TemplateError::io("reading", dir))?.path();
        let bytes = fs::metadata(&path).map_err(TemplateError::io("reading", &path))?.len();
        let crc = if bytes <= SUMMED {
            Some(crc32fast::hash(&fs::read(&path).map_err(TemplateError::io("reading", &path))?))
        } else {
            None
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        marks.push(FileMark { name, bytes, crc });
    }
    marks.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(marks)
}

/// Bytes on disk of a directory's files; what vanishes meanwhile counts nothing.
pub(crate) fn bytes_on_disk(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries.filter_map(|e| Some(e.ok()?.metadata().ok()?.blocks() * 512)).sum()
}
