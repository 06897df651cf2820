//! Commands for people.

fn main() {}
