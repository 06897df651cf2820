//! The dadoo program: keeps one process of a container, and lets a person at a shell attach to
//! it, wait for it, signal it and resize its terminal.

mod attach;
mod cli;
mod console;
mod control;
mod detach;
mod fifo;
mod flow;
mod handover;
mod inherited;
mod keep;
mod relay;
mod runtime;
mod score;
mod spawn;
mod status;
mod terminal;
mod tree;
// Of dadoo-hold, which has no test harness.
#[cfg(test)]
#[path = "hold/window.rs"]
mod window;

use std::process::ExitCode;

use guardian_contract::run::{FaultStyle, run_styled};

fn main() -> ExitCode {
    run_styled("dadoo", FaultStyle::Code(cli::OWN_FAILURE), cli::parse, cli::dispatch)
}
