//! A part of the host for a test that wants all the speed there is.

use ktstr::prelude::*;

#[ktstr_test(performance_mode, cpu_budget = 2)]
fn t(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

fn main() {}
