//! An attribute given twice.

use ktstr::prelude::*;

#[ktstr_test(llcs = 2, cores = 2, llcs = 4)]
fn t(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

fn main() {}
