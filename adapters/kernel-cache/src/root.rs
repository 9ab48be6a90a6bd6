//! Where the cache is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::CacheError;

/// The environment variables that place the cache, as they stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheEnv {
    /// `KTSTR_CACHE_DIR`: the cache itself.
    pub cache_dir: Option<OsString>,
    /// `XDG_CACHE_HOME`: `ktstr/kernels` is below it.
    pub xdg_cache_home: Option<OsString>,
    /// `HOME`: `.cache/ktstr/kernels` is below it.
    pub home: Option<OsString>,
}

impl CacheEnv {
    /// Takes them from this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self {
            cache_dir: std::env::var_os("KTSTR_CACHE_DIR"),
            xdg_cache_home: std::env::var_os("XDG_CACHE_HOME"),
            home: std::env::var_os("HOME"),
        }
    }
}

/// The cache's directory: `KTSTR_CACHE_DIR`, else `$XDG_CACHE_HOME/ktstr/kernels`,
/// else `$HOME/.cache/ktstr/kernels`. An empty variable counts as unset; so
/// does a relative `XDG_CACHE_HOME`, as the XDG base directory specification
/// demands. A relative `KTSTR_CACHE_DIR` is below the working directory.
///
/// # Errors
/// [`CacheError::NoRoot`] if no variable places it.
pub fn cache_root(env: &CacheEnv) -> Result<PathBuf, CacheError> {
    if let Some(dir) = set(env.cache_dir.as_ref()) {
        return std::path::absolute(dir).map_err(CacheError::io("placing the kernel cache at", dir));
    }
    if let Some(base) = set(env.xdg_cache_home.as_ref()).filter(|base| base.is_absolute()) {
        return Ok(base.join("ktstr/kernels"));
    }
    set(env.home.as_ref()).map(|home| home.join(".cache/ktstr/kernels")).ok_or(CacheError::NoRoot)
}

fn set(variable: Option<&OsString>) -> Option<&Path> {
    variable.map(Path::new).filter(|p| !p.as_os_str().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(cache_dir: &str, xdg: &str, home: &str) -> Result<PathBuf, CacheError> {
        cache_root(&CacheEnv {
            cache_dir: Some(cache_dir.into()),
            xdg_cache_home: Some(xdg.into()),
            home: Some(home.into()),
        })
    }

    #[test]
    fn each_variable_yields_to_the_one_before() {
        let placed = |a, b, c| root(a, b, c).expect("placed");
        assert_eq!(placed("/a", "/b", "/c"), Path::new("/a"));
        assert_eq!(placed("", "/b", "/c"), Path::new("/b/ktstr/kernels"));
        assert_eq!(placed("", "", "/c"), Path::new("/c/.cache/ktstr/kernels"));
        assert_eq!(placed("", "b", "/c"), Path::new("/c/.cache/ktstr/kernels"));
        assert!(placed("a", "", "").is_absolute());
    }

    #[test]
    fn nowhere_is_an_error() {
        assert!(matches!(root("", "", ""), Err(CacheError::NoRoot)));
        let unset = cache_root(&CacheEnv::default()).expect_err("nowhere");
        assert!(unset.to_string().contains("KTSTR_CACHE_DIR"));
    }
}
