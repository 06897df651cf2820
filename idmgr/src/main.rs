//! The idmgr program.

fn main() {}
