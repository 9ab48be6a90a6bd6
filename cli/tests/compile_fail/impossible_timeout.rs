//! Timeouts that the kernel's watchdog can not have.

use ktstr::prelude::*;

declare_scheduler!(HASTY, { name = "hasty", binary = "hasty", watchdog_timeout_s = 0 });

#[ktstr_test(scheduler = HASTY, watchdog_timeout_s = 31)]
fn t(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

fn main() {}
