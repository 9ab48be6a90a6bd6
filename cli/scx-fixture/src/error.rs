//! What can go wrong in the user half.

/// The user half could not do its part.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FixtureError {
    /// libbpf could not read the object that is built in.
    #[error("opening the built-in BPF object: {0:#}; this is a bug of scx-fixture")]
    Open(libbpf_rs::Error),
    /// The object lacks a part that the loader knows, or it has another size.
    #[error("looking for {part} in the built-in BPF object: {why}; bpf/ and src/config.rs disagree")]
    Object { part: &'static str, why: String },
    /// The kernel refused a program or a map.
    #[error("loading the scheduler: {0:#}; what libbpf and the verifier said is above")]
    Load(libbpf_rs::Error),
    /// There is nothing to load it into.
    #[error(
        "loading the scheduler: {0:#}; this kernel has no sched_ext: expected /sys/kernel/sched_ext, which takes \
         Linux 6.12 with CONFIG_SCHED_CLASS_EXT"
    )]
    NoSchedExt(libbpf_rs::Error),
    /// The kernel refused the scheduler.
    #[error(
        "attaching the scheduler: {source:#}{}; {}",
        .said.as_deref().map(|said| format!(" ({said})")).unwrap_or_default(),
        match .other {
            Some(other) => format!("{other:?} is attached already: end that one first"),
            None => "expected a kernel that takes sched_ext schedulers; look at dmesg".to_string(),
        }
    )]
    Attach {
        source: libbpf_rs::Error,
        /// What `ops.exit` was told, if it was called.
        said: Option<String>,
        /// The scheduler that the kernel has instead.
        other: Option<String>,
    },
    /// A running scheduler's data can't be read or written.
    #[error("{doing} {part} of the running scheduler: {why}")]
    Data { doing: &'static str, part: &'static str, why: String },
    /// After the link was closed the kernel half had not been told of its end.
    #[error("detaching the scheduler: the link is closed, but ops.exit was not called; look at dmesg")]
    StillAttached,
    /// A system call failed.
    #[error("{doing}: {source}")]
    System { doing: &'static str, source: std::io::Error },
}
