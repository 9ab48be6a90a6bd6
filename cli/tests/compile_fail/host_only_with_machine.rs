//! A machine for a test that runs on the host.

use ktstr::prelude::*;

#[ktstr_test(host_only, llcs = 2)]
fn t(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

fn main() {}
