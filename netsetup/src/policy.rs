//! What holds for all containers alike. `setup` writes it down, so that `check` and `reapply` need
//! no flags.

use std::net::IpAddr;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::subnet::Subnet;

/// The part of the settings that our nftables table is made of.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
pub(crate) struct Policy {
    /// Where containers without a network of their own choice get their /30 from
    #[arg(long, global = true, value_name = "CIDR", default_value = "10.254.0.0/22")]
    pub(crate) network_pool: Subnet,
    /// Let containers talk to the host
    #[arg(long, global = true)]
    pub(crate) allow_host_access: bool,
    /// Refuse containers' traffic to this network; repeatable
    #[arg(long = "deny-network", global = true, value_name = "CIDR")]
    pub(crate) deny_networks: Vec<Subnet>,
    /// A name server for containers instead of the host's; they may reach it even on the host
    #[arg(long = "dns-server", global = true, value_name = "IP")]
    pub(crate) dns_servers: Vec<IpAddr>,
}
