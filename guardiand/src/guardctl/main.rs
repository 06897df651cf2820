//! The guardctl program: the Garden API from a shell.

fn main() {}
