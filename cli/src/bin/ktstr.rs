//! `ktstr`: what needs no cargo.

fn main() {}
