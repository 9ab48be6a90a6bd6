//! Why a scheduler ended: `struct scx_exit_info` (kernel/sched/ext_internal.h, before 6.18 in ext.c).

use ktstr_introspect_memory::VirtAddr;

use crate::record::record;
use crate::{Kernel, KernelError};

/// Longest reason or message: `SCX_EXIT_MSG_LEN` is 1024.
const TEXT_LIMIT: usize = 4096;
/// Longest dump; `SCX_EXIT_DUMP_DFL_LEN` is 32 KiB, and a scheduler may ask for more.
const DUMP_LIMIT: usize = 4 << 20;
/// `SCX_EXIT_BT_LEN`.
const MAX_TRACE: u64 = 64;

record! {
    /// Why a scheduler ended: `struct scx_exit_info`.
    ExitInfo, ExitInfoPlans, exit_info {
        /// `SCX_EXIT_*`.
        kind: i64 = "scx_exit_info.kind";
        /// The scheduler's own code.
        exit_code: i64 = "scx_exit_info.exit_code";
        /// Address of the reason's text.
        reason: VirtAddr = "scx_exit_info.reason";
        /// Address of the message.
        msg: VirtAddr = "scx_exit_info.msg";
        /// Address of the dump.
        dump: VirtAddr = "scx_exit_info.dump";
        /// Entries in the back-trace.
        bt_len: u64 = "scx_exit_info.bt_len";
    }
}

/// An `scx_exit_info` with its texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitReport {
    /// `SCX_EXIT_*` by name, without its prefix and in lower case: `none`, `unreg`, `error`, `error_bpf`,
    /// `error_stall`…
    pub kind: String,
    /// The scheduler's own code.
    pub exit_code: i64,
    /// The kernel's short reason.
    pub reason: String,
    /// The message of whoever ended it.
    pub message: String,
    /// The kernel's dump of its state, as far as it is written yet.
    pub dump: String,
    /// Return addresses of the place that ended it.
    pub trace: Vec<VirtAddr>,
}

impl Kernel {
    /// Why the scheduler ends, or ended: what the kernel's `scx_exit_info` says with all its texts. Nothing when there
    /// is none: the kernel frees it when an end is through, and what remains then is what the scheduler itself wrote
    /// down ([`Kernel::bpf_exit_records`]). While a scheduler is running, its kind is `none`.
    ///
    /// # Errors
    /// [`KernelError`], [`crate::ErrorKind::Absent`] without sched_ext.
    pub fn scx_exit_report(&self) -> Result<Option<ExitReport>, KernelError> {
        let at = match self.sched_ext().exit_info {
            Ok(at) if at.is_null() => return Ok(None),
            Err(error) if error.kind() == crate::ErrorKind::Null => return Ok(None),
            other => other?,
        };
        let info = ExitInfo::read(self, at);
        let text = |what, at: VirtAddr, limit| match at.is_null() {
            true => Ok(String::new()),
            false => self.memory().read_string(at, limit).map_err(KernelError::read(what)),
        };
        let (length, start) = (info.bt_len?, VirtAddr(self.read("scx_exit_info.bt", at)?));
        if length > MAX_TRACE {
            let (what, expected) = ("the length of an scx_exit_info's back-trace", "at most 64");
            return Err(KernelError::Implausible { what, at, seen: length, expected });
        }
        let entry = |index| self.pointer("an scx_exit_info's back-trace", start.wrapping_add(index * 8));
        Ok(Some(ExitReport {
            kind: self.scx_exit_kind_name(info.kind? as u64),
            exit_code: info.exit_code?,
            reason: text("an scx_exit_info's reason", info.reason?, TEXT_LIMIT)?,
            message: text("an scx_exit_info's message", info.msg?, TEXT_LIMIT)?,
            dump: text("an scx_exit_info's dump", info.dump?, DUMP_LIMIT)?,
            trace: (0..length).map(entry).collect::<Result<_, _>>()?,
        }))
    }

    /// An `SCX_EXIT_*` by name, or its number where this kernel has no such name.
    #[must_use]
    pub fn scx_exit_kind_name(&self, kind: u64) -> String {
        self.short_name("scx_exit_kind", "SCX_EXIT_", kind).unwrap_or_else(|| kind.to_string())
    }
}
