//! The host's part: our table, forwarding, the external address, the MTU.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use anyhow::Context;
use guardian_contract::fault::Fault;
use guardian_contract::{file, log};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cli::Settings;
use crate::lease::{Lease, Stage};
use crate::link::Links;
use crate::name::Names;
use crate::net_out_rule::translate;
use crate::nft;
use crate::policy::Policy;
use crate::ruleset::Script;
use crate::state::State;

const FORWARD: &str = "net.ipv4.ip_forward";
const FORWARD6: &str = "net.ipv6.conf.all.forwarding";

/// What containers need to know of the host.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Host {
    /// Where mapped ports are reached.
    pub(crate) external_ip: Ipv4Addr,
    /// The MTU of containers' links.
    pub(crate) mtu: u32,
}

/// A [`Host`], the settings it was found out for, and the policy it was set up with.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    wanted_ip: Option<Ipv4Addr>,
    wanted_mtu: u32,
    #[serde(flatten)]
    host: Host,
    policy: Policy,
}

/// Prepares the host and writes down what there is to know of it. Safe to repeat: living
/// containers keep all they have, and the policy becomes what `settings` say now.
pub(crate) fn set_up(settings: &Settings, names: &Names, state: &State) -> anyhow::Result<Host> {
    apply(&settings.policy, names, state)?;
    find_out(settings, &settings.policy, state)
}

/// Makes the kernel's rules what the policy and the leases say, whatever they were before.
pub(crate) fn apply(policy: &Policy, names: &Names, state: &State) -> anyhow::Result<()> {
    allow_forwarding(policy)?;
    let script = whole(policy, names, &state.leases.all()?)?;
    nft::run(script.text(), state.lock()).context("make our nftables table")
}

/// Returns the script that makes our table, with all that the containers that are up have in it.
pub(crate) fn whole(policy: &Policy, names: &Names, leases: &[Lease]) -> anyhow::Result<Script> {
    let mut script = Script::new(names);
    script.whole(policy);
    for lease in leases.iter().filter(|lease| lease.stage == Stage::Up) {
        if lease.bridge.is_some() {
            script.hairpin(lease);
        }
        script.container(lease, &translate(&lease.outbound, lease.ipv6_pool.is_some())?);
    }
    Ok(script)
}

/// Returns the policy that [`set_up`] was last given.
///
/// # Errors
/// With a [`Fault`] of kind `not_found` where that was never done: who takes the wrong state
/// directory must not judge, let alone change, a table that was made from another one.
pub(crate) fn policy(state: &State) -> anyhow::Result<Policy> {
    let record: Option<Record> = file::read_json(&state.host_file())?;
    let missing = || {
        Fault::not_found(format!(
            "nothing was set up from {} in this network namespace (say --state-dir)",
            state.dir().display()
        ))
    };
    Ok(record.ok_or_else(missing)?.policy)
}

/// Returns the settings of the kernel that keep it from forwarding containers' packets.
pub(crate) fn not_forwarding(policy: &Policy) -> anyhow::Result<Vec<&'static str>> {
    let mut settings = vec![FORWARD];
    settings.extend(policy.ipv6_pool.map(|_| FORWARD6));
    let mut found = Vec::new();
    for setting in settings {
        let path = path_of(setting);
        let present = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        if present.trim() != "1" {
            found.push(setting);
        }
    }
    Ok(found)
}

fn path_of(setting: &str) -> String {
    format!("/proc/sys/{}", setting.replace('.', "/"))
}

/// Returns what [`set_up`] found out, setting up first where that was never done.
pub(crate) fn ready(settings: &Settings, names: &Names, state: &State) -> anyhow::Result<Host> {
    if !nft::has_table(&names.table())? {
        return set_up(settings, names, state);
    }
    let record: Option<Record> = file::read_json(&state.host_file())?;
    match record {
        Some(record)
            if (record.wanted_ip, record.wanted_mtu) == (settings.external_ip, settings.mtu) =>
        {
            Ok(record.host)
        }
        // Only `set_up` makes another policy the one that holds.
        Some(record) => find_out(settings, &record.policy, state),
        None => find_out(settings, &settings.policy, state),
    }
}

fn find_out(settings: &Settings, policy: &Policy, state: &State) -> anyhow::Result<Host> {
    let host = look(settings)?;
    let record = Record {
        wanted_ip: settings.external_ip,
        wanted_mtu: settings.mtu,
        host,
        policy: policy.clone(),
    };
    file::replace_json(&state.host_file(), &record)?;
    Ok(host)
}

/// Finds out what containers need to know of the host.
pub(crate) fn look(settings: &Settings) -> anyhow::Result<Host> {
    let external_ip = settings.external_ip.unwrap_or_else(outbound_address);
    let mtu = match settings.mtu {
        0 => Links::open()?.mtu_of_holder(external_ip)?.unwrap_or(1500).min(1500),
        mtu => mtu,
    };
    Ok(Host { external_ip, mtu })
}

/// Returns the address this host leaves by. A host that can't leave has nobody outside who could
/// reach it, so any address does: the loopback's.
fn outbound_address() -> Ipv4Addr {
    // Connecting a datagram socket sends nothing; it only asks the routing table.
    let local = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| socket.connect((Ipv4Addr::new(1, 2, 3, 4), 1)).and(socket.local_addr()));
    match local {
        Ok(SocketAddr::V4(address)) => *address.ip(),
        _ => {
            log::info("no-route-so-external-ip-is-loopback", &json!({}));
            Ipv4Addr::LOCALHOST
        }
    }
}

/// Writes only what differs, because /proc/sys may be read-only where we run. A host that forwards
/// IPv6 no longer takes its own address from a router (accept_ra), so that is never done unasked.
fn allow_forwarding(policy: &Policy) -> anyhow::Result<()> {
    for setting in not_forwarding(policy)? {
        std::fs::write(path_of(setting), "1").with_context(|| format!("set {setting} to 1"))?;
    }
    Ok(())
}
