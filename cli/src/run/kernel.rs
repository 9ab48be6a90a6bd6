//! The kernel a test runs on.

use anyhow::{Context, Result};
use ktstr_kernel::ports::KernelStore;
use ktstr_kernel::{
    Arch, CacheKey, DiscoverEnv, Found, Identity, KernelSpec, Origin, crc_hex, discover, expand_tilde,
};
use ktstr_kernel_cache::KernelCache;
use ktstr_kernel_source::OsFiles;
use ktstr_machine::{KERNEL_HEADER_BYTES, kernel_bytes};
use ktstr_templates::TemplateStore;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A kernel image and what is known of it.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    pub(crate) image: PathBuf,
    /// The ELF file with its symbols, where there is one.
    pub(crate) vmlinux: Option<PathBuf>,
    /// `uname -r` of it, read from the image.
    pub(crate) release: Option<String>,
    /// Cache key or path.
    pub(crate) origin: String,
    mark: OnceLock<(String, u64)>,
}

impl Kernel {
    /// The release, or the path where it is unknown.
    pub(crate) fn label(&self) -> String {
        self.release.clone().unwrap_or_else(|| self.image.display().to_string())
    }

    /// Whether it is one of those that `specs` mean, as for `--kernel`; relative paths are below `base`.
    ///
    /// # Errors
    /// When a spec names no kernel, or the cache can't be read.
    pub(crate) fn is_among(&self, specs: &[&str], base: &Path) -> Result<bool> {
        let key = CacheKey::new(self.origin.as_str()).ok();
        let entry = key.map(|key| KernelCache::from_env()?.lookup(&key).map_err(anyhow::Error::from));
        let entry = entry.transpose()?.flatten();
        let identity = Identity {
            image: &self.image,
            release: self.release.as_deref(),
            entry: entry.as_ref().map(|entry| (&entry.key, &entry.metadata)),
        };
        for spec in specs {
            if absolute(spec.parse()?, base)?.includes(&identity) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// CRC-32 of the image without its last four bytes; empty if it can't be read.
    pub(crate) fn crc(&self) -> String {
        self.mark().0.clone()
    }

    /// As above, and the image's length.
    pub(crate) fn mark(&self) -> &(String, u64) {
        self.mark.get_or_init(|| self.with_length(self.sum_up()))
    }

    /// Has `store` remember the sum, or know it already.
    pub(crate) fn summed_up_by(&self, store: &TemplateStore) {
        self.mark.get_or_init(|| self.with_length(store.remembered_sum(&self.image, || self.sum_up())));
    }

    /// RAM that it takes to boot, as far as the image says; one that can't be read won't boot either.
    pub(crate) fn bytes_to_boot(&self) -> u64 {
        beginning(&self.image, KERNEL_HEADER_BYTES).and_then(|head| kernel_bytes(&head)).unwrap_or(0)
    }

    fn sum_up(&self) -> std::io::Result<String> {
        std::fs::read(&self.image).map(|bytes| image_crc(&bytes))
    }

    fn with_length(&self, sum: std::io::Result<String>) -> (String, u64) {
        let found = sum.and_then(|sum| Ok((sum, std::fs::metadata(&self.image)?.len())));
        found.unwrap_or_default()
    }
}

/// A bzImage ends with what makes the CRC-32 of the whole the same for all of them
/// (Documentation/arch/x86/boot.rst on the checksum behind it; arch/x86/boot/tools/build.c).
fn image_crc(bytes: &[u8]) -> String {
    crc_hex(&bytes[..bytes.len().saturating_sub(4)])
}

/// Finds a bootable kernel image: `KTSTR_TEST_KERNEL`, `KTSTR_KERNEL`, the cache, build
/// trees nearby, the host's own. `None` when there is none.
///
/// # Errors
/// When a variable names something that is not there.
pub fn find_kernel() -> Result<Option<PathBuf>> {
    Ok(discover_here()?.found.map(|found| found.image))
}

/// [`find_kernel`] for a test that can't do without.
pub(crate) fn resolve_for_test() -> Result<Kernel> {
    let found = discover_here()?.require()?;
    let release = release(&found.image);
    let origin = origin(&found);
    Ok(Kernel { image: found.image, vmlinux: found.vmlinux, release, origin, mark: OnceLock::new() })
}

fn discover_here() -> Result<ktstr_kernel::Discovery> {
    let get = |name: &str| std::env::var(name).ok();
    let env = DiscoverEnv {
        // Set but empty is an error of its own, as a path of nothing is.
        test_kernel: std::env::var_os("KTSTR_TEST_KERNEL").map(PathBuf::from),
        kernel: get("KTSTR_KERNEL"),
        uname_release: ktstr_procfs::kernel_release()?,
        arch: Arch::host()?,
        cwd: std::env::current_dir().context("finding the current directory")?,
        home: std::env::var_os("HOME").filter(|h| !h.is_empty()).map(PathBuf::from),
    };
    let cache = KernelCache::from_env()?;
    Ok(discover(&env, &cache, &OsFiles)?)
}

/// A spec with a path as kernels have theirs: absolute, links followed as far as it exists.
fn absolute(spec: KernelSpec, base: &Path) -> Result<KernelSpec> {
    let KernelSpec::Path(path) = spec else { return Ok(spec) };
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let path = base.join(expand_tilde(&path, home.as_deref())?);
    Ok(KernelSpec::Path(path.canonicalize().unwrap_or(path)))
}

fn origin(found: &Found) -> String {
    match &found.origin {
        Origin::NamedEntry(key) | Origin::NewestEntry(key) | Origin::PrebuiltEntry(key) => key.to_string(),
        _ => found.image.display().to_string(),
    }
}

/// The release string of a bzImage: the setup header's `kernel_version` field points
/// at it (Documentation/arch/x86/boot.rst, offset 0x20e).
fn release(image: &Path) -> Option<String> {
    release_in(&beginning(image, 1 << 16)?)
}

fn beginning(image: &Path, bytes: usize) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    File::open(image).ok()?.take(bytes as u64).read_to_end(&mut head).ok()?;
    Some(head)
}

fn release_in(head: &[u8]) -> Option<String> {
    if head.get(0x202..0x206) != Some(b"HdrS") {
        return None;
    }
    let at = usize::from(u16::from_le_bytes([*head.get(0x20e)?, *head.get(0x20f)?])) + 0x200;
    let text = head.get(at..)?.iter().take(128).take_while(|b| b.is_ascii_graphic());
    let release: String = text.map(|b| char::from(*b)).collect();
    release.starts_with(|c: char| c.is_ascii_digit()).then_some(release)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_images_have_two_sums_although_each_sums_up_to_the_same() {
        let sealed = |body: &[u8]| {
            let crc = u32::from_str_radix(&crc_hex(body), 16).unwrap();
            // As the kernel's build tool does it: no final inversion.
            [body, &(!crc).to_le_bytes()].concat()
        };
        let (one, two) = (sealed(b"one kernel"), sealed(b"another kernel"));
        assert_eq!((crc_hex(&one), crc_hex(&two)), ("ffffffff".to_string(), "ffffffff".to_string()));
        assert_ne!(image_crc(&one), image_crc(&two));
    }

    #[test]
    fn the_release_is_where_the_header_points() {
        let mut head = vec![0u8; 0x1000];
        head[0x202..0x206].copy_from_slice(b"HdrS");
        head[0x20e..0x210].copy_from_slice(&0x300u16.to_le_bytes());
        head[0x500..0x50c].copy_from_slice(b"6.12.1 (me) ");
        assert_eq!(release_in(&head).as_deref(), Some("6.12.1"));
        head[0x500] = b'x';
        assert_eq!(release_in(&head), None);
        assert_eq!(release_in(b"short"), None);
    }
}
