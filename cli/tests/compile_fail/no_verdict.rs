//! A function that returns something else than a verdict.

use ktstr::prelude::*;

#[ktstr_test]
fn t(_ctx: &Ctx) -> Result<u32> {
    Ok(3)
}

fn main() {}
