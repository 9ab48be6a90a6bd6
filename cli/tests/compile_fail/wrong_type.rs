//! A value of the wrong type.

use ktstr::prelude::*;

#[ktstr_test(max_spread_pct = "much")]
fn t(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

fn main() {}
