//! The netsetup program.

fn main() {}
