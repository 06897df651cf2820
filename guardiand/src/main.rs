//! The guardiand program: a thin coordinator that speaks the Garden API and execs the programs
//! that do the work.

mod apparmor;
mod cgroup;
mod claim;
mod cli;
mod connection;
mod container;
mod control;
mod debug;
mod event;
mod files;
mod guardian;
mod health;
mod host;
mod http;
mod invoke;
mod oom;
mod plugin;
mod process;
mod pull;
mod route;
mod router;
mod server;
mod settings;
mod takeover;
mod telemetry;
mod throttle;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use guardian_contract::log;
use guardian_contract::run::{Answer, FaultStyle, run_styled};

fn main() -> ExitCode {
    // gdn's log is on stdout, and so is ours.
    log::to_stdout();
    run_styled("guardian", FaultStyle::Text, cli::Cli::parse, |cli| {
        let flags = match cli.command {
            cli::Command::Server(flags) => flags,
            cli::Command::Setup(flags) => {
                log::set_level(flags.log_level);
                cgroup::hierarchies::mount_missing()?;
                if flags.enable_cpu_throttling {
                    throttle::set_up(&flags.tag)?;
                }
                return Ok(Answer::Silent);
            }
        };
        log::set_level(flags.log_level);
        // Two workers: the work is in the programs; more threads only cost memory.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("start the runtime")?;
        runtime.block_on(server::serve(*flags))?;
        Ok(Answer::Silent)
    })
}
