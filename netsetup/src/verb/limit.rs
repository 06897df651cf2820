//! `limit`: another bandwidth for a container that is up, or none.

use guardian_contract::depot::Handle;
use guardian_contract::fault::Fault;
use guardian_contract::log;
use guardian_contract::network::{LimitRequest, UpAnswer};
use guardian_contract::run::{Answer, check_caller, request};
use serde_json::json;

use super::{Network, show, up};
use crate::bandwidth::Bandwidth;
use crate::cli::Form;
use crate::connection;
use crate::lease::Lease;
use crate::netns::Netns;
use crate::nft;
use crate::ruleset::Script;
use crate::state::State;

/// Changes the bandwidth as the request on stdin says, and answers as `up` does.
pub(super) fn run(network: &Network, handle: &Handle) -> anyhow::Result<Answer> {
    let lease = change(network, handle, &request()?)?;
    Answer::json(&UpAnswer { properties: lease.properties(), ..UpAnswer::default() })
}

/// Changes the bandwidth, or says what nft would be told, and shows what the container then has.
pub(super) fn by_hand(
    network: &Network,
    handle: &Handle,
    request: &LimitRequest,
    form: Form,
) -> anyhow::Result<Answer> {
    if !form.dry_run {
        return show::lease(&change(network, handle, request)?, form.json);
    }
    let before = network.lease(&network.state()?, handle)?;
    let lease = Lease { bandwidth: Bandwidth::asked(&request.bandwidth), ..before.clone() };
    Ok(Answer::Text(script(network, &before, &lease).for_person()))
}

/// It is written down first: whoever is killed in between leaves a lease that says something else
/// than the kernel has, which `check` tells and the same call again puts right.
fn change(network: &Network, handle: &Handle, request: &LimitRequest) -> anyhow::Result<Lease> {
    let netns = up::namespace(request.pid, &request.namespace)?;
    let state = network.state()?;
    check_caller()?;
    let before = network.lease(&state, handle)?;
    if netns.inode() != before.netns {
        let text = format!("this is not the network namespace that container {handle} is in");
        return Err(Fault::invalid(text).into());
    }
    let lease = Lease { bandwidth: Bandwidth::asked(&request.bandwidth), ..before.clone() };
    state.leases.save(&lease)?;
    if let Err(error) = hold(network, &state, &before, &lease, &netns) {
        state.leases.save(&before)?;
        return Err(match hold(network, &state, &lease, &before, &netns) {
            Ok(()) => error,
            Err(second) => error.context(format!("undoing it failed too: {second:#}")),
        });
    }
    log::info("limit", &json!({"handle": handle, "bandwidth": lease.bandwidth}));
    Ok(lease)
}

fn hold(
    network: &Network,
    state: &State,
    before: &Lease,
    lease: &Lease,
    netns: &Netns,
) -> anyhow::Result<()> {
    connection::limit(lease, netns)?;
    nft::run(script(network, before, lease).text(), state.lock())
}

fn script(network: &Network, before: &Lease, lease: &Lease) -> Script {
    let mut script = Script::new(&network.names);
    script.change_upload(before, lease.bandwidth);
    script
}
