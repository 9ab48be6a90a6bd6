//! What workers do and what they report, as data.
//!
//! A [`WorkType`] names a behaviour (spin, futex ping-pong, bursts …), a
//! [`WorkSpec`] says how many workers show it and under which policy, and a
//! [`WorkerReport`] is what one of them measured. Nothing here makes a system
//! call: `adapters/workers` forks the processes, `core/scenario` decides when.

mod affinity;
mod histogram;
mod policy;
mod report;
mod spec;
mod work_type;

pub use affinity::{AffinityError, AffinityIntent};
pub use histogram::{BUCKETS, LatencyHistogram, bucket_index, bucket_range};
pub use policy::{CloneMode, MemPolicy, MpolFlags, PolicyError, SchedPolicy};
pub use report::{ExitInfo, MAX_MIGRATIONS, Migration, WorkerReport};
pub use spec::{WorkSpec, WorkloadConfig};
pub use work_type::{CustomWork, WorkPhase, WorkType, WorkTypeError, WorkerCtx};

/// A process or thread id as the kernel hands it out (`pid_t`).
pub type Pid = i32;
