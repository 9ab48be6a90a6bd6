//! The tests of this binary, and calling one: what the guest's side and the host's share.

use ktstr_assert::AssertResult;
use ktstr_run::{TestReturn, TestSpec};
use ktstr_scenario::Ctx;
use ktstr_scenario::ports::{SchedulerError, SchedulerOps};
use ktstr_scheduler::Scheduler;
use linkme::distributed_slice;
use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A registered test: its declaration and its function.
pub struct KtstrTestEntry {
    /// What the attribute said.
    pub spec: TestSpec,
    /// What runs in the guest.
    pub func: fn(&Ctx<'_>) -> anyhow::Result<AssertResult>,
}

/// All tests of this binary.
#[distributed_slice]
pub static KTSTR_TESTS: [KtstrTestEntry];

/// All schedulers that this binary declares.
#[distributed_slice]
pub static KTSTR_SCHEDULERS: [Scheduler];

impl KtstrTestEntry {
    /// Calls the function; a panic is one of its ways to end.
    pub(crate) fn call(&self, ctx: &Ctx<'_>) -> TestReturn {
        match catch_unwind(AssertUnwindSafe(|| (self.func)(ctx))) {
            Ok(Ok(result)) => TestReturn::Judged(result),
            Ok(Err(e)) => TestReturn::Error(format!("{e:#}")),
            Err(payload) => TestReturn::Panicked(panic_text(payload.as_ref())),
        }
    }
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_string())
}

/// The kernel's own scheduler: it can't die without the machine.
pub(crate) struct KernelsOwn;

impl SchedulerOps for KernelsOwn {
    fn failure(&self) -> Option<String> {
        None
    }

    fn counters(&self) -> BTreeMap<String, u64> {
        BTreeMap::new()
    }

    fn staged(&self) -> Vec<String> {
        Vec::new()
    }

    fn attached(&self) -> Option<String> {
        None
    }

    fn attach(&self, name: &str) -> Result<(), SchedulerError> {
        Err(unchangeable("attaching", name))
    }

    fn detach(&self) -> Result<(), SchedulerError> {
        Err(unchangeable("detaching", "eevdf"))
    }

    fn prompt(&self) -> Option<String> {
        None
    }

    fn pin_map(&self, _: &str, _: &str) -> Result<(), SchedulerError> {
        Err(unchangeable("pinning a map of", "eevdf"))
    }
}

fn unchangeable(doing: &'static str, name: &str) -> SchedulerError {
    let why = "the test runs under the kernel's own; declare it with `scheduler = …`".to_string();
    SchedulerError { doing, name: name.to_string(), why }
}
