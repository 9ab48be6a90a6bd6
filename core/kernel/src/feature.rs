//! What a kernel can do, told from its configuration.

use std::path::Path;

use crate::ports::{HostFiles, ReadError};

/// Something that tests may need and a distribution's kernel may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Feature {
    /// BPF schedulers.
    SchedExt,
    /// Type information for BPF programs and for introspection.
    Btf,
    /// The `bpf(2)` system call.
    Bpf,
    /// Kernel probes as trace events.
    KprobeEvents,
    /// `/proc/schedstat` and per-task counters.
    SchedStats,
    /// NUMA nodes.
    Numa,
    /// The `cpuset` controller.
    Cpusets,
    /// The `cpu` controller's quota.
    CpuBandwidth,
    /// A virtio disk without loading a module.
    VirtioBlk,
    /// virtio devices on PCI without loading a module.
    VirtioPci,
    /// A virtio console without loading a module.
    VirtioConsole,
}

impl Feature {
    /// Every feature.
    pub const ALL: [Self; 11] = [
        Self::SchedExt,
        Self::Btf,
        Self::Bpf,
        Self::KprobeEvents,
        Self::SchedStats,
        Self::Numa,
        Self::Cpusets,
        Self::CpuBandwidth,
        Self::VirtioBlk,
        Self::VirtioPci,
        Self::VirtioConsole,
    ];

    /// The option without `CONFIG_` that must be built in.
    #[must_use]
    pub const fn option(self) -> &'static str {
        match self {
            Self::SchedExt => "SCHED_CLASS_EXT",
            Self::Btf => "DEBUG_INFO_BTF",
            Self::Bpf => "BPF_SYSCALL",
            Self::KprobeEvents => "KPROBE_EVENTS",
            Self::SchedStats => "SCHEDSTATS",
            Self::Numa => "NUMA",
            Self::Cpusets => "CPUSETS",
            Self::CpuBandwidth => "CFS_BANDWIDTH",
            Self::VirtioBlk => "VIRTIO_BLK",
            Self::VirtioPci => "VIRTIO_PCI",
            Self::VirtioConsole => "VIRTIO_CONSOLE",
        }
    }

    /// How to say that a kernel has it not: "this kernel has no ...".
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SchedExt => "sched_ext",
            Self::Btf => "BTF",
            Self::Bpf => "bpf system call",
            Self::KprobeEvents => "kprobe events",
            Self::SchedStats => "schedstats",
            Self::Numa => "NUMA support",
            Self::Cpusets => "cpuset controller",
            Self::CpuBandwidth => "CPU bandwidth control",
            Self::VirtioBlk => "built-in virtio disk",
            Self::VirtioPci => "built-in virtio over PCI",
            Self::VirtioConsole => "built-in virtio console",
        }
    }
}

/// Does a kernel with this `.config` have `feature` built in?
#[must_use]
pub fn config_supports(dot_config: &str, feature: Feature) -> bool {
    ktstr_kconfig::is_enabled(dot_config, feature.option())
}

/// The features that a kernel with this `.config` lacks.
#[must_use]
pub fn lacking_features(dot_config: &str) -> Vec<Feature> {
    Feature::ALL.into_iter().filter(|feature| !config_supports(dot_config, *feature)).collect()
}

/// The features that the kernel with the configuration file `config` lacks, or
/// `None` if nothing is known: no such file was found with the kernel.
///
/// # Errors
/// If the file is there but can't be read.
pub fn lacking_features_in(
    config: Option<&Path>,
    files: &dyn HostFiles,
) -> Result<Option<Vec<Feature>>, ReadError> {
    let text = match config {
        Some(path) => files.read(path)?,
        None => None,
    };
    Ok(text.as_deref().map(lacking_features))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::MockHostFiles;

    #[test]
    fn nothing_is_said_of_a_kernel_without_a_configuration() {
        let mut files = MockHostFiles::new();
        files.expect_read().times(1).returning(|_| Ok(None));
        let path = Path::new("/boot/config-6.1");
        assert!(matches!(lacking_features_in(Some(path), &files), Ok(None)));
        assert!(matches!(lacking_features_in(None, &files), Ok(None)));
        files.expect_read().times(1).returning(|_| Ok(Some("CONFIG_SCHED_CLASS_EXT=y\n".into())));
        let lacking = lacking_features_in(Some(path), &files).expect("readable").expect("known");
        assert!(!lacking.contains(&Feature::SchedExt));
        assert!(lacking.contains(&Feature::Btf));
    }

    #[test]
    fn the_embedded_fragment_lacks_nothing() {
        assert_eq!(lacking_features(ktstr_kconfig::EMBEDDED_KCONFIG), vec![]);
    }

    #[test]
    fn a_module_is_not_built_in() {
        let config = "CONFIG_VIRTIO_BLK=m\nCONFIG_NUMA=y\n# CONFIG_SCHED_CLASS_EXT is not set\n";
        assert!(config_supports(config, Feature::Numa));
        assert!(!config_supports(config, Feature::VirtioBlk));
        let lacking = lacking_features(config);
        assert!(lacking.contains(&Feature::SchedExt));
        assert!(!lacking.contains(&Feature::Numa));
        assert_eq!(lacking.len(), Feature::ALL.len() - 1);
    }
}
