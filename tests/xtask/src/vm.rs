//! `cargo xtask vm`: the tests on another kernel, Debian's, in a virtual machine that is thrown away.
//!
//! virtme-ng boots it on the host's own file tree, read-only, so that what runs there is what was
//! built here. The machine is emulated, and slow, unless KVM is asked for.

mod boot;
mod guest;
mod kernel;
mod plan;
mod report;
mod suite;

use std::path::PathBuf;

use anyhow::bail;
use guardian_tests::{host, probe};

pub(crate) use guest::{Args as GuestArgs, guest};

use crate::{build, interrupt, say};
use boot::Machine;
use plan::{Outcome, Test};

/// How long continuous integration's part may take, in minutes.
const PART_MINUTES: u64 = 12;

/// What to run in the virtual machine.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run the tests whose names contain one of these, such as garden::life (default: all)
    filters: Vec<String>,
    /// Run the part that continuous integration runs: tests/xtask/src/vm/part.txt
    #[arg(long, conflicts_with = "filters")]
    part: bool,
    /// Name the tests, and run none
    #[arg(long)]
    list: bool,
    /// Boot this kernel instead of Debian's; its modules must be where virtme-ng finds them
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Use the host's KVM, for speed; some hosts have one that does not work
    #[arg(long)]
    kvm: bool,
    /// Give the machine so many processors, and run as many tests at once
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Begin no further test after so many minutes
    #[arg(long, value_name = "MINUTES", default_value_t = 240)]
    minutes: u64,
}

/// Runs tests on the second kernel.
///
/// # Errors
/// When something is missing, or a test fails.
pub(crate) fn vm(args: &Args) -> anyhow::Result<()> {
    let tests = suite::all()?;
    let (wanted, left_out) = match args.part {
        true => suite::part(tests)?,
        false => suite::matching(tests, &args.filters)?,
    };
    if args.list {
        wanted.iter().for_each(|test| say(&test.name));
        return Ok(());
    }
    if !host::is_root() {
        bail!("containers are made by root, there, too; try: sudo cargo xtask vm");
    }
    let tools = kernel::prepare(args.kernel.as_deref())?;
    if std::env::var_os("GUARDIAN_BIN_DIR").is_none() {
        build::release()?;
    }
    // There is no compiler in the machine.
    probe::make()?;
    let machine = Machine { tools, has_kvm: args.kvm, jobs: args.jobs, minutes: args.minutes };
    let outcomes = run(&machine, &wanted, &left_out)?;
    report::skipped(&outcomes).iter().for_each(|line| say(line));
    report::verdict(&wanted, &outcomes)
}

/// Runs continuous integration's part, on what has been built already, and returns the checks that
/// it skipped; where there can be no second kernel, that is all of them.
///
/// # Errors
/// When a test fails.
pub(crate) fn part() -> anyhow::Result<Vec<String>> {
    let prepared = match host::is_root() {
        true => kernel::prepare(None).map_err(|error| format!("{error:#}")),
        false => Err("needs root".to_owned()),
    };
    let tools = match prepared {
        Ok(tools) => tools,
        Err(reason) => return Ok(vec![format!("skipped: all of the second kernel: {reason}")]),
    };
    let (wanted, left_out) = suite::part(suite::all()?)?;
    probe::make()?;
    let machine = Machine { tools, has_kvm: false, jobs: 2, minutes: PART_MINUTES };
    let outcomes = run(&machine, &wanted, &left_out)?;
    report::verdict(&wanted, &outcomes)?;
    Ok(report::skipped(&outcomes))
}

fn run(machine: &Machine, wanted: &[Test], left_out: &[Test]) -> anyhow::Result<Vec<Outcome>> {
    report::left_out(left_out);
    say(&format!("booting {} for {} tests", machine.tools.kernel.display(), wanted.len()));
    interrupt::catch()?;
    machine.run(wanted)
}
