//! `up`: check everything, write the lease, build, and undo it all if a part of it fails.

use guardian_contract::depot::Handle;
use guardian_contract::fault::Fault;
use guardian_contract::log;
use guardian_contract::network::{Up, UpAnswer};
use guardian_contract::run::{Answer, request};
use serde_json::json;

use super::{Network, down, net_in};
use crate::address::Request;
use crate::connection;
use crate::host::{self, Host};
use crate::lease::{Lease, Stage};
use crate::link;
use crate::name::CONTAINER_INTERFACE;
use crate::net_out_rule::{Translated, translate};
use crate::netns::Netns;
use crate::nft;
use crate::resolver;
use crate::ruleset::Script;
use crate::state::{Claim, State};

/// Connects the container named by the request on stdin.
pub(super) fn run(network: &Network, handle: &Handle) -> anyhow::Result<Answer> {
    let request: Up = request()?;
    let wish = Request::parse(&request.network)?;
    let rules = translate(&request.netout_rules)?;
    let netns = Netns::of_container(request.pid)?;
    let mut state = network.state()?;
    let host = host::ready(&network.settings, &network.names, &state)?;
    if let Some(lease) = standing(network, &mut state, handle, &netns)? {
        return answer(&lease);
    }
    let mut lease = down::or_after_finishing(network, &mut state, |state| {
        let mut lease = take(network, state, handle, wish, &host)?;
        let ports = state.ports(network.port_range())?;
        for mapping in &request.netin {
            let wanted = (mapping.host_port, mapping.container_port);
            lease.mappings.push(net_in::take(ports, host.external_ip, wanted)?);
        }
        Ok(lease)
    })?;
    lease.netns = netns.inode();
    lease.outbound = request.netout_rules;
    state.claim(Claim::whole(&lease), &lease)?;
    if let Err(error) = build(network, &mut state, &mut lease, &netns, &rules) {
        return Err(match down::remove(network, &mut state, &lease) {
            Ok(()) => error,
            Err(second) => error.context(format!("undoing it failed too: {second:#}")),
        });
    }
    log::info("up", &json!({"handle": handle, "address": lease.place.address}));
    answer(&lease)
}

/// Returns the handle's lease if it is good for this namespace. Any other one is what a killed
/// `up` or a former container of this name has left, and is undone.
fn standing(
    network: &Network,
    state: &mut State,
    handle: &Handle,
    netns: &Netns,
) -> anyhow::Result<Option<Lease>> {
    match state.leases.load_short(handle)? {
        None => Ok(None),
        Some(other) if other.handle != *handle => Err(Fault::exists(format!(
            "handles '{handle}' and '{}' have the same short name",
            other.handle
        )))?,
        Some(lease)
            if lease.stage == Stage::Up
                && lease.netns == netns.inode()
                && link::index(&lease.host_interface).is_some() =>
        {
            Ok(Some(lease))
        }
        Some(lease) => {
            down::remove(network, state, &lease)?;
            Ok(None)
        }
    }
}

/// Takes a place from the pool, in memory only.
fn take(
    network: &Network,
    state: &mut State,
    handle: &Handle,
    wish: Request,
    host: &Host,
) -> anyhow::Result<Lease> {
    let place = state.pool.addresses.take(wish, network.settings.policy.network_pool)?;
    let is_shared = wish != Request::Dynamic && !place.subnet.is_for_one();
    Ok(Lease {
        handle: handle.clone(),
        stage: Stage::Building,
        netns: 0,
        place,
        external_ip: host.external_ip,
        mtu: host.mtu,
        host_interface: network.names.host_interface(handle),
        container_interface: CONTAINER_INTERFACE.to_owned(),
        bridge: is_shared.then(|| network.names.bridge(place.subnet)),
        mappings: Vec::new(),
        outbound: Vec::new(),
    })
}

/// Makes what the lease says.
fn build(
    network: &Network,
    state: &mut State,
    lease: &mut Lease,
    netns: &Netns,
    rules: &[Translated],
) -> anyhow::Result<()> {
    connection::make(lease, netns)?;
    let mut script = Script::new(&network.names);
    if lease.bridge.is_some() && state.pool.addresses.is_last(lease.place) {
        script.hairpin(lease);
    }
    script.container(lease, rules);
    if !script.text().is_empty() {
        down::or_after_finishing(network, state, |state| nft::run(script.text(), state.lock()))
            .map_err(|error| net_in::name_conflict(error, &lease.mappings))?;
    }
    if let Some(depot) = &network.settings.depot {
        resolver::write(depot, &network.settings, lease)?;
    }
    lease.stage = Stage::Up;
    state.leases.save(lease)
}

fn answer(lease: &Lease) -> anyhow::Result<Answer> {
    Answer::json(&UpAnswer { properties: lease.properties(), ..UpAnswer::default() })
}
