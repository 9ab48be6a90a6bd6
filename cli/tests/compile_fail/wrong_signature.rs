//! A function without a context.

use ktstr::prelude::*;

#[ktstr_test]
fn t() -> Result<AssertResult> {
    Ok(AssertResult::pass())
}

fn main() {}
