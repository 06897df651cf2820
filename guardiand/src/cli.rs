//! The command line: gdn's names, so that an operator's unit file needs one word changed.

mod limit;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use guardian_contract::ids::IdPolicy;
use guardian_contract::log::Level;

pub(crate) use limit::{Limits, Throttling};

/// Manage containers on this host and serve the Garden API
#[derive(Debug, Parser)]
#[command(name = "guardiand", version)]
pub(crate) struct Cli {
    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the Garden API until told to stop
    Server(Box<Server>),
    /// Mount the control group hierarchies that containers need, as the server does when it starts
    Setup(Setup),
}

/// Flags of `guardiand setup`.
#[derive(Debug, Args)]
pub(crate) struct Setup {
    /// Drop log lines below this level (debug, info, error, fatal)
    #[arg(long, value_enum, default_value = "info")]
    pub(crate) log_level: Level,
    #[arg(long, hide = true, default_value = "", value_parser = tag)]
    pub(crate) tag: String,
    /// Make the groups that throttling needs, too
    #[arg(long)]
    pub(crate) enable_cpu_throttling: bool,
    #[arg(long, hide = true)]
    pub(crate) time_format: Option<String>,
}

/// Flags of `guardiand server`.
#[derive(Debug, Args)]
pub(crate) struct Server {
    #[command(flatten)]
    pub(crate) listen: Listen,
    #[command(flatten)]
    pub(crate) lifecycle: Lifecycle,
    #[command(flatten)]
    pub(crate) tools: Tools,
    #[command(flatten)]
    pub(crate) image: Image,
    #[command(flatten)]
    pub(crate) network: Network,
    #[command(flatten)]
    pub(crate) limits: Limits,
    #[command(flatten)]
    pub(crate) throttling: Throttling,
    #[command(flatten)]
    pub(crate) ignored: Ignored,
    /// Drop log lines below this level (debug, info, error, fatal)
    #[arg(long, value_enum, default_value = "info")]
    pub(crate) log_level: Level,
}

/// Where to listen.
#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct Listen {
    /// Serve on this TCP address instead of the unix socket
    #[arg(long, value_name = "IP")]
    pub(crate) bind_ip: Option<IpAddr>,
    /// TCP port, with --bind-ip
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    pub(crate) bind_port: u16,
    /// Serve on this unix socket; what is at the path is replaced, unless a server answers there
    #[arg(long, default_value = "/tmp/garden.sock", value_name = "PATH")]
    pub(crate) bind_socket: PathBuf,
    /// Permissions of the unix socket, octal: whoever may connect has root's power here
    #[arg(long, default_value = "0660", value_parser = octal, value_name = "MODE")]
    pub(crate) bind_socket_mode: u32,
    /// Serve TCP without authentication on an address that is not loopback
    #[arg(long)]
    pub(crate) allow_unauthenticated_tcp: bool,
    /// Serve /debug/vars on this address
    #[arg(long, value_name = "IP")]
    pub(crate) debug_bind_ip: Option<IpAddr>,
    /// Port of the debug server
    #[arg(long, default_value_t = 17013, value_name = "PORT")]
    pub(crate) debug_bind_port: u16,
    /// Close a connection whose request head is not complete in this time; 0 waits for ever
    #[arg(long, default_value = "0", value_parser = duration, value_name = "DURATION")]
    pub(crate) read_header_timeout: Duration,
    /// Leave control groups as they are: `guardiand setup` was run
    #[arg(long)]
    pub(crate) skip_setup: bool,
    /// Tell several daemons on one host apart by one letter or digit, which becomes part of link,
    /// table and cgroup names
    #[arg(long, default_value = "", value_parser = tag, hide_default_value = true)]
    pub(crate) tag: String,
}

/// What becomes of containers.
#[derive(Debug, Args)]
#[command(next_help_heading = "Container lifecycle")]
pub(crate) struct Lifecycle {
    /// The directory of bundles, one directory per container
    #[arg(long, default_value = "/var/run/gdn/depot", value_name = "DIR")]
    pub(crate) depot: PathBuf,
    /// Take over properties that a gdn saved here; ours are in the depot
    #[arg(long, value_name = "FILE")]
    pub(crate) properties_path: Option<PathBuf>,
    /// Image of containers that name none
    #[arg(long, default_value = "", value_name = "URI", hide_default_value = true)]
    pub(crate) default_rootfs: String,
    /// Destroy a container that no client used for this long; 0 never does
    #[arg(long, default_value = "0", value_parser = duration, value_name = "DURATION")]
    pub(crate) default_grace_time: Duration,
    /// Destroy all containers found at start
    #[arg(long)]
    pub(crate) destroy_containers_on_startup: bool,
    /// Refuse to create privileged containers
    #[arg(long)]
    pub(crate) disable_privileged_containers: bool,
    /// Remove the directory of a process once its exit code was collected
    #[arg(long)]
    pub(crate) cleanup_process_dirs_on_wait: bool,
    /// How long output of a process that has ended is waited for while a descendant holds it open
    #[arg(long, default_value = "5s", value_parser = duration, value_name = "DURATION")]
    pub(crate) drain_timeout: Duration,
    /// First host user id behind user ids from 1 on, in unprivileged containers
    #[arg(long, default_value_t = 1, value_name = "ID")]
    pub(crate) uid_map_start: u32,
    /// How many user ids; 0 is as many as there are
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) uid_map_length: u32,
    /// First host group id behind group ids from 1 on, in unprivileged containers
    #[arg(long, default_value_t = 1, value_name = "ID")]
    pub(crate) gid_map_start: u32,
    /// How many group ids; 0 is as many as there are
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) gid_map_length: u32,
    /// Whose ids unprivileged containers get that don't say: one mapping for all, or 65536 ids each
    #[arg(long, value_enum, default_value = "maximus")]
    pub(crate) id_policy: IdPolicy,
    /// AppArmor profile of unprivileged containers
    #[arg(long, value_name = "PROFILE")]
    pub(crate) apparmor: Option<String>,
    /// Set no_new_privs in unprivileged containers
    #[arg(long)]
    pub(crate) no_new_privileges: bool,
    /// Further devices of privileged containers, such as "c 10:200 rwm"
    #[arg(long, value_name = "RULE")]
    pub(crate) device_cgroup_rule: Vec<String>,
}

/// The executables called. Those not given are looked for beside this one.
#[derive(Debug, Args)]
#[command(next_help_heading = "Programs")]
pub(crate) struct Tools {
    /// OCI runtime: a path, or a name on PATH
    #[arg(long, default_value = "runc", value_name = "PROGRAM")]
    pub(crate) runtime_plugin: String,
    /// Argument of the runtime when it starts a container; may be given again
    #[arg(long, value_parser = unquoted, allow_hyphen_values = true, value_name = "ARG")]
    pub(crate) runtime_plugin_extra_arg: Vec<String>,
    /// Keeper of processes
    #[arg(long, value_name = "FILE")]
    pub(crate) dadoo_bin: Option<PathBuf>,
    /// First process of every container
    #[arg(long, value_name = "FILE")]
    pub(crate) init_bin: Option<PathBuf>,
    /// Streams files in and out
    #[arg(long, value_name = "FILE")]
    pub(crate) nstar_bin: Option<PathBuf>,
    /// Handed to nstar; ours needs none
    #[arg(long, default_value = "/bin/tar", value_name = "FILE")]
    pub(crate) tar_bin: PathBuf,
    /// Bundle store
    #[arg(long, value_name = "FILE")]
    pub(crate) depot_bin: Option<PathBuf>,
    /// Id manager
    #[arg(long, value_name = "FILE")]
    pub(crate) idmgr_bin: Option<PathBuf>,
    /// Argument before the id manager's verb; may be given again
    #[arg(long, value_parser = unquoted, allow_hyphen_values = true, value_name = "ARG")]
    pub(crate) idmgr_extra_arg: Vec<String>,
}

/// Who makes root filesystems.
#[derive(Debug, Args)]
#[command(next_help_heading = "Image")]
pub(crate) struct Image {
    /// Image plugin for unprivileged containers
    #[arg(long, value_name = "FILE")]
    pub(crate) image_plugin: Option<PathBuf>,
    /// Argument before the plugin's verb; may be given again
    #[arg(long, value_parser = unquoted, allow_hyphen_values = true, value_name = "ARG")]
    pub(crate) image_plugin_extra_arg: Vec<String>,
    /// Image plugin for privileged containers
    #[arg(long, value_name = "FILE")]
    pub(crate) privileged_image_plugin: Option<PathBuf>,
    /// Argument before the plugin's verb; may be given again
    #[arg(long, value_parser = unquoted, allow_hyphen_values = true, value_name = "ARG")]
    pub(crate) privileged_image_plugin_extra_arg: Vec<String>,
    /// Use no image plugin: only raw:// root filesystems can be created
    #[arg(long)]
    pub(crate) no_image_plugin: bool,
}

/// What containers may reach.
#[derive(Debug, Args)]
#[command(next_help_heading = "Network")]
pub(crate) struct Network {
    /// Network plugin; with a foreign one only the DNS flags below have an effect
    #[arg(long, value_name = "FILE")]
    pub(crate) network_plugin: Option<PathBuf>,
    /// Argument before the plugin's action; may be given again
    #[arg(long, value_parser = unquoted, allow_hyphen_values = true, value_name = "ARG")]
    pub(crate) network_plugin_extra_arg: Vec<String>,
    /// Where dynamic /30 subnets come from
    #[arg(long, default_value = "10.254.0.0/22", value_name = "CIDR")]
    pub(crate) network_pool: String,
    /// Let containers reach this host
    #[arg(long)]
    pub(crate) allow_host_access: bool,
    /// Refuse what containers send there, unless a rule allows it; may be given again
    #[arg(long, value_name = "CIDR")]
    pub(crate) deny_network: Vec<String>,
    /// Name server of containers, instead of the host's; may be given again
    #[arg(long, value_name = "IP")]
    pub(crate) dns_server: Vec<IpAddr>,
    /// Name server of containers, beside the host's; may be given again
    #[arg(long, value_name = "IP")]
    pub(crate) additional_dns_server: Vec<IpAddr>,
    /// Line added to /etc/hosts of containers; may be given again
    #[arg(long, value_parser = unquoted, value_name = "LINE")]
    pub(crate) additional_host_entry: Vec<String>,
    /// The host's address for mapped ports
    #[arg(long, value_name = "IP")]
    pub(crate) external_ip: Option<IpAddr>,
    /// First host port that can be mapped
    #[arg(long, default_value_t = 61001, value_name = "PORT")]
    pub(crate) port_pool_start: u32,
    /// How many host ports can be mapped
    #[arg(long, default_value_t = 4534, value_name = "N")]
    pub(crate) port_pool_size: u32,
    /// Where a gdn kept its port pool; ours is in the network plugin's state
    #[arg(long, value_name = "FILE")]
    pub(crate) port_pool_properties_path: Option<PathBuf>,
    /// MTU of containers; 0 is the MTU of the interface with the external address
    #[arg(long, default_value_t = 0, value_name = "BYTES", value_parser = mtu)]
    pub(crate) mtu: u32,
    /// Report bytes sent and received in metrics
    #[arg(long)]
    pub(crate) enable_container_network_metrics: bool,
}

/// Flags of gdn that name what this server does not need: accepted, without effect.
#[derive(Debug, Args)]
pub(crate) struct Ignored {
    #[arg(long, hide = true)]
    pub(crate) console_sockets_path: Option<PathBuf>,
    #[arg(long, hide = true)]
    pub(crate) assets_dir: Option<PathBuf>,
    #[arg(long, hide = true)]
    pub(crate) iptables_bin: Option<PathBuf>,
    #[arg(long, hide = true)]
    pub(crate) iptables_restore_bin: Option<PathBuf>,
    #[arg(long, hide = true)]
    pub(crate) docker_registry: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) insecure_docker_registry: Vec<String>,
    #[arg(long, hide = true)]
    pub(crate) metrics_emission_interval: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) dropsonde_origin: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) dropsonde_destination: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) time_format: Option<String>,
}

/// Parses Go's durations: `1m30s`, `500ms`, and a bare `0`.
fn duration(text: &str) -> Result<Duration, String> {
    match text {
        "0" => Ok(Duration::ZERO),
        _ => humantime::parse_duration(text).map_err(|_| "not a time such as 30s or 5m".into()),
    }
}

fn octal(text: &str) -> Result<u32, std::num::ParseIntError> {
    u32::from_str_radix(text, 8)
}

/// From the least that IPv4 needs (RFC 791) to what a veth takes (ETH_MAX_MTU).
fn mtu(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(mtu) if mtu == 0 || (68..=65535).contains(&mtu) => Ok(mtu),
        _ => Err("an MTU is between 68 and 65535, or 0".into()),
    }
}

/// Link names have room for one character more.
fn tag(text: &str) -> Result<String, String> {
    match text.len() <= 1 && text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        true => Ok(text.into()),
        false => Err("a tag is one letter or digit".into()),
    }
}

/// gdn's flag library takes a value that begins with a quote for a quoted Go string, and
/// deployments rely on it.
fn unquoted(text: &str) -> Result<String, String> {
    if !text.starts_with('"') {
        return Ok(text.into());
    }
    serde_json::from_str(text).map_err(|error| format!("bad quoted string {text}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_gdn_command_line_is_understood() {
        let cli = Cli::try_parse_from([
            "guardiand",
            "server",
            "--bind-ip=127.0.0.1",
            "--bind-port",
            "7777",
            "--image-plugin-extra-arg=\"--store\"",
            "--image-plugin-extra-arg",
            "--config",
            "--default-grace-time",
            "1m30s",
            "--skip-setup",
        ])
        .unwrap();
        let Command::Server(server) = cli.command else { panic!("not the server") };
        assert_eq!(server.image.image_plugin_extra_arg, ["--store", "--config"]);
        assert_eq!(server.lifecycle.default_grace_time, Duration::from_secs(90));
    }
}
