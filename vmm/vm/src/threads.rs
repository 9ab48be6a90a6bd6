//! Where on the host a machine's threads run, and what they give way to.

use ktstr_topology::CpuSet;
use std::ffi::c_ulong;
use std::io::Error;

/// CPUs and precedence of a machine's threads. The default leaves them to the host's scheduler.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Threads {
    /// The host's CPUs that each vCPU's thread may use, in the order of the vCPUs; none leaves them all as they are.
    pub vcpus: Vec<CpuSet>,
    /// The host's CPUs for the thread that serves devices and ends the machine; none leaves it as it is.
    pub events: CpuSet,
    /// True to run vCPUs before all that isn't real-time (`SCHED_FIFO`, priority 1), and the thread that can end
    /// them before those (priority 2).
    pub fifo: bool,
}

const VCPU_PRIORITY: i32 = 1;
const EVENTS_PRIORITY: i32 = 2;

impl Threads {
    /// Of the calling thread, which is that vCPU's.
    pub(crate) fn enter_vcpu(&self, index: u32) -> Result<(), String> {
        self.enter(self.vcpus.get(index as usize), VCPU_PRIORITY)
    }

    /// Of the calling thread, which serves devices.
    pub(crate) fn enter_events(&self) -> Result<(), String> {
        self.enter(Some(&self.events), EVENTS_PRIORITY)
    }

    fn enter(&self, cpus: Option<&CpuSet>, priority: i32) -> Result<(), String> {
        if let Some(cpus) = cpus.filter(|cpus| !cpus.is_empty()) {
            pin(cpus).map_err(|e| format!("running this thread on the host's CPUs {cpus} only: {e}"))?;
        }
        if self.fifo {
            let parameters = libc::sched_param { sched_priority: priority };
            // SAFETY: 0 is the calling thread; the parameters are only read.
            if unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) } != 0 {
                let e = Error::last_os_error();
                return Err(format!("giving this thread real-time priority {priority} (SCHED_FIFO): {e}"));
            }
        }
        Ok(())
    }
}

/// Without the C library's limit of 1024 CPUs.
fn pin(cpus: &CpuSet) -> Result<(), Error> {
    let bits = c_ulong::BITS;
    let mut mask = vec![0 as c_ulong; (cpus.last().unwrap_or(0) / bits + 1) as usize];
    for cpu in cpus {
        mask[(cpu / bits) as usize] |= 1 << (cpu % bits);
    }
    let (bytes, mask) = (size_of_val(&mask[..]), mask.as_ptr());
    // SAFETY: 0 is the calling thread; the mask is as long as the call is told, and lives until it returns.
    let answer = unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, bytes, mask) };
    if answer < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}
