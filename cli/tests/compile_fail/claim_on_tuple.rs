//! Claims on a struct without named fields.

use ktstr::prelude::*;

#[derive(Claim)]
struct Stats(u64);

fn main() {}
