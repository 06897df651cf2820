//! The guardctl program: the Garden API from a shell.

mod cli;
mod client;
mod http;
mod process;
mod signals;
mod stdio;
mod target;
mod terminal;
mod verb;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    verb::main(cli::Cli::parse())
}
