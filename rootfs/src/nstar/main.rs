//! The nstar program; see the library for its contract.

use clap::Parser;
use guardian_contract::run::{FaultStyle, run_styled};

fn main() -> std::process::ExitCode {
    run_styled("nstar", FaultStyle::Text, rootfs::nstar::Cli::try_parse, rootfs::nstar::run)
}
