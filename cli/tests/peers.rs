//! Schedulers that others wrote, from crates.io, in the canned scenarios on four machines, and
//! the kernel's own in the same for comparison.
//!
//! All are ignored: `cargo xtask peers` builds the schedulers, says where they are
//! (`KTSTR_SCHEDULER_BIN_SCX_…`), runs these tests and the verifier sweep, and keeps the
//! results in docs/peers.md. No test has a limit of its own: each is held to what EEVDF is.

use ktstr::prelude::*;
use ktstr::test_support::{KTSTR_TESTS, KtstrTestEntry, TestSpec};
use std::time::Duration;

/// Tests `<scheduler>/<scenario>/<machine>`, registered as `#[ktstr_test]` would: it takes
/// one function a test, and these are a product of three lists.
macro_rules! played {
    ($scheduler:expr, $name:literal: $($scenario:ident)*) => {$(
        played!(@on $scheduler, $name, $scenario, "1n1l2c1t", (1, 1, 2, 1));
        played!(@on $scheduler, $name, $scenario, "1n2l2c1t", (1, 2, 2, 1));
        played!(@on $scheduler, $name, $scenario, "1n2l2c2t", (1, 2, 2, 2));
        played!(@on $scheduler, $name, $scenario, "2n4l2c1t", (2, 4, 2, 1));
    )*};
    (@on $scheduler:expr, $name:literal, $scenario:ident, $machine:literal, ($n:literal, $l:literal, $c:literal, $t:literal)) => {
        const _: () = {
            #[ktstr::distributed_slice(KTSTR_TESTS)]
            #[linkme(crate = ktstr::linkme)]
            static ENTRY: KtstrTestEntry = KtstrTestEntry {
                spec: {
                    let name = concat!($name, "/", stringify!($scenario), "/", $machine);
                    let mut spec = TestSpec::new(name, module_path!(), Topology::uniform($n, $l, $c, $t));
                    spec.scheduler = &$scheduler;
                    spec.duration = Duration::from_secs(1);
                    spec.auto_repro = false;
                    spec.ignored = true;
                    spec
                },
                func: scenarios::$scenario,
            };
        };
    };
}

/// All scenarios that ktstr brings.
macro_rules! canned {
    ($scheduler:expr, $name:literal) => {
        played!($scheduler, $name:
            steady steady_llc oversubscribed cpuset_apply cpuset_clear cpuset_resize cgroup_add cgroup_remove
            affinity_change affinity_pinned host_contention mixed_workloads nested_steady nested_task_move);
    };
}

declare_scheduler!(BPFLAND, { name = "scx_bpfland", binary = "scx_bpfland", ops = "bpfland", verifier = false });
declare_scheduler!(RUSTY, { name = "scx_rusty", binary = "scx_rusty", ops = "rusty", verifier = false });
declare_scheduler!(FLASH, { name = "scx_flash", binary = "scx_flash", ops = "flash", verifier = false });
declare_scheduler!(P2DQ, { name = "scx_p2dq", binary = "scx_p2dq", ops = "p2dq", verifier = false });
declare_scheduler!(COSMOS, { name = "scx_cosmos", binary = "scx_cosmos", ops = "cosmos", verifier = false });
declare_scheduler!(LAVD, { name = "scx_lavd", binary = "scx_lavd", ops = "lavd", verifier = false });
declare_scheduler!(RUSTLAND, { name = "scx_rustland", binary = "scx_rustland", ops = "rustland", verifier = false });

canned!(Scheduler::EEVDF, "eevdf");
canned!(BPFLAND, "scx_bpfland");
canned!(RUSTY, "scx_rusty");
canned!(FLASH, "scx_flash");
canned!(P2DQ, "scx_p2dq");
canned!(COSMOS, "scx_cosmos");
canned!(LAVD, "scx_lavd");
canned!(RUSTLAND, "scx_rustland");
