//! sched_ext: state, loaded scheduler, dispatch queues, events (kernel/sched/ext.c).
//!
//! Up to 6.15 its globals are variables; from 6.16 (48e126777386 "sched_ext: Introduce scx_sched") most are members of
//! a `struct scx_sched` that `scx_root` points to. Both are looked for, by symbol and by member.

mod event;
mod exit;
mod queue;
mod wait;

use ktstr_introspect_memory::VirtAddr;
use ktstr_introspect_types::Type;

use crate::record::record;
use crate::{ErrorKind, Kernel, KernelError};

pub use event::CpuEvents;
pub use exit::{ExitInfo, ExitReport};
pub use queue::DispatchQueue;
pub use wait::ScxWait;

pub(crate) use exit::ExitInfoPlans;
pub(crate) use queue::DispatchQueuePlans;

record! {
    /// The loaded scheduler's `struct sched_ext_ops`; after an unload, what is left of it.
    SchedExtOps, SchedExtOpsPlans, ops {
        /// Its name.
        name: String = "sched_ext_ops.name";
        /// `SCX_OPS_*` flags.
        flags: u64 = "sched_ext_ops.flags";
        /// Tasks dispatched at most in one go.
        dispatch_max_batch: u64 = "sched_ext_ops.dispatch_max_batch";
        /// Watchdog timeout, ms.
        timeout_ms: u64 = "sched_ext_ops.timeout_ms";
        /// Size of the exit dump, bytes.
        exit_dump_len: u64 = "sched_ext_ops.exit_dump_len";
        /// Hotplug sequence that it was loaded for.
        hotplug_seq: u64 = "sched_ext_ops.hotplug_seq";
        /// Address of its `enqueue`, null when it has none.
        enqueue: VirtAddr = "sched_ext_ops.enqueue";
        /// Address of its `dispatch`.
        dispatch: VirtAddr = "sched_ext_ops.dispatch";
        /// Address of its `select_cpu`.
        select_cpu: VirtAddr = "sched_ext_ops.select_cpu";
    }
}

/// sched_ext's global state. Each field has its own outcome.
#[derive(Debug)]
pub struct SchedExt {
    /// Where the `sched_ext_ops` of the loaded scheduler are.
    pub ops: Result<VirtAddr, KernelError>,
    /// `SCX_*` enable state by name, without its prefix and in lower case, as /sys/kernel/sched_ext/state has it.
    pub state: Result<String, KernelError>,
    /// Whether all tasks of the fair class are switched.
    pub switch_all: Result<bool, KernelError>,
    /// Tasks refused by `disallow`.
    pub nr_rejected: Result<u64, KernelError>,
    /// CPU hotplug events.
    pub hotplug_seq: Result<u64, KernelError>,
    /// Schedulers loaded so far.
    pub enable_seq: Result<u64, KernelError>,
    /// Depth of bypass mode; 0 when the scheduler schedules.
    pub bypass_depth: Result<u64, KernelError>,
    /// Whether its operations are cut short since it is being aborted. Since 6.19.
    pub aborting: Result<bool, KernelError>,
    /// Last watchdog run, jiffies.
    pub watchdog_timestamp: Result<u64, KernelError>,
    /// Watchdog timeout, jiffies.
    pub watchdog_timeout: Result<u64, KernelError>,
    /// `SCX_EXIT_*` by name, without its prefix and in lower case: `none` while a scheduler runs, `done` before the first
    /// and after each end.
    pub exit_kind: Result<String, KernelError>,
    /// Where the `scx_exit_info` is; null when no scheduler is loaded.
    pub exit_info: Result<VirtAddr, KernelError>,
}

impl Kernel {
    /// sched_ext's global state.
    #[must_use]
    pub fn sched_ext(&self) -> SchedExt {
        let word = |names: &[&'static str], width| self.variable(names, width);
        SchedExt {
            ops: self.scx_ops(),
            state: self.scx_state(),
            switch_all: word(&["scx_switching_all"], 1).map(|word| word != 0),
            nr_rejected: word(&["scx_nr_rejected"], 8),
            hotplug_seq: word(&["scx_hotplug_seq"], 8),
            enable_seq: word(&["scx_enable_seq"], 8),
            bypass_depth: word(&["scx_ops_bypass_depth", "scx_bypass_depth"], 4)
                .or_else(|absent| self.scx_number("scx_sched.bypass_depth", absent)),
            aborting: word(&["scx_aborting"], 1)
                .or_else(|absent| self.scx_number("scx_sched.aborting", absent))
                .map(|word| word != 0),
            watchdog_timestamp: word(&["scx_watchdog_timestamp"], 8),
            watchdog_timeout: self.scx_watchdog_timeout(),
            exit_kind: word(&["scx_exit_kind"], 4)
                .or_else(|absent| self.scx_number("scx_sched.exit_kind.counter", absent))
                .map(|kind| self.scx_exit_kind_name(kind)),
            exit_info: self
                .scx_member("scx_exit_info", "scx_sched.exit_info")
                .and_then(|at| self.pointer("scx_exit_info", at)),
        }
    }

    /// The operations that the loaded scheduler has, by name, with the addresses of what is called for each: a BPF
    /// trampoline.
    ///
    /// # Errors
    /// [`KernelError`], [`ErrorKind::Absent`] without sched_ext.
    pub fn scx_operations(&self) -> Result<Vec<(String, VirtAddr)>, KernelError> {
        let ops = self.scx_ops()?;
        let plan = self.plan("sched_ext_ops")?;
        let (_, Type::Struct(whole)) = self.btf().resolve(plan.ty())? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for member in whole.members() {
            let member = member?;
            let (_, Type::Pointer(target)) = self.btf().resolve(member.ty)? else { continue };
            if let Type::Prototype { .. } = self.btf().resolve(target)?.1 {
                let at = ops.wrapping_add(u64::from(member.bit_offset / 8));
                let code = self.pointer("a scheduler's operations", at)?;
                if !code.is_null() {
                    found.push((member.name.to_owned(), code));
                }
            }
        }
        Ok(found)
    }

    /// A task's `scx.ops_state` by name, without its prefix and in lower case (`none`, `queueing`, `queued`,
    /// `dispatching`), and the sequence number above it (`SCX_OPSS_QSEQ_SHIFT` is 2).
    #[must_use]
    pub fn scx_ops_state(&self, word: u64) -> (String, u64) {
        let state = word & 3;
        let name = self.short_name("scx_ops_state", "SCX_OPSS_", state);
        (name.unwrap_or_else(|| state.to_string()), word >> 2)
    }

    /// What a task's `scx.flags` say of its way into sched_ext, without prefix and in lower case: `none`, `init`,
    /// `ready`, `enabled` (`SCX_TASK_STATE_SHIFT` is 8, two bits).
    #[must_use]
    pub fn scx_task_state(&self, flags: u64) -> String {
        let state = flags >> 8 & 3;
        self.short_name("scx_task_state", "SCX_TASK_", state).unwrap_or_else(|| state.to_string())
    }

    fn scx_ops(&self) -> Result<VirtAddr, KernelError> {
        self.scx_member("scx_ops", "scx_sched.ops")
    }

    /// The enum, its variable and its prefix lost their `ops` in 6.16.
    fn scx_state(&self) -> Result<String, KernelError> {
        let seen = self.variable(&["scx_ops_enable_state_var", "scx_enable_state_var"], 4)?;
        let found = ["scx_ops_enable_state", "scx_enable_state"]
            .into_iter()
            .find_map(|name| self.btf().enumerator(name, seen));
        let name = found.ok_or(KernelError::Implausible {
            what: "sched_ext's enable state",
            at: VirtAddr(0),
            seen,
            expected: "a value of enum scx_ops_enable_state",
        })?;
        Ok(name.trim_start_matches("SCX_").trim_start_matches("OPS_").to_lowercase())
    }

    /// A global of sched_ext: a variable of its own, or a member of the root scheduler.
    fn scx_member(&self, symbol: &str, member: &str) -> Result<VirtAddr, KernelError> {
        match self.symbol(symbol) {
            Ok(at) => Ok(at),
            Err(absent) => self.scx_root_member(member).map_err(|error| match error.kind() {
                ErrorKind::Absent => absent,
                _ => error,
            }),
        }
    }

    fn scx_root_member(&self, member: &str) -> Result<VirtAddr, KernelError> {
        let plan = self.plan(member)?;
        let root = self.pointer("scx_root", self.symbol("scx_root")?)?;
        if root.is_null() {
            let (path, at) = (member.to_owned(), self.symbol("scx_root")?);
            return Err(KernelError::Fault(ktstr_introspect_types::PlanFault::Null { path, at }));
        }
        Ok(plan.address(self.memory(), root)?)
    }

    /// A number in the root scheduler; `absent` when this kernel's has no such member either.
    fn scx_number(&self, member: &str, absent: KernelError) -> Result<u64, KernelError> {
        let plan = match self.plan(member) {
            Ok(plan) => plan,
            Err(error) if error.kind() == ErrorKind::Absent => return Err(absent),
            Err(other) => return Err(other),
        };
        let root = self.pointer("scx_root", self.symbol("scx_root")?)?;
        if root.is_null() {
            let (path, at) = (member.to_owned(), self.symbol("scx_root")?);
            return Err(KernelError::Fault(ktstr_introspect_types::PlanFault::Null { path, at }));
        }
        Ok(plan.read(self.memory(), root)?)
    }

    /// The value of the first of these variables that the kernel has, `width` bytes of it.
    pub(crate) fn variable(&self, names: &[&'static str], width: usize) -> Result<u64, KernelError> {
        let mut missing = String::new();
        for name in names {
            let Ok(at) = self.symbol(name) else {
                missing = (*name).to_owned();
                continue;
            };
            let mut bytes = [0; 8];
            self.memory().read(at, &mut bytes[..width.min(8)]).map_err(KernelError::read(name))?;
            return Ok(u64::from_le_bytes(bytes));
        }
        Err(KernelError::NoSymbol { name: missing })
    }
}
