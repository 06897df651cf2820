//! `list` and `show`: what is written down, for a person or as JSON. Nothing is locked or made.

use guardian_contract::depot::Handle;
use guardian_contract::fault::Fault;
use guardian_contract::run::Answer;

use super::Network;
use crate::lease::{Lease, Stage};
use crate::state;

/// Lists the containers that have a network.
pub(super) fn list(network: &Network, json: bool) -> anyhow::Result<Answer> {
    let mut leases = state::leases(&network.settings.state_dir)?.all()?;
    leases.retain(|lease| lease.stage != Stage::Going);
    if json {
        return Answer::json(&leases);
    }
    let head = ["HANDLE", "ADDRESS", "SUBNET", "LINK", "PORTS"].map(str::to_owned);
    let rows: Vec<[String; 5]> = std::iter::once(head).chain(leases.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..5).map(width).collect();
    let line = |row: &[String; 5]| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    };
    Ok(Answer::Text(rows.iter().map(line).collect()))
}

/// Shows what one container has.
pub(super) fn one(network: &Network, handle: &Handle, json: bool) -> anyhow::Result<Answer> {
    let lease = state::leases(&network.settings.state_dir)?.load(handle)?;
    let lease = lease.filter(|lease| lease.stage != Stage::Going);
    let lease = lease.ok_or_else(|| Fault::not_found(format!("unknown handle: {handle}")))?;
    self::lease(&lease, json)
}

/// Describes a lease.
pub(super) fn lease(lease: &Lease, json: bool) -> anyhow::Result<Answer> {
    if json {
        return Answer::json(lease);
    }
    let bridge = lease.bridge.as_deref().unwrap_or("none");
    Ok(Answer::Text(format!(
        "handle          {}\nstate           {}\naddress         {}\nsubnet          {}\n\
         gateway         {}\nexternal ip     {}\nmtu             {}\nlink on host    {}\n\
         link inside     {}\nbridge          {bridge}\nports           {}\nipv6 address    {}\nbandwidth       {}\noutbound rules  {}\n",
        lease.handle,
        if lease.stage == Stage::Up { "up" } else { "unfinished" },
        lease.place.address,
        lease.place.subnet,
        lease.place.subnet.gateway(),
        lease.external_ip,
        lease.mtu,
        lease.host_interface,
        lease.container_interface,
        ports(lease),
        lease.place6().map_or("none".into(), |place| place.address.to_string()),
        bandwidth(lease),
        outbound(lease),
    )))
}

fn row(lease: &Lease) -> [String; 5] {
    [
        lease.handle.to_string(),
        lease.place.address.to_string(),
        lease.place.subnet.to_string(),
        lease.host_interface.clone(),
        ports(lease),
    ]
}

fn ports(lease: &Lease) -> String {
    let ports: Vec<String> =
        lease.mappings.iter().map(|m| format!("{}->{}", m.host_port, m.container_port)).collect();
    if ports.is_empty() { "none".into() } else { ports.join(", ") }
}

/// Returns the outbound rules as they were asked for, one a line.
fn outbound(lease: &Lease) -> String {
    let rules: Vec<String> =
        lease.outbound.iter().map(|rule| serde_json::json!(rule).to_string()).collect();
    if rules.is_empty() { "none".into() } else { rules.join("\n                ") }
}

fn bandwidth(lease: &Lease) -> String {
    match lease.bandwidth {
        None => "unlimited".into(),
        Some(limit) => format!("{} bytes/s, burst {} bytes", limit.rate, limit.burst),
    }
}
