//! The commands a person types in this repository: `cargo xtask demo`, `test`, `vm`, `bench`, `soak`.

mod bench;
mod build;
mod demo;
mod enclosure;
mod interrupt;
mod need;
mod soak;
mod test;
mod vm;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Try, test and measure guardian
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    /// What to do.
    #[command(subcommand)]
    verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Verb {
    /// Build, start a private guardiand, show a container, remove everything again
    Demo,
    /// Check format and lints, and run all tests
    Test,
    /// Run tests on another kernel, in a virtual machine
    Vm(vm::Args),
    /// What the virtual machine runs
    #[command(hide = true)]
    Guest(vm::GuestArgs),
    /// Measure create, run, destroy and memory beside the bare runtime
    Bench(bench::Args),
    /// Run thousands of processes, and one that prints for minutes; look for loss, leaks and growth
    Soak(soak::Args),
}

fn main() -> ExitCode {
    match run(Cli::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr().lock(), "xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> anyhow::Result<()> {
    if guardian_tests::host::is_root() && !matches!(verb, Verb::Guest(_)) {
        enclosure::enter()?;
    }
    match verb {
        Verb::Demo => demo::demo(),
        Verb::Test => test::test(),
        Verb::Vm(args) => vm::vm(&args),
        Verb::Guest(args) => vm::guest(&args),
        Verb::Bench(args) => bench::bench(&args),
        Verb::Soak(args) => soak::soak(&args),
    }
}

/// Tells the person at the terminal what is being done.
fn say(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}
