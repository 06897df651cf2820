//! Inside the virtual machine: makes it one on which our tests can run, and runs them.

mod runner;
mod world;

use std::path::PathBuf;

use guardian_tests::host;

use super::plan;
use crate::{build, say};

/// What the host tells its guest.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The directory that both see.
    shared: PathBuf,
}

/// Runs the plan's tests.
///
/// # Errors
/// When the machine can't be made ready; a test that fails is no error here.
pub(crate) fn guest(args: &Args) -> anyhow::Result<()> {
    let plan = plan::read(&args.shared)?;
    let kernel = host::run(&["uname", "-r"])?;
    let bin_dir = world::prepare(&plan.bin_dir)?;
    say(&format!("the machine is up, its kernel is {}", kernel.trim()));
    // Tests that start a runtime by hand need what the server sets up for itself.
    build::run(std::process::Command::new(bin_dir.join("guardiand")).arg("setup"))?;
    runner::run(&plan, &bin_dir, &args.shared)
}
