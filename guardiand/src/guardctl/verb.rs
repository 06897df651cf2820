//! The verbs, and what their failures become: one line on standard error and an exit code.

mod container;
mod copy;
mod events;
mod network;
mod process;
mod property;
mod ps;
mod pull;
mod stats;
mod top;
mod unit;
mod update;

use std::process::ExitCode;

use guardian_contract::garden::{ApiError, EXECUTABLE_NOT_FOUND};

use crate::cli::{Cli, Verb};
use crate::client::Client;
use crate::stdio::{self, ReaderGone};

/// Exit code of run, exec and attach when not the process but guardctl or the server failed.
const OUR_FAILURE: u8 = 125;

/// Exit code of run and exec when the program is not in the container.
const NOT_FOUND: u8 = 127;

/// Does what was typed.
pub(crate) fn main(cli: Cli) -> ExitCode {
    let runs_a_process = matches!(cli.verb, Verb::Run(_) | Verb::Exec(_) | Verb::Attach(_));
    match dispatch(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) if error.is::<ReaderGone>() => ExitCode::SUCCESS,
        Err(error) => {
            stdio::complain(&format!("{error:#}"));
            ExitCode::from(failure_code(&error, runs_a_process))
        }
    }
}

fn dispatch(cli: Cli) -> anyhow::Result<u8> {
    let client = Client::new(cli.target()?);
    let done = match cli.verb {
        Verb::Run(args) => return process::run(&client, args),
        Verb::Exec(args) => return process::exec(&client, &args),
        Verb::Attach(args) => return process::attach(&client, &args),
        Verb::Create(args) => container::create(&client, &args, cli.json),
        Verb::Ps(args) => ps::ps(&client, &args, cli.json),
        Verb::Inspect(args) => stdio::json(&client.info(&args.handle)?),
        Verb::Stop(args) => client.stop(&args.handle, args.kill),
        Verb::Rm(args) => container::rm(&client, &args),
        Verb::Update(args) => update::update(&client, &args, cli.json),
        Verb::Properties(args) => property::properties(&client, &args, cli.json),
        Verb::CpIn(args) => copy::cp_in(&client, &args),
        Verb::CpOut(args) => copy::cp_out(&client, &args),
        Verb::NetIn(args) => network::net_in(&client, &args, cli.json),
        Verb::NetOut(args) => client.net_out(&args.handle, &args.rule()),
        Verb::Metrics(args) => container::metrics(&client, &args.handle, cli.json),
        Verb::Events(args) => events::events(&client, &args),
        Verb::Stats(args) => stats::stats(&client, &args, cli.json),
        Verb::Top(args) => top::top(&client, &args.handle, cli.json),
        Verb::Pull(args) => pull::pull(&client, &args, cli.json),
        Verb::Capacity => container::capacity(&client, cli.json),
        Verb::Ping => client.ping(),
    };
    done.map(|()| 0)
}

fn failure_code(error: &anyhow::Error, runs_a_process: bool) -> u8 {
    let kind = error.downcast_ref::<ApiError>().map(|error| error.kind.as_str());
    match (runs_a_process, kind) {
        (true, Some(EXECUTABLE_NOT_FOUND)) => NOT_FOUND,
        (true, _) => OUR_FAILURE,
        (false, _) => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_codes_of_their_own() {
        let missing = || anyhow::Error::from(ApiError::typed(EXECUTABLE_NOT_FOUND, "no"));
        assert_eq!(failure_code(&missing(), true), NOT_FOUND);
        assert_eq!(failure_code(&missing().context("run"), true), NOT_FOUND);
        assert_eq!(failure_code(&ApiError::container_not_found("h").into(), true), OUR_FAILURE);
        assert_eq!(failure_code(&ApiError::container_not_found("h").into(), false), 1);
    }
}
