//! The guardiand program.

fn main() {}
