//! Data that both halves share; bpf/fixture.bpf.c has the same in C.

/// `enum fault`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Fault {
    None = 0,
    StallCpu = 1,
    DropTask = 2,
    StarveCgroup = 3,
    IgnoreAffinity = 4,
    BurnDispatch = 5,
    ScxError = 6,
    LeakDsq = 7,
    CpusetChange = 8,
    IgnoreHotplug = 9,
}

impl Fault {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::StallCpu => "stall-cpu",
            Self::DropTask => "drop-task",
            Self::StarveCgroup => "starve-cgroup",
            Self::IgnoreAffinity => "ignore-affinity",
            Self::BurnDispatch => "burn-dispatch",
            Self::ScxError => "scx-error",
            Self::LeakDsq => "leak-dsq",
            Self::CpusetChange => "cpuset-change",
            Self::IgnoreHotplug => "ignore-hotplug",
        }
    }
}

/// `config`: read-only for the kernel half, set before it is loaded. Times in
/// nanoseconds, texts end with a zero.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) slice_ns: u64,
    pub(crate) burn_ns: u64,
    pub(crate) leak_every_ns: u64,
    /// The cgroup's id; 0: it is named.
    pub(crate) starve_id: u64,
    pub(crate) fault: u32,
    pub(crate) cpu: u32,
    pub(crate) starve_factor: u32,
    pub(crate) loops: u32,
    /// This process, which must not suffer.
    pub(crate) user_tgid: i32,
    pub(crate) victim_comm: [u8; 16],
    pub(crate) starve_name: [u8; 64],
    pub(crate) message: [u8; 128],
}

impl Config {
    /// As the C struct lies in memory: no gaps, padded to a multiple of 8.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [self.slice_ns, self.burn_ns, self.leak_every_ns, self.starve_id] {
            bytes.extend(word.to_ne_bytes());
        }
        for word in [self.fault, self.cpu, self.starve_factor, self.loops] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(self.user_tgid.to_ne_bytes());
        bytes.extend(self.victim_comm);
        bytes.extend(self.starve_name);
        bytes.extend(self.message);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }
}

/// The head of `struct sched_ext_ops` as bpf/kernel.h orders it: what the loader sets.
pub(crate) mod ops_head {
    /// `char name[128]`.
    pub(crate) const NAME: std::ops::Range<usize> = 0..128;
    /// `u64 flags`.
    pub(crate) const FLAGS: std::ops::Range<usize> = 128..136;
    /// `u32 timeout_ms`.
    pub(crate) const TIMEOUT_MS: std::ops::Range<usize> = 136..140;

    /// `SCX_OPS_ENQ_LAST`, kernel/sched/ext.c.
    pub(crate) const ENQ_LAST: u64 = 1 << 1;
    /// `SCX_OPS_SWITCH_PARTIAL`, likewise.
    pub(crate) const SWITCH_PARTIAL: u64 = 1 << 3;
}

/// The text with zeros after it; at least one, which the caller's limits see to.
pub(crate) fn text<const N: usize>(words: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let len = words.len().min(N - 1);
    bytes[..len].copy_from_slice(&words.as_bytes()[..len]);
    bytes
}
