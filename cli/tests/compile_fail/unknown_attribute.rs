//! An attribute that does not exist.

use ktstr::prelude::*;

#[ktstr_test(llc = 2)]
fn t(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

fn main() {}
