//! The command line: gdn's plugin form, and what a person types.

mod limit;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use guardian_contract::depot::Handle;
use guardian_contract::garden::{BandwidthLimits, NetIn, NetOutRule};
use guardian_contract::log::Level;
use guardian_contract::network::Up;

use crate::policy::Policy;
use limit::Ceiling;

const EXAMPLES: &str = "\
Actions (JSON on stdin, JSON on stdout):
  setup         prepare the host, answer {\"external_ip\",\"capacity\",\"mtu\"}; safe to repeat
  up            {\"Pid\":N,\"Properties\":{},\"network\":\"\",\"netin\":[],\"netout_rules\":[]}
  down          null; succeeds for a handle never seen
  net-in        {\"HostIP\":\"\",\"HostPort\":0,\"ContainerIP\":\"\",\"ContainerPort\":8080}
  net-out       {\"container_ip\":\"\",\"netout_rule\":{\"protocol\":1,\"ports\":[{\"start\":443}]}}
  bulk-net-out  {\"container_ip\":\"\",\"netout_rules\":[...]}
  limit         {\"Pid\":N,\"bandwidth\":{\"rate\":1000000,\"burst\":0}}; answer as up, rate 0 is no limit
  metrics       null; answer {\"rx_bytes\",\"tx_bytes\",\"rx_packets\",\"tx_packets\"}, as the container sees it

Exit status: 0 done, 1 failed (a JSON fault on stdout), 2 wrong usage, 3 check found differences.

Examples:
  unshare -n sleep 1000 &
  echo '{\"Pid\":'$!'}' | netsetup --action up --handle web-1
  echo '{\"ContainerPort\":8080}' | netsetup --action net-in --handle web-1
  echo null | netsetup --action down --handle web-1

  ip netns add db
  netsetup up db-1 --netns db --map 5432 --map 8080:80
  netsetup list
  netsetup check
  netsetup down db-1";

/// Give containers a network: links, addresses, port mappings, outbound rules.
///
/// Called by guardiand, or by gdn as its --network-plugin, or by hand. Links are made by netlink;
/// rules live in one nftables table of our own (guardian, or guardian-T with --tag T). No foreign
/// rule is touched, and neither ip nor iptables is needed.
#[derive(Debug, Parser)]
#[command(
    name = "netsetup",
    version,
    after_help = EXAMPLES,
    arg_required_else_help = true,
    args_override_self = true,
    subcommand_negates_reqs = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// What to do, plugin form
    #[arg(long, value_enum, required = true)]
    pub(crate) action: Option<Action>,
    /// Whom to do it for; every action but setup wants one
    #[arg(long, required_if_eq_any = [
        ("action", "up"), ("action", "down"), ("action", "net-in"), ("action", "net-out"),
        ("action", "bulk-net-out"), ("action", "limit"), ("action", "metrics"),
    ])]
    pub(crate) handle: Option<Handle>,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// The plugin's actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Action {
    /// Prepare the host
    Setup,
    /// Connect a container
    Up,
    /// Undo all that was done for a container
    Down,
    /// Map a host port to a container's
    NetIn,
    /// Let some of a container's traffic out
    NetOut,
    /// The same with many rules in one transaction
    BulkNetOut,
    /// Change how much may pass
    Limit,
    /// Tell how much a container has received and sent
    Metrics,
}

/// What a person asks.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Connect a container
    Up {
        /// The container
        handle: Handle,
        #[command(flatten)]
        wishes: Wishes,
        #[command(flatten)]
        form: Form,
    },
    /// Change how much may pass to and from a container that is up
    Limit {
        /// The container
        handle: Handle,
        #[command(flatten)]
        ceiling: Ceiling,
        #[command(flatten)]
        form: Form,
    },
    /// Disconnect a container, and return when nothing of it is left
    Down {
        /// The container
        handle: Handle,
        #[command(flatten)]
        form: Form,
    },
    /// List the containers that have a network
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show how much one container has received and sent
    Stats {
        /// The container
        handle: Handle,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Compare what is written down with what the kernel has; exit 3 when they differ
    Check {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make the kernel have what is written down, then check
    Reapply {
        #[command(flatten)]
        form: Form,
    },
    /// Finish a down in the background; down calls this
    #[command(hide = true)]
    Reap {
        /// The container
        handle: Handle,
    },
    /// Show what one container has
    Show {
        /// The container
        handle: Handle,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// How a verb that changes things answers.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Form {
    /// Change nothing, only print what nft would be told
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a person wants for a container.
#[derive(Debug, Args)]
pub(crate) struct Wishes {
    /// A process in the container's network namespace
    #[arg(long, value_name = "PID", required_unless_present = "netns")]
    pid: Option<i32>,
    /// The namespace itself: a name below /run/netns, or a path; it stays when the container goes
    #[arg(long, value_name = "NAME|PATH", conflicts_with = "pid")]
    netns: Option<String>,
    /// An address or subnet instead of a /30 from the pool
    #[arg(long, value_name = "IP[/N]", default_value = "", hide_default_value = true)]
    network: String,
    /// Map a host port (0: any from the pool) to a container's; repeatable
    #[arg(long = "map", value_name = "[HOST:]CONTAINER", value_parser = parse_mapping)]
    mappings: Vec<NetIn>,
    /// Let no more bytes pass in a second, in each direction
    #[arg(long, value_name = "BYTES", default_value_t = 0, hide_default_value = true)]
    rate: u64,
    /// Let this many bytes pass at once before --rate counts; 64 KiB at least
    #[arg(long, value_name = "BYTES", default_value_t = 0, hide_default_value = true)]
    burst: u64,
    /// Let traffic out to denied networks, by a rule of Garden's like {"protocol":1}; repeatable
    #[arg(long = "allow", value_name = "JSON", value_parser = parse_rule)]
    rules: Vec<NetOutRule>,
}

impl From<Wishes> for Up {
    fn from(wishes: Wishes) -> Self {
        Self {
            pid: wishes.pid.unwrap_or_default(),
            namespace: wishes.netns.unwrap_or_default(),
            network: wishes.network,
            netin: wishes.mappings,
            netout_rules: wishes.rules,
            bandwidth: BandwidthLimits { rate: wishes.rate, burst: wishes.burst },
            ..Self::default()
        }
    }
}

fn parse_mapping(text: &str) -> Result<NetIn, String> {
    let port = |text: &str| match text.parse::<u16>() {
        Ok(port) => Ok(u32::from(port)),
        Err(_) => Err(format!("'{text}' is no port")),
    };
    let (host, container) = text.split_once(':').unwrap_or(("0", text));
    Ok(NetIn { host_port: port(host)?, container_port: port(container)? })
}

fn parse_rule(text: &str) -> Result<NetOutRule, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// What is the same for all containers; the names are gdn's.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    #[command(flatten)]
    pub(crate) policy: Policy,
    /// The host's address for mapped ports [default: the one the host leaves by]
    #[arg(long, global = true, value_name = "IP")]
    pub(crate) external_ip: Option<Ipv4Addr>,
    /// MTU of containers' links; 0 means that of the link with the external IP, 1500 at most
    #[arg(long, global = true, value_name = "N", default_value_t = 0)]
    pub(crate) mtu: u32,
    /// The first port of the pool of host ports
    #[arg(long, global = true, value_name = "PORT", default_value_t = 61001)]
    pub(crate) port_pool_start: u16,
    /// How many ports the pool has
    #[arg(long, global = true, value_name = "N", default_value_t = 4534)]
    pub(crate) port_pool_size: u16,
    /// Accepted because gdn has it; the pool is kept in the state directory
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) port_pool_properties_path: Option<PathBuf>,
    /// One letter or digit that tells this daemon's names from another's
    #[arg(long, global = true, value_name = "T", default_value = "", hide_default_value = true,
          value_parser = parse_tag)]
    pub(crate) tag: String,
    /// Where leases and pools are kept; one directory for each daemon
    #[arg(long, global = true, value_name = "DIR", default_value = "/run/netsetup")]
    pub(crate) state_dir: PathBuf,
    /// Let up write DIR/HANDLE/hosts and resolv.conf itself
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) depot: Option<PathBuf>,
    /// Let down return only when everything is gone, not some ten milliseconds before
    #[arg(long, global = true)]
    pub(crate) wait: bool,
    /// A name server for containers beside those; repeatable
    #[arg(long = "additional-dns-server", global = true, value_name = "IP")]
    pub(crate) additional_dns_servers: Vec<IpAddr>,
    /// A line for containers' /etc/hosts; repeatable
    #[arg(long = "additional-host-entry", global = true, value_name = "LINE")]
    pub(crate) additional_host_entries: Vec<String>,
    /// The least important log lines to print on stderr
    #[arg(long, global = true, value_enum, default_value = "error")]
    pub(crate) log_level: Level,
}

fn parse_tag(text: &str) -> Result<String, String> {
    match text.len() <= 1 && text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        true => Ok(text.to_owned()),
        false => Err("a tag is one letter or digit".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn gdn_s_form_is_understood_and_half_of_it_is_not() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        let cli = parse("netsetup --tag x --action bulk-net-out --handle h").unwrap();
        assert_eq!(cli.action, Some(Action::BulkNetOut));
        assert!(parse("netsetup --action setup").is_ok());
        let cli = parse("netsetup --mtu 9 --action down --handle h --mtu 1400").unwrap();
        assert_eq!(cli.settings.mtu, 1400, "as in gdn, the last one counts");
        assert!(parse("netsetup list --json --state-dir /x").is_ok());
        for line in ["--action up", "--handle h", "--action up --handle a/b", "--tag xy list"] {
            assert!(parse(&format!("netsetup {line}")).is_err(), "{line}");
        }
    }
}
