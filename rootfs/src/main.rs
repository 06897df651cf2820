//! The rootfs program; see the library for its contract.

use clap::Parser;
use guardian_contract::run::{FaultStyle, run_styled};

fn main() -> std::process::ExitCode {
    run_styled("rootfs", FaultStyle::Text, rootfs::cli::Cli::parse, rootfs::cli::run)
}
