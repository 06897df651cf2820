//! The verbs, one file each, and the choice among them.

mod check;
mod down;
mod limit;
mod net_in;
mod net_out;
mod reapply;
mod show;
mod stats;
mod up;

use anyhow::Context;
use guardian_contract::depot::Handle;
use guardian_contract::fault::Fault;
use guardian_contract::log;
use guardian_contract::run::Answer;
use serde_json::json;

use crate::cli::{Action, Cli, Command, Settings};
use crate::host;
use crate::lease::{Lease, Stage};
use crate::name::Names;
use crate::port::PortRange;
use crate::state::State;

/// What every verb needs.
#[derive(Debug)]
struct Network {
    settings: Settings,
    names: Names,
}

impl Network {
    /// Locks and reads the state.
    fn state(&self) -> anyhow::Result<State> {
        State::open(&self.settings.state_dir)
    }

    /// Returns the range of the pool of host ports.
    fn port_range(&self) -> PortRange {
        PortRange { start: self.settings.port_pool_start, size: self.settings.port_pool_size }
    }

    /// Returns the lease of a container that is up.
    fn lease(&self, state: &State, handle: &Handle) -> anyhow::Result<Lease> {
        let lease = state.leases.load(handle)?.filter(|lease| lease.stage == Stage::Up);
        lease.ok_or_else(|| Fault::not_found(format!("cannot find container [{handle}]")).into())
    }
}

/// Does what the command line says.
pub(crate) fn run(cli: Cli) -> anyhow::Result<Answer> {
    log::set_level(cli.settings.log_level);
    let network = Network { names: Names::new(&cli.settings.tag), settings: cli.settings };
    match (cli.command, cli.action, &cli.handle) {
        (Some(Command::List { json }), ..) => show::list(&network, json),
        (Some(Command::Show { handle, json }), ..) => show::one(&network, &handle, json),
        (Some(Command::Up { handle, wishes, form }), ..) => {
            up::by_hand(&network, &handle, wishes.into(), form)
        }
        (Some(Command::Limit { handle, ceiling, form }), ..) => {
            limit::by_hand(&network, &handle, &ceiling.into(), form)
        }
        (Some(Command::Down { handle, form }), ..) => down::by_hand(&network, &handle, form),
        (Some(Command::Stats { handle, json }), ..) => stats::run(&network, &handle, json),
        (Some(Command::Check { json }), ..) => check::run(&network, json),
        (Some(Command::Reapply { form }), ..) => reapply::run(&network, form),
        (Some(Command::Reap { handle }), ..) => down::reap(&network, &handle),
        (None, Some(Action::Setup), _) => setup(&network),
        (None, Some(action), Some(handle)) => match action {
            Action::Up => up::run(&network, handle),
            Action::Down => down::run(&network, handle),
            Action::NetIn => net_in::run(&network, handle),
            Action::NetOut => net_out::one(&network, handle),
            Action::BulkNetOut => net_out::bulk(&network, handle),
            Action::Limit => limit::run(&network, handle),
            Action::Metrics => stats::run(&network, handle, true),
            Action::Setup => setup(&network),
        },
        // clap lets no other combination through.
        (None, _, _) => Err(Fault::invalid("say --action and --handle").into()),
    }
}

/// Prepares the host; guardiand calls this once when it starts.
fn setup(network: &Network) -> anyhow::Result<Answer> {
    let mut state = network.state()?;
    let host =
        host::set_up(&network.settings, &network.names, &state).context("set up the host")?;
    // What a former container left behind must not keep a server from starting.
    if let Err(error) = down::finish_all(network, &mut state) {
        log::error("finish-down", &json!({"error": format!("{error:#}")}));
    }
    Ok(Answer::Json(json!({
        "external_ip": host.external_ip,
        "capacity": network.settings.policy.network_pool.size() / 4,
        "mtu": host.mtu,
    })))
}
