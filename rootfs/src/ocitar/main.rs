//! The ocitar program; see the library for its contract.

use clap::Parser;
use guardian_contract::run::{FaultStyle, run_styled};

fn main() -> std::process::ExitCode {
    run_styled("ocitar", FaultStyle::Text, rootfs::ocitar::Cli::parse, rootfs::ocitar::run)
}
