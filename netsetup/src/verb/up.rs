//! `up`: check everything, write the lease, build, and undo it all if a part of it fails.

use guardian_contract::depot::Handle;
use guardian_contract::fault::Fault;
use guardian_contract::log;
use guardian_contract::network::{Up, UpAnswer};
use guardian_contract::run::{Answer, request};
use serde_json::json;

use super::{Network, down, net_in, show};
use crate::address::Request;
use crate::bandwidth::Bandwidth;
use crate::cli::Form;
use crate::connection;
use crate::conntrack;
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
    let lease = connect(network, handle, request()?)?;
    Answer::json(&UpAnswer { properties: lease.properties(), ..UpAnswer::default() })
}

/// Connects a container, or says what nft would be told, and shows what it has.
pub(super) fn by_hand(
    network: &Network,
    handle: &Handle,
    request: Up,
    form: Form,
) -> anyhow::Result<Answer> {
    match form.dry_run {
        true => Ok(Answer::Text(rehearse(network, handle, &request)?.for_person())),
        false => show::lease(&connect(network, handle, request)?, form.json),
    }
}

fn connect(network: &Network, handle: &Handle, request: Up) -> anyhow::Result<Lease> {
    let wish = Request::parse(&request.network)?;
    let rules = translate(&request.netout_rules, network.settings.policy.ipv6_pool.is_some())?;
    let netns = namespace(request.pid, &request.namespace)?;
    let mut state = network.state()?;
    let host = host::ready(&network.settings, &network.names, &state)?;
    if let Some(lease) = standing(network, &mut state, handle, &netns)? {
        return Ok(lease);
    }
    let mut lease = down::or_after_finishing(network, &mut state, |state| {
        take(network, state, handle, wish, &request, &host)
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
    Ok(lease)
}

/// Goes through all of it but the doing, and returns what nft would be told.
fn rehearse(network: &Network, handle: &Handle, request: &Up) -> anyhow::Result<Script> {
    let wish = Request::parse(&request.network)?;
    let rules = translate(&request.netout_rules, network.settings.policy.ipv6_pool.is_some())?;
    let netns = namespace(request.pid, &request.namespace)?;
    let mut state = network.state()?;
    let mut script = match nft::has_table(&network.names.table())? {
        true => Script::new(&network.names),
        false => host::whole(&network.settings.policy, &network.names, &state.leases.all()?)?,
    };
    let present = state.leases.load(handle)?;
    if present.is_some_and(|lease| is_standing(&lease, &netns)) {
        return Ok(script);
    }
    let host = host::look(&network.settings)?;
    let lease = take(network, &mut state, handle, wish, request, &host)?;
    outline(&mut script, &state, &lease, &rules);
    Ok(script)
}

/// Opens a process's network namespace, or the one that is named instead.
pub(super) fn namespace(pid: i32, name: &str) -> anyhow::Result<Netns> {
    match name {
        "" => Netns::of_container(pid),
        name => Netns::prepared(name),
    }
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
        Some(lease) if is_standing(&lease, netns) => Ok(Some(lease)),
        Some(lease) => {
            down::remove(network, state, &lease)?;
            Ok(None)
        }
    }
}

fn is_standing(lease: &Lease, netns: &Netns) -> bool {
    lease.stage == Stage::Up
        && lease.netns == netns.inode()
        && link::index(&lease.host_interface).is_some()
}

/// Takes a place and ports from the pools, in memory only.
fn take(
    network: &Network,
    state: &mut State,
    handle: &Handle,
    wish: Request,
    request: &Up,
    host: &Host,
) -> anyhow::Result<Lease> {
    let place = state.pool.addresses.take(wish, network.settings.policy.network_pool)?;
    let is_shared = wish != Request::Dynamic && !place.subnet.is_for_one();
    let ports = state.ports(network.port_range())?;
    let wanted = request.netin.iter().map(|mapping| (mapping.host_port, mapping.container_port));
    let mappings = wanted
        .map(|wanted| net_in::take(ports, host.external_ip, wanted))
        .collect::<anyhow::Result<_>>()?;
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
        mappings,
        ipv6_pool: network.settings.policy.ipv6_pool,
        bandwidth: Bandwidth::asked(&request.bandwidth),
        outbound: Vec::new(),
    })
}

/// Adds what nft is to be told about the container.
fn outline(script: &mut Script, state: &State, lease: &Lease, rules: &[Translated]) {
    if lease.bridge.is_some() && state.pool.addresses.is_last(lease.place) {
        script.hairpin(lease);
    }
    script.container(lease, rules);
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
    outline(&mut script, state, lease, rules);
    if !script.text().is_empty() {
        down::or_after_finishing(network, state, |state| nft::run(script.text(), state.lock()))
            .map_err(|error| net_in::name_conflict(error, &lease.mappings))?;
    }
    if !lease.mappings.is_empty() {
        let ports = lease.mappings.iter().map(|mapping| mapping.host_port);
        conntrack::forget_datagrams(lease.external_ip, ports)?;
    }
    if let Some(depot) = &network.settings.depot {
        resolver::write(depot, &network.settings, lease)?;
    }
    lease.stage = Stage::Up;
    state.leases.save(lease)
}
