//! The dadoo program.

fn main() {}
