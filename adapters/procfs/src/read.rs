//! Reading small files of `/proc` and `/sys`.

use crate::SystemError;
use ktstr_topology::CpuSet;
use std::fs;
use std::io;
use std::path::Path;
use std::str::FromStr;

/// The trimmed text of a file that must be there.
pub(crate) fn required(doing: &'static str, path: &Path) -> Result<String, SystemError> {
    let failed = |source| SystemError::Read { doing, path: path.display().to_string(), source };
    fs::read_to_string(path).map(|text| text.trim().to_string()).map_err(failed)
}

/// The trimmed text of a file that some kernels or machines don't have.
pub(crate) fn optional(doing: &'static str, path: &Path) -> Result<Option<String>, SystemError> {
    match required(doing, path) {
        Ok(text) => Ok(Some(text)),
        Err(SystemError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// A cpulist of a file that some kernels or machines don't have.
pub(crate) fn optional_cpus(doing: &'static str, path: &Path) -> Result<Option<CpuSet>, SystemError> {
    optional(doing, path)?.map(|text| parse(path, "a cpulist such as 0-3,8", &text)).transpose()
}

/// A number of a file that some kernels or machines don't have. A negative one
/// (sysfs writes -1 for "unknown") counts as absent.
pub(crate) fn optional_number(doing: &'static str, path: &Path) -> Result<Option<u32>, SystemError> {
    let Some(text) = optional(doing, path)? else { return Ok(None) };
    let number: i64 = parse(path, "a number", &text)?;
    Ok(u32::try_from(number).ok())
}

/// Parses what a file holds.
pub(crate) fn parse<T: FromStr>(path: &Path, expected: &'static str, text: &str) -> Result<T, SystemError> {
    text.parse().map_err(|_| SystemError::Content {
        path: path.display().to_string(),
        expected,
        seen: text.to_string(),
    })
}
