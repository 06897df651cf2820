//! `metrics` and `stats`: how much a container has received and sent.

use guardian_contract::depot::Handle;
use guardian_contract::fault::Fault;
use guardian_contract::run::Answer;
use serde::Serialize;

use super::Network;
use crate::lease::Stage;
use crate::link::Links;
use crate::state;

/// Traffic from the container's point of view.
#[derive(Debug, Serialize)]
struct Traffic {
    rx_bytes: u64,
    tx_bytes: u64,
    rx_packets: u64,
    tx_packets: u64,
}

/// Reads the host's end of the link, which nobody inside can take away or reset: what that has
/// received, the container has sent. Nothing is locked.
pub(super) fn run(network: &Network, handle: &Handle, json: bool) -> anyhow::Result<Answer> {
    let lease = state::leases(&network.settings.state_dir)?.load(handle)?;
    let lease = lease.filter(|lease| lease.stage == Stage::Up);
    let lease = lease.ok_or_else(|| Fault::not_found(format!("unknown handle: {handle}")))?;
    let name = &lease.host_interface;
    let stats = Links::open()?.traffic(name)?;
    let stats = stats.ok_or_else(|| {
        Fault::not_found(format!("the link {name} of container {handle} has gone"))
    })?;
    let traffic = Traffic {
        rx_bytes: stats.tx_bytes,
        tx_bytes: stats.rx_bytes,
        rx_packets: stats.tx_packets,
        tx_packets: stats.rx_packets,
    };
    if json {
        return Answer::json(&traffic);
    }
    let Traffic { rx_bytes, tx_bytes, rx_packets, tx_packets } = traffic;
    Ok(Answer::Text(format!(
        "received  {rx_bytes} bytes in {rx_packets} packets\n\
         sent      {tx_bytes} bytes in {tx_packets} packets\n"
    )))
}
