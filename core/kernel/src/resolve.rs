//! The kernel that somebody named: taken from the store, or fetched, built and
//! stored.

use std::path::{Path, PathBuf};

use crate::arch::Arch;
use crate::error::KernelError;
use crate::key::CacheKey;
use crate::metadata::{CacheEntry, Provenance};
use crate::plan::BuildPlan;
use crate::ports::{
    Acquired, BuildJob, Built, KernelBuilder, KernelSource, KernelStore, NewEntry, RemoteId, Scratch,
    SourceError, SourceId, StoreError, TreeId, TreeState,
};
use crate::progress::{Progress, Stage};
use crate::spec::KernelSpec;

/// Which kernel, and how to make it if it has to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// As named.
    pub spec: KernelSpec,
    /// What it must run on.
    pub arch: Arch,
    /// The user's own fragment, the text of `--extra-kconfig`.
    pub extra_kconfig: Option<String>,
    /// Build even if the store has it (`--force`).
    pub force: bool,
    /// Throw away a tree's earlier build output first (`--clean`).
    pub clean: bool,
}

impl Request {
    /// Asks for `spec` with the embedded fragment alone.
    #[must_use]
    pub const fn new(spec: KernelSpec, arch: Arch) -> Self {
        Self { spec, arch, extra_kconfig: None, force: false, clean: false }
    }

    fn suffix(&self) -> String {
        ktstr_kconfig::cache_key_suffix_with_extra(self.extra_kconfig.as_deref())
    }

    fn extra_hash(&self) -> Option<String> {
        self.extra_kconfig.as_deref().map(ktstr_kconfig::extra_kconfig_hash)
    }
}

/// A kernel that is ready to boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedKernel {
    /// The bootable image.
    pub image: PathBuf,
    /// The ELF file with symbols and debug information.
    pub vmlinux: Option<PathBuf>,
    /// The `.config` it was built with.
    pub config: Option<PathBuf>,
    /// The directory with its loadable modules, see [`CacheEntry::modules`].
    pub modules: Option<PathBuf>,
    /// Release or package version.
    pub version: String,
    /// How we came by it.
    pub origin: KernelOrigin,
}

/// How a resolved kernel was come by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelOrigin {
    /// The store had it.
    Hit {
        /// Its entry.
        key: CacheKey,
        /// When it was stored, in seconds since the Unix epoch.
        built_at: u64,
    },
    /// It was made just now and is in the store.
    Stored {
        /// Its entry.
        key: CacheKey,
    },
    /// It was built in the user's tree and stays there.
    InTree {
        /// The tree.
        dir: PathBuf,
        /// Why it was not stored.
        reason: NotStored,
    },
}

/// Why a kernel built in a tree was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotStored {
    /// There are changes that no commit names.
    #[error("the tree has uncommitted changes")]
    Dirty,
    /// There is no commit.
    #[error("the tree is not a git repository")]
    NotGit,
    /// What was built may be a mixture.
    #[error("the tree changed while it was built")]
    Changed,
}

/// Gets the kernel that `request` names: from the store if it is there, else
/// by fetching, building, checking and storing it. Trees that no commit names
/// are built in place and not stored.
///
/// # Errors
/// If nothing has that name, or it can't be fetched, built or stored.
pub fn resolve(
    request: &Request,
    store: &dyn KernelStore,
    source: &dyn KernelSource,
    builder: &dyn KernelBuilder,
    progress: &mut dyn Progress,
) -> Result<ResolvedKernel, KernelError> {
    match &request.spec {
        KernelSpec::Key(key) => {
            let entry = store.lookup(key)?;
            return entry.map(hit).ok_or_else(|| KernelError::NotCached(key.clone()));
        }
        KernelSpec::Range(..) => return Err(KernelError::Range(request.spec.to_string())),
        _ => {}
    }
    let mut work = Work { request, store, source, builder, progress };
    let id = match source.identify(&request.spec, request.arch) {
        Ok(id) => id,
        Err(error) => return work.without_source(error),
    };
    let plan = BuildPlan::new(id, request.arch, &request.suffix());
    if let Some(kernel) = work.cached(&plan)? {
        return Ok(kernel);
    }
    if plan.compiles() {
        builder.preflight(request.arch)?;
    }
    let lease = store.lease(&plan.lease(), work.progress)?;
    // Whoever held the lease before us may have made what we need.
    let (kernel, scratch) = match work.cached(&plan)? {
        Some(kernel) => (kernel, None),
        None => work.make(&plan)?,
    };
    // Others can use the kernel while we tidy up.
    drop(lease);
    if let Some(scratch) = scratch {
        work.clean_up(scratch);
    }
    Ok(kernel)
}

/// A kernel, and what is to be deleted once it is stored.
type Made = (ResolvedKernel, Option<Box<dyn Scratch>>);

struct Work<'a> {
    request: &'a Request,
    store: &'a dyn KernelStore,
    source: &'a dyn KernelSource,
    builder: &'a dyn KernelBuilder,
    progress: &'a mut dyn Progress,
}

impl Work<'_> {
    /// The source can't say what the spec means (no network, no package
    /// lists): an earlier kernel of that name is better than none.
    fn without_source(&mut self, error: SourceError) -> Result<ResolvedKernel, KernelError> {
        if self.request.force {
            return Err(error.into());
        }
        let found = self.newest(|request, entry| request.spec.matches(&entry.metadata))?;
        let Some(entry) = found else {
            return Err(error.into());
        };
        self.progress.warn(format!("{error}; using the cached kernel {}", entry.key));
        Ok(hit(entry))
    }

    /// The stored kernel of this plan, unless the user wants a new one.
    fn cached(&mut self, plan: &BuildPlan) -> Result<Option<ResolvedKernel>, KernelError> {
        let Some(key) = plan.key().filter(|_| !self.request.force) else {
            return Ok(None);
        };
        match self.store.lookup(key) {
            Ok(Some(entry)) => return Ok(Some(hit(entry))),
            Ok(None) => {}
            Err(StoreError::Corrupt { key, corrupt }) => {
                self.progress.warn(format!("replacing the cached kernel {key}: {corrupt}"));
            }
            Err(error) => return Err(error.into()),
        }
        match plan {
            BuildPlan::InTree { tree, .. } => self.cached_tree(tree),
            BuildPlan::Fetch { .. } => Ok(None),
        }
    }

    /// Building in a tree leaves the final `.config` behind, which changes the
    /// tree's key. An entry that was built from the same commit and ended up
    /// with the very `.config` that the tree has now is the same kernel.
    fn cached_tree(&self, tree: &TreeId) -> Result<Option<ResolvedKernel>, KernelError> {
        let (TreeState::Clean { commit }, Some(config)) = (&tree.state, &tree.config_hash) else {
            return Ok(None);
        };
        let found = self.newest(|_, entry| {
            let same_commit = matches!(
                &entry.metadata.source,
                Provenance::Local { commit: built, .. } if built == commit
            );
            same_commit && entry.metadata.config_hash.as_ref() == Some(config)
        })?;
        Ok(found.map(hit))
    }

    /// The newest usable entry for the requested architecture and fragments
    /// that `wanted` accepts.
    fn newest(
        &self,
        wanted: impl Fn(&Request, &CacheEntry) -> bool,
    ) -> Result<Option<CacheEntry>, KernelError> {
        let (ours, extra) = (ktstr_kconfig::kconfig_hash(), self.request.extra_hash());
        let same_config = |entry: &CacheEntry| {
            let meta = &entry.metadata;
            let prebuilt = matches!(meta.source, Provenance::AptImage { .. });
            let built = meta.ktstr_kconfig_hash.as_ref() == Some(&ours) && meta.extra_kconfig_hash == extra;
            prebuilt || built
        };
        Ok(self.store.list()?.into_iter().filter_map(|listed| listed.state.ok()).find(|entry| {
            entry.metadata.arch == self.request.arch && same_config(entry) && wanted(self.request, entry)
        }))
    }

    fn make(&mut self, plan: &BuildPlan) -> Result<Made, KernelError> {
        match plan {
            BuildPlan::Fetch { id, key } => {
                let scratch = self.store.scratch(key)?;
                let kernel = self.fetch(id, key, scratch.path())?;
                Ok((kernel, Some(scratch)))
            }
            BuildPlan::InTree { tree, key, label } => {
                let kernel = self.build_in_tree(tree, key.as_ref(), label)?;
                Ok((kernel, None))
            }
        }
    }

    fn clean_up(&mut self, scratch: Box<dyn Scratch>) {
        let subject = scratch.path().display().to_string();
        self.progress.started(Stage::CleanUp, subject, None);
        drop(scratch);
        self.progress.finished(Stage::CleanUp);
    }

    fn fetch(
        &mut self,
        id: &RemoteId,
        key: &CacheKey,
        scratch: &Path,
    ) -> Result<ResolvedKernel, KernelError> {
        let acquired = self.source.acquire(id, self.request.arch, scratch, self.progress)?;
        let ready = match acquired {
            Acquired::Tree { dir, build_dir } => Ready::built(self.build(dir, Some(build_dir), key)?),
            Acquired::Prebuilt { image, config, vmlinux, modules } => {
                Ready { image, vmlinux, config, modules, ours: false }
            }
        };
        self.store_kernel(key, id.provenance(), id.version(), ready)
    }

    fn build_in_tree(
        &mut self,
        tree: &TreeId,
        key: Option<&CacheKey>,
        label: &CacheKey,
    ) -> Result<ResolvedKernel, KernelError> {
        let built = self.build(tree.dir.clone(), None, label)?;
        let reason = match (&tree.state, key) {
            (TreeState::Clean { commit }, Some(key)) if self.unchanged(tree)? => {
                let source = Provenance::Local { path: tree.dir.clone(), commit: commit.clone() };
                let release = built.release.clone();
                return self.store_kernel(key, source, &release, Ready::built(built));
            }
            (TreeState::Clean { .. }, _) => NotStored::Changed,
            (TreeState::Dirty { .. }, _) => NotStored::Dirty,
            (TreeState::NotGit, _) => NotStored::NotGit,
        };
        Ok(ResolvedKernel {
            image: built.image,
            vmlinux: Some(built.vmlinux),
            config: Some(built.config),
            modules: None,
            version: built.release,
            origin: KernelOrigin::InTree { dir: tree.dir.clone(), reason },
        })
    }

    /// A tree is looked at again after make: somebody may have edited it.
    fn unchanged(&self, before: &TreeId) -> Result<bool, KernelError> {
        let after = self.source.identify(&self.request.spec, self.request.arch)?;
        Ok(matches!(&after, SourceId::Tree(tree) if tree.state == before.state))
    }

    fn build(
        &mut self,
        tree: PathBuf,
        build_dir: Option<PathBuf>,
        label: &CacheKey,
    ) -> Result<Built, KernelError> {
        let job = BuildJob {
            tree,
            build_dir,
            arch: self.request.arch,
            extra_kconfig: self.request.extra_kconfig.clone(),
            clean: self.request.clean,
            label: label.clone(),
        };
        Ok(self.builder.build(&job, self.progress)?)
    }

    fn store_kernel(
        &mut self,
        key: &CacheKey,
        source: Provenance,
        version: &str,
        ready: Ready,
    ) -> Result<ResolvedKernel, KernelError> {
        self.progress.started(Stage::Store, key.as_str(), None);
        let files = NewEntry {
            image: ready.image,
            image_name: self.request.arch.image_name().to_owned(),
            vmlinux: ready.vmlinux,
            config: ready.config,
            modules: ready.modules,
            version: version.to_owned(),
            source,
            arch: self.request.arch,
            ktstr_kconfig_hash: ready.ours.then(ktstr_kconfig::kconfig_hash),
            extra_kconfig_hash: self.request.extra_hash().filter(|_| ready.ours),
        };
        let entry = self.store.store(key, &files)?;
        self.progress.finished(Stage::Store);
        let mut kernel = hit(entry);
        kernel.origin = KernelOrigin::Stored { key: key.clone() };
        Ok(kernel)
    }
}

/// Files that are ready to be stored.
struct Ready {
    image: PathBuf,
    vmlinux: Option<PathBuf>,
    config: Option<PathBuf>,
    modules: Option<PathBuf>,
    /// Built by us, with our fragment.
    ours: bool,
}

impl Ready {
    fn built(built: Built) -> Self {
        Self {
            image: built.image,
            vmlinux: Some(built.vmlinux),
            config: Some(built.config),
            modules: None,
            ours: true,
        }
    }
}

fn hit(entry: CacheEntry) -> ResolvedKernel {
    ResolvedKernel {
        image: entry.image,
        vmlinux: entry.vmlinux,
        config: entry.config,
        modules: entry.modules,
        version: entry.metadata.version,
        origin: KernelOrigin::Hit { key: entry.key, built_at: entry.metadata.built_at },
    }
}

#[cfg(test)]
mod tests;
