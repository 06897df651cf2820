//! What holds for all containers alike. `setup` writes it down, so that `check` and `reapply` need
//! no flags.

use std::net::IpAddr;
use std::str::FromStr;

use clap::Args;
use guardian_contract::fault::Fault;
use serde::{Deserialize, Serialize};

use crate::subnet::Subnet;
use crate::subnet6::{Subnet6, parse_pool};

/// The part of the settings that our nftables table is made of.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
pub(crate) struct Policy {
    /// Where containers without a network of their own choice get their /30 from
    #[arg(long, global = true, value_name = "CIDR", default_value = "10.254.0.0/22")]
    pub(crate) network_pool: Subnet,
    /// Let containers talk to the host
    #[arg(long, global = true)]
    pub(crate) allow_host_access: bool,
    /// Give containers an IPv6 address too: their IPv4 address at the end of this network, a /96
    /// or larger
    #[arg(long, global = true, value_name = "CIDR", value_parser = parse_pool)]
    #[serde(default)]
    pub(crate) ipv6_pool: Option<Subnet6>,
    /// Refuse containers' traffic to this network; repeatable
    #[arg(long = "deny-network", global = true, value_name = "CIDR")]
    pub(crate) deny_networks: Vec<Network>,
    /// A name server for containers instead of the host's; they may reach it even on the host
    #[arg(long = "dns-server", global = true, value_name = "IP")]
    pub(crate) dns_servers: Vec<IpAddr>,
}

/// A network of either family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Network {
    /// IPv4.
    V4(Subnet),
    /// IPv6.
    V6(Subnet6),
}

impl FromStr for Network {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        match text.contains(':') {
            true => text.parse().map(Self::V6),
            false => text.parse().map(Self::V4),
        }
    }
}
