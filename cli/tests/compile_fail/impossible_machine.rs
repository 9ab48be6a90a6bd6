//! LLCs that can not be split over the nodes.

use ktstr::prelude::*;

#[ktstr_test(numa_nodes = 2, llcs = 3)]
fn t(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

fn main() {}
