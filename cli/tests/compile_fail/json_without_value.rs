//! A key without a value.

use ktstr::prelude::*;

const CONFIG: &str = json!({"a": });

fn main() {}
