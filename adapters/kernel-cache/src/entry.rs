//! Reading one entry and telling in which way it is broken.

use std::fs;
use std::io;
use std::path::Path;

use ktstr_kernel::ports::Corrupt;
use ktstr_kernel::{CacheEntry, CacheKey, CorruptKind, METADATA_SCHEMA, Metadata};
use serde_json::Value;
use serde_json::error::Category;

/// The record of an entry.
pub(crate) const METADATA_FILE: &str = "metadata.json";
/// The ELF file with symbols and debug information.
pub(crate) const VMLINUX_FILE: &str = "vmlinux";
/// The final `.config`.
pub(crate) const CONFIG_FILE: &str = "config";
/// The directory with loadable modules.
pub(crate) const MODULES_DIR: &str = "modules";

/// Reads the entry in `dir` and checks that what it names is there in full.
pub(crate) fn read(dir: &Path, key: &CacheKey) -> Result<CacheEntry, Corrupt> {
    let metadata = read_metadata(&dir.join(METADATA_FILE))?;
    if !is_plain_name(&metadata.image_name) {
        let detail = format!("image name {:?} is no file name", metadata.image_name);
        return Err(corrupt(CorruptKind::ParseError, detail));
    }
    let image = dir.join(&metadata.image_name);
    check_image(&image, metadata.image_bytes)?;
    let vmlinux = dir.join(VMLINUX_FILE);
    if metadata.has_vmlinux && !vmlinux.is_file() {
        let detail = format!("{} is not there", vmlinux.display());
        return Err(corrupt(CorruptKind::Unknown, detail));
    }
    let modules = dir.join(MODULES_DIR);
    if metadata.has_modules && !modules.is_dir() {
        let detail = format!("{} is not there", modules.display());
        return Err(corrupt(CorruptKind::Unknown, detail));
    }
    let config = dir.join(CONFIG_FILE);
    Ok(CacheEntry {
        key: key.clone(),
        image,
        vmlinux: metadata.has_vmlinux.then_some(vmlinux),
        config: config.is_file().then_some(config),
        modules: metadata.has_modules.then_some(modules),
        metadata,
    })
}

/// Can it be joined to a directory without leaving it?
pub(crate) fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '\0']) && name != "." && name != ".."
}

fn read_metadata(path: &Path) -> Result<Metadata, Corrupt> {
    let shown = path.display();
    let bytes = fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => corrupt(CorruptKind::Missing, format!("no {shown}")),
        _ => corrupt(CorruptKind::Unreadable, format!("{shown}: {error}")),
    })?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|error| {
        let kind = match error.classify() {
            Category::Eof => CorruptKind::Truncated,
            _ => CorruptKind::Malformed,
        };
        corrupt(kind, format!("{shown}: {error}"))
    })?;
    let schema = value.get("schema");
    if schema.and_then(Value::as_u64) != Some(u64::from(METADATA_SCHEMA)) {
        let seen = schema.map_or("none".to_owned(), ToString::to_string);
        let detail = format!("{shown}: schema {seen}, expected {METADATA_SCHEMA}");
        return Err(corrupt(CorruptKind::SchemaDrift, detail));
    }
    serde_json::from_value(value)
        .map_err(|error| corrupt(CorruptKind::ParseError, format!("{shown}: {error}")))
}

fn check_image(image: &Path, expected: u64) -> Result<(), Corrupt> {
    let shown = image.display();
    let found = fs::metadata(image).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => corrupt(CorruptKind::ImageMissing, format!("no {shown}")),
        _ => corrupt(CorruptKind::Unreadable, format!("{shown}: {error}")),
    })?;
    if !found.is_file() {
        let detail = format!("{shown} is not a file");
        return Err(corrupt(CorruptKind::ImageMissing, detail));
    }
    let kind = match found.len().cmp(&expected) {
        std::cmp::Ordering::Equal => return Ok(()),
        std::cmp::Ordering::Less => CorruptKind::Truncated,
        std::cmp::Ordering::Greater => CorruptKind::Unknown,
    };
    let detail = format!("{shown} has {} bytes, expected {expected}", found.len());
    Err(corrupt(kind, detail))
}

fn corrupt(kind: CorruptKind, detail: String) -> Corrupt {
    Corrupt { kind, detail }
}
