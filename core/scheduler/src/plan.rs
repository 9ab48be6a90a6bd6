//! What the guest is told to start.

use crate::WatchdogOrder;
use serde::{Deserialize, Serialize};

/// How a scheduler is switched on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    /// A program that runs as long as the scheduler does.
    Binary {
        /// Its path in the guest.
        path: String,
        /// Its arguments.
        args: Vec<String>,
    },
    /// Shell commands.
    Commands {
        /// That switch it on.
        enable: Vec<String>,
        /// That switch it off.
        disable: Vec<String>,
    },
}

/// A scheduler as the guest knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedulerPlan {
    /// Its declared name.
    pub name: String,
    /// How it is switched on.
    pub program: Program,
    /// How the kernel's name of it must begin.
    pub ops: Option<String>,
    /// Kernel settings, by their dotted names.
    pub sysctls: Vec<(String, String)>,
    /// How long it may take to attach, ms of guest time.
    pub attach_within_ms: u64,
    /// How long the kernel is to let a task wait.
    pub watchdog: WatchdogOrder,
}
