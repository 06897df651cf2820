//! The rootfs program.

fn main() {}
