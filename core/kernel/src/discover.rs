//! The kernel to use when nobody named one on the command line.
//!
//! Reads environment, cache and well-known places in a fixed order and takes
//! the first kernel there is. It never builds, fetches or stores anything.

use std::path::{Path, PathBuf};

use crate::arch::Arch;
use crate::error::KernelError;
use crate::key::CacheKey;
use crate::metadata::{CacheEntry, Provenance};
use crate::ports::{HostFiles, KernelStore, Listed, Probe};
use crate::spec::{KernelSpec, expand_tilde};

/// What to do when there is no kernel; the same words wherever that shows.
pub const KTSTR_KERNEL_HINT: &str = "build one with `cargo ktstr kernel build apt:6.12` (Debian, Ubuntu), \
use a distribution's kernel without a build with `--kernel image:`, \
give a kernel tree with `--kernel ./linux`, \
or set KTSTR_KERNEL (a tree, a version or a cache key) or KTSTR_TEST_KERNEL (an image)";

/// What discovery knows of its surroundings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoverEnv {
    /// `KTSTR_TEST_KERNEL`, also when it is empty.
    pub test_kernel: Option<PathBuf>,
    /// `KTSTR_KERNEL` as it stands; white space and emptiness are dealt with
    /// here.
    pub kernel: Option<String>,
    /// `uname -r`
    pub uname_release: String,
    /// What the kernel must run on.
    pub arch: Arch,
    /// The working directory.
    pub cwd: PathBuf,
    /// The home directory, for `~`.
    pub home: Option<PathBuf>,
}

/// The outcome of a search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovery {
    /// The first kernel in order.
    pub found: Option<Found>,
    /// What lay before it in order and could not be used, though somebody may
    /// expect that it was.
    pub skipped: Vec<Skipped>,
}

impl Discovery {
    /// The kernel, or the error that explains that there is none.
    ///
    /// # Errors
    /// [`KernelError::NothingFound`]
    pub fn require(self) -> Result<Found, KernelError> {
        self.found.ok_or_else(|| KernelError::NothingFound {
            seen: self.skipped.iter().map(|skipped| format!("\n  passed over {skipped}")).collect(),
        })
    }
}

/// A kernel that can be booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The bootable image.
    pub image: PathBuf,
    /// The ELF file with symbols.
    pub vmlinux: Option<PathBuf>,
    /// The `.config` it was built with.
    pub config: Option<PathBuf>,
    /// The directory with its loadable modules, if it is known to have one.
    pub modules: Option<PathBuf>,
    /// Where it was found.
    pub origin: Origin,
}

/// Where a kernel was found, in the order of the search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `KTSTR_TEST_KERNEL`
    TestKernel,
    /// The tree that `KTSTR_KERNEL` names.
    NamedTree(PathBuf),
    /// The cache entry that `KTSTR_KERNEL` names by version or key.
    NamedEntry(CacheKey),
    /// The newest cache entry built with the present fragment.
    NewestEntry(CacheKey),
    /// `./linux`, `../linux` or the running kernel's build tree.
    Tree(PathBuf),
    /// The running kernel, as installed.
    Installed,
    /// The newest prebuilt kernel in the cache, when there is nothing else.
    PrebuiltEntry(CacheKey),
}

/// Something that was passed over, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The file, entry or variable.
    pub what: String,
    /// Why it was of no use.
    pub why: String,
}

impl std::fmt::Display for Skipped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

/// Looks for a kernel in this order:
///
/// 1. `KTSTR_TEST_KERNEL`, an image
/// 2. `KTSTR_KERNEL`, a tree, a version or a cache key
/// 3. the newest cache entry built with the present fragment, unless 2 named a
///    version or key that isn't there
/// 4. `./linux`
/// 5. `../linux`
/// 6. `/lib/modules/$(uname -r)/build`
/// 7. `/lib/modules/$(uname -r)/vmlinuz`
/// 8. `/boot/vmlinuz-$(uname -r)`
/// 9. `/boot/vmlinuz`
/// 10. the newest prebuilt distribution kernel in the cache, under the same
///     condition as 3: a container has no kernel in `/boot`
///
/// # Errors
/// If a variable names something that can't be used. What merely lies in the
/// way of the search is skipped and noted.
pub fn discover(
    env: &DiscoverEnv,
    store: &dyn KernelStore,
    files: &dyn HostFiles,
) -> Result<Discovery, KernelError> {
    let mut search = Search { env, store, files, skipped: Vec::new() };
    let found = search.run()?;
    Ok(Discovery { found, skipped: search.skipped })
}

struct Search<'a> {
    env: &'a DiscoverEnv,
    store: &'a dyn KernelStore,
    files: &'a dyn HostFiles,
    skipped: Vec<Skipped>,
}

impl Search<'_> {
    fn run(&mut self) -> Result<Option<Found>, KernelError> {
        if let Some(image) = &self.env.test_kernel {
            return self.test_kernel(image).map(Some);
        }
        let mut scan_cache = true;
        if let Some(text) = self.env.kernel.as_deref().map(str::trim)
            && !text.is_empty()
        {
            match KernelSpec::parse_single(text, "KTSTR_KERNEL")? {
                KernelSpec::Path(path) => return self.named_tree(&path).map(Some),
                spec => {
                    if let Some(found) = self.named_entry(&spec)? {
                        return Ok(Some(found));
                    }
                    // Not to be replaced by an unrelated cached kernel.
                    scan_cache = false;
                }
            }
        }
        let entries = if scan_cache { self.entries() } else { vec![] };
        Ok(self
            .newest_built(&entries)
            .or_else(|| self.trees())
            .or_else(|| self.installed())
            .or_else(|| self.newest_prebuilt(&entries)))
    }

    fn test_kernel(&self, image: &Path) -> Result<Found, KernelError> {
        let fail = |seen: &str| KernelError::TestKernel { path: image.to_owned(), seen: seen.to_owned() };
        if image.as_os_str().is_empty() {
            return Err(fail("an empty value"));
        }
        let path = self.env.cwd.join(image);
        match self.files.probe(&path) {
            Probe::File => Ok(self.with_companions(path)),
            Probe::Missing => Err(fail("not there")),
            Probe::Directory => Err(fail("a directory")),
            Probe::Unreadable(why) => Err(fail(&format!("not readable ({why})"))),
        }
    }

    /// Looks for `vmlinux` and the configuration where a build tree, a cache
    /// entry or `/boot` would have them.
    fn with_companions(&self, image: PathBuf) -> Found {
        let in_tree = image.as_os_str().as_encoded_bytes().ends_with(self.env.arch.image_path().as_bytes());
        let depth = Path::new(self.env.arch.image_path()).components().count();
        let tree = image.ancestors().nth(depth).filter(|_| in_tree);
        let (vmlinux, config) = match tree {
            Some(tree) => (tree.join("vmlinux"), tree.join(".config")),
            None => (image.with_file_name("vmlinux"), image.with_file_name(sibling_config(&image))),
        };
        Found {
            vmlinux: self.if_file(vmlinux),
            config: self.if_file(config),
            modules: None,
            image,
            origin: Origin::TestKernel,
        }
    }

    fn named_tree(&self, path: &Path) -> Result<Found, KernelError> {
        let path = expand_tilde(path, self.env.home.as_deref())?;
        let dir = self.env.cwd.join(&path);
        if self.files.probe(&dir) == Probe::File {
            return Err(KernelError::KernelIsFile(path));
        }
        let expected = dir.join(self.env.arch.image_path());
        let seen = match self.files.probe(&expected) {
            Probe::File => return Ok(self.tree(&dir, Origin::NamedTree(dir.clone()))),
            Probe::Missing => "not there".to_owned(),
            Probe::Directory => "a directory".to_owned(),
            Probe::Unreadable(why) => format!("not readable ({why})"),
        };
        Err(KernelError::NoImageInTree { path, expected, seen })
    }

    /// The cached kernel that `KTSTR_KERNEL` names by key, version or package.
    fn named_entry(&mut self, spec: &KernelSpec) -> Result<Option<Found>, KernelError> {
        let entry = match spec {
            KernelSpec::Key(key) => match self.store.lookup(key) {
                Err(crate::ports::StoreError::Corrupt { corrupt, .. }) => {
                    self.skip(key, &corrupt);
                    None
                }
                other => other?,
            },
            _ => self
                .store
                .list()?
                .into_iter()
                .filter_map(|listed| listed.state.ok())
                .find(|entry| self.usable(entry) && spec.matches(&entry.metadata)),
        };
        if entry.is_none() {
            self.skip(
                &format!("KTSTR_KERNEL={spec}"),
                &"the cache has no such kernel built with the present fragment",
            );
        }
        Ok(entry.map(|entry| {
            let origin = Origin::NamedEntry(entry.key.clone());
            from_entry(entry, origin)
        }))
    }

    fn entries(&mut self) -> Vec<Listed> {
        match self.store.list() {
            Ok(entries) => entries,
            Err(error) => {
                self.skip(&"the kernel cache", &error);
                vec![]
            }
        }
    }

    fn newest_built(&mut self, entries: &[Listed]) -> Option<Found> {
        for listed in entries {
            match &listed.state {
                Ok(entry) if built_with_present_fragment(entry) && self.usable(entry) => {
                    let origin = Origin::NewestEntry(entry.key.clone());
                    return Some(from_entry(entry.clone(), origin));
                }
                Ok(_) => {}
                Err(corrupt) => self.skip(&listed.key, corrupt),
            }
        }
        None
    }

    fn newest_prebuilt(&mut self, entries: &[Listed]) -> Option<Found> {
        let entry = entries.iter().filter_map(|listed| listed.state.as_ref().ok()).find(|entry| {
            self.usable(entry) && matches!(entry.metadata.source, Provenance::AptImage { .. })
        })?;
        let origin = Origin::PrebuiltEntry(entry.key.clone());
        Some(from_entry(entry.clone(), origin))
    }

    /// Is it for our architecture, and, if it was built, with our fragment?
    fn usable(&self, entry: &CacheEntry) -> bool {
        let prebuilt = matches!(entry.metadata.source, Provenance::AptImage { .. });
        entry.metadata.arch == self.env.arch && (prebuilt || built_with_present_fragment(entry))
    }

    fn trees(&mut self) -> Option<Found> {
        let release = &self.env.uname_release;
        let dirs = [
            self.env.cwd.join("linux"),
            self.env.cwd.join("../linux"),
            PathBuf::from(format!("/lib/modules/{release}/build")),
        ];
        let dir = dirs.into_iter().find(|dir| self.bootable(&dir.join(self.env.arch.image_path())))?;
        Some(self.tree(&dir, Origin::Tree(dir.clone())))
    }

    fn installed(&mut self) -> Option<Found> {
        let release = self.env.uname_release.clone();
        let images = [
            format!("/lib/modules/{release}/vmlinuz"),
            format!("/boot/vmlinuz-{release}"),
            "/boot/vmlinuz".to_owned(),
        ];
        let image = images.into_iter().map(PathBuf::from).find(|image| self.bootable(image))?;
        // The unversioned link may point at another release than the running
        // one, so nothing is known to belong to it.
        let versioned = image != Path::new("/boot/vmlinuz");
        let first = |candidates: [String; 2]| {
            candidates.into_iter().filter(|_| versioned).find_map(|path| self.if_file(PathBuf::from(path)))
        };
        Some(Found {
            vmlinux: first([
                format!("/usr/lib/debug/boot/vmlinux-{release}"),
                format!("/usr/lib/debug/lib/modules/{release}/vmlinux"),
            ]),
            config: first([format!("/boot/config-{release}"), format!("/lib/modules/{release}/config")]),
            modules: Some(PathBuf::from(format!("/lib/modules/{release}")))
                .filter(|dir| versioned && self.files.probe(dir) == Probe::Directory),
            image,
            origin: Origin::Installed,
        })
    }

    /// Is a readable file there? What is there and can't be read is noted.
    fn bootable(&mut self, image: &Path) -> bool {
        match self.files.probe(image) {
            Probe::File => true,
            Probe::Unreadable(why) => {
                self.skip(&image.display(), &why);
                false
            }
            Probe::Missing | Probe::Directory => false,
        }
    }

    fn tree(&self, dir: &Path, origin: Origin) -> Found {
        Found {
            image: dir.join(self.env.arch.image_path()),
            vmlinux: self.if_file(dir.join("vmlinux")),
            config: self.if_file(dir.join(".config")),
            modules: None,
            origin,
        }
    }

    fn if_file(&self, path: PathBuf) -> Option<PathBuf> {
        (self.files.probe(&path) == Probe::File).then_some(path)
    }

    fn skip(&mut self, what: &dyn ToString, why: &dyn ToString) {
        self.skipped.push(Skipped { what: what.to_string(), why: why.to_string() });
    }
}

/// `config-6.12` for `vmlinuz-6.12`; `config`, as in a cache entry, otherwise.
fn sibling_config(image: &Path) -> String {
    image
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.split_once('-'))
        .map_or("config".to_owned(), |(_, release)| format!("config-{release}"))
}

fn built_with_present_fragment(entry: &CacheEntry) -> bool {
    entry.metadata.ktstr_kconfig_hash.as_deref() == Some(ktstr_kconfig::kconfig_hash().as_str())
}

fn from_entry(entry: CacheEntry, origin: Origin) -> Found {
    Found { image: entry.image, vmlinux: entry.vmlinux, config: entry.config, modules: entry.modules, origin }
}

#[cfg(test)]
mod tests;
