//! `net-in`: one more host port leads into the container.

use std::net::Ipv4Addr;

use guardian_contract::depot::Handle;
use guardian_contract::fault::{Fault, Kind};
use guardian_contract::garden::NetIn;
use guardian_contract::network::NetInRequest;
use guardian_contract::run::{Answer, request};

use super::{Network, down};
use crate::conntrack;
use crate::lease::{Lease, Mapping};
use crate::nft;
use crate::port::{Ports, already_mapped};
use crate::ruleset::Script;
use crate::state::Claim;

/// Maps the port that the request on stdin names, or one from the pool.
pub(super) fn run(network: &Network, handle: &Handle) -> anyhow::Result<Answer> {
    let request: NetInRequest = request()?;
    let mut state = network.state()?;
    let mut lease = network.lease(&state, handle)?;
    let host_ip = match request.host_ip.as_str() {
        "" => lease.external_ip,
        text => text
            .parse()
            .map_err(|_| Fault::invalid(format!("HostIP '{text}' is not an IPv4 address")))?,
    };
    let wanted = (request.host_port, request.container_port);
    if let Some(present) = repeated(&lease, host_ip, wanted)? {
        return answer(present);
    }
    let mapping = down::or_after_finishing(network, &mut state, |state| {
        take(state.ports(network.port_range())?, host_ip, wanted)
    })?;
    lease.mappings.push(mapping);
    state.claim(Claim::port(handle, mapping.host_port), &lease)?;
    let mut script = Script::new(&network.names);
    script.map(&lease, &[mapping]);
    let added = down::or_after_finishing(network, &mut state, |state| {
        nft::run(script.text(), state.lock())
    });
    if let Err(error) = added {
        lease.mappings.pop();
        state.give_back(Claim::port(handle, mapping.host_port), Some(&lease))?;
        return Err(name_conflict(error, &[mapping]));
    }
    conntrack::forget_datagrams(mapping.host_ip, std::iter::once(mapping.host_port))?;
    answer(mapping)
}

/// Takes a host port from the pool, in memory only.
pub(super) fn take(
    ports: &mut Ports,
    host_ip: Ipv4Addr,
    (host_port, container_port): (u32, u32),
) -> anyhow::Result<Mapping> {
    let host_port = match port(host_port)? {
        0 => ports.take()?,
        explicit => {
            ports.reserve(explicit)?;
            explicit
        }
    };
    let container_port = match port(container_port)? {
        0 => host_port,
        explicit => explicit,
    };
    Ok(Mapping { host_ip, host_port, container_port })
}

/// Says what nft means when an element is there already.
pub(super) fn name_conflict(error: anyhow::Error, mappings: &[Mapping]) -> anyhow::Error {
    match (Fault::of(&error).kind, mappings) {
        (Kind::Exists, [mapping]) => already_mapped(mapping.host_port).into(),
        (Kind::Exists, _) => Fault::exists("one of the host ports is already mapped").into(),
        _ => error,
    }
}

/// Returns the mapping that the container has already, if the request asks for just that.
fn repeated(
    lease: &Lease,
    host_ip: Ipv4Addr,
    (host_port, container_port): (u32, u32),
) -> anyhow::Result<Option<Mapping>> {
    let host_port = port(host_port)?;
    let container_port = match port(container_port)? {
        0 => host_port,
        explicit => explicit,
    };
    let wanted = Mapping { host_ip, host_port, container_port };
    Ok(lease.mappings.iter().copied().find(|mapping| *mapping == wanted))
}

fn port(number: u32) -> Result<u16, Fault> {
    u16::try_from(number).map_err(|_| Fault::invalid(format!("port {number} is above 65535")))
}

fn answer(mapping: Mapping) -> anyhow::Result<Answer> {
    let reported = mapping.reported();
    Answer::json(&NetIn { host_port: reported.host_port, container_port: reported.container_port })
}
