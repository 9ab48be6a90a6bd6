//! What can go wrong with a machine.

/// A machine that could not be made or asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VmError {
    /// `/dev/kvm` can't be opened.
    #[error(
        "opening /dev/kvm: {source}; load the module kvm_intel or kvm_amd, and give this user access to it"
    )]
    NoKvm {
        /// The system's answer.
        source: kvm_ioctls::Error,
    },
    /// This KVM is too old or too small.
    #[error("making a machine under KVM: {what}")]
    Unsupported {
        /// What is missing, and what to do instead.
        what: String,
    },
    /// KVM refused.
    #[error("{doing}: KVM answered {source}")]
    Kvm {
        /// What was being done.
        doing: String,
        /// KVM's answer.
        source: kvm_ioctls::Error,
    },
    /// An operating system call failed.
    #[error("{doing}: {source}")]
    Os {
        /// What was being done.
        doing: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The shape makes no sense.
    #[error(transparent)]
    Topology(#[from] ktstr_topology::TopologyError),
    /// RAM could not be made.
    #[error(transparent)]
    Memory(#[from] ktstr_vmm_memory::MemoryError),
    /// The kernel could not be loaded.
    #[error(transparent)]
    Boot(#[from] ktstr_vmm_boot::BootError),
    /// The ACPI tables could not be built.
    #[error(transparent)]
    Acpi(#[from] ktstr_vmm_acpi::AcpiError),
    /// Something could not be written to guest memory.
    #[error("writing {what} to guest memory: {source}")]
    Write {
        /// What.
        what: &'static str,
        /// The reason.
        source: vm_memory::GuestMemoryError,
    },
    /// A device could not be made.
    #[error(transparent)]
    Device(#[from] ktstr_vmm_devices::virtio::VirtioError),
    /// A disk could not be made.
    #[error("disk {index}: {source}")]
    Disk {
        /// Which one, from 0.
        index: usize,
        /// What is wrong with it.
        source: ktstr_vmm_devices::virtio::block::DiskError,
    },
    /// Other disks than there can be.
    #[error("giving a machine its disks: {why}")]
    Disks {
        /// What differs.
        why: String,
    },
    /// A serial port could not be restored.
    #[error(transparent)]
    Serial(#[from] ktstr_vmm_devices::SerialError),
    /// A file of a saved machine could not be made, read or written.
    #[error("{doing} {path}: {source}", path = path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A saved machine that isn't one, or isn't this one.
    #[error("restoring the machine saved in {dir}: {why}", dir = dir.display())]
    Saved {
        /// Where it is.
        dir: std::path::PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A machine that is over can't be saved.
    #[error("saving a machine: it has ended")]
    Ended,
    /// A machine that runs can't be saved.
    #[error("saving a machine: it runs; pause it first")]
    Runs,
    /// A vCPU could not be started, paused or asked.
    #[error(transparent)]
    Vcpu(#[from] ktstr_vmm_vcpu::VcpuError),
    /// The event loop could not be started.
    #[error("starting the loop that serves devices: {why}")]
    Events {
        /// The reason.
        why: String,
    },
}

impl VmError {
    /// A [`Kvm`](Self::Kvm) error, for `map_err`.
    pub(crate) fn kvm(doing: impl Into<String>) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Kvm { doing, source }
    }

    /// An [`Os`](Self::Os) error, for `map_err`.
    pub(crate) fn os(doing: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Os { doing, source }
    }
}
