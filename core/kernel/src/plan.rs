//! What has to be done to get a kernel, as data.

use crate::arch::Arch;
use crate::key::{CacheKey, build_lease, remote_key, source_lease, tree_key, uncached_label};
use crate::ports::{RemoteId, SourceId, TreeId};

/// What has to be done for a kernel that the store doesn't have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildPlan {
    /// Fetch it, build it unless it is prebuilt, store it.
    Fetch {
        /// What to fetch.
        id: RemoteId,
        /// Where to store it.
        key: CacheKey,
    },
    /// Build it where it is; store it if it is at a commit.
    InTree {
        /// The tree.
        tree: TreeId,
        /// Where to store it; `None` if no commit names what is there.
        key: Option<CacheKey>,
        /// What to call it: the key, or a name made of the tree's path.
        label: CacheKey,
    },
}

impl BuildPlan {
    /// The plan for `id`, built for `arch` with the configuration that
    /// `suffix` names.
    #[must_use]
    pub fn new(id: SourceId, arch: Arch, suffix: &str) -> Self {
        match id {
            SourceId::Remote(id) => Self::Fetch { key: remote_key(&id, arch, suffix), id },
            SourceId::Tree(tree) => {
                let key = tree_key(&tree, arch, suffix);
                Self::InTree {
                    label: key.clone().unwrap_or_else(|| uncached_label(&tree.dir, arch, suffix)),
                    key,
                    tree,
                }
            }
        }
    }

    /// The entry that would be this kernel.
    #[must_use]
    pub const fn key(&self) -> Option<&CacheKey> {
        match self {
            Self::Fetch { key, .. } => Some(key),
            Self::InTree { key, .. } => key.as_ref(),
        }
    }

    /// What to hold while it is made, so that it is made once.
    #[must_use]
    pub fn lease(&self) -> CacheKey {
        match self {
            Self::Fetch { key, .. } => build_lease(key),
            Self::InTree { tree, .. } => source_lease(&tree.dir),
        }
    }

    /// Does it have to be compiled?
    #[must_use]
    pub const fn compiles(&self) -> bool {
        !matches!(self, Self::Fetch { id: RemoteId::AptImage { .. }, .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::TreeState;

    #[test]
    fn a_plan_says_what_to_compile_to_lock_and_to_call_it() {
        let plan = BuildPlan::new(
            SourceId::Remote(RemoteId::AptImage {
                package: "linux-image-6.12.117-cloud-amd64".into(),
                version: "6.12.117-1".into(),
            }),
            Arch::X86_64,
            "12",
        );
        assert!(!plan.compiles());
        assert_eq!(plan.lease().as_str(), "build-6.12.117-1-image-x86_64");
        let plan = BuildPlan::new(
            SourceId::Tree(TreeId { dir: "/src/linux".into(), state: TreeState::NotGit, config_hash: None }),
            Arch::X86_64,
            "12",
        );
        assert!(plan.compiles());
        assert_eq!(plan.key(), None);
        let BuildPlan::InTree { label, .. } = &plan else {
            panic!("a tree");
        };
        assert!(label.as_str().starts_with("local-unknown-"));
        assert!(plan.lease().as_str().starts_with("source-"));
    }
}
