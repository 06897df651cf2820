//! The depot program.

fn main() {}
