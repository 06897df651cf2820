//! The command line, and which verb answers it.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use guardian_contract::depot::{Bundle, Depot, Handle};
use guardian_contract::fault::Fault;
use guardian_contract::run::{Answer, request};

use crate::device::Rule;
use crate::{create, destroy, info, update};

/// Keep OCI bundles, one directory per container
#[derive(Debug, Parser)]
#[command(name = "depot", version)]
pub(crate) struct Cli {
    /// Directory of all bundles
    #[arg(long, value_name = "DIR", default_value = "/var/run/gdn/depot")]
    depot: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a bundle from the JSON on stdin and print its path
    #[command(long_about = CREATE)]
    Create {
        /// Name of the container
        handle: Handle,
        #[command(flatten)]
        options: Box<Options>,
    },
    /// Change limits by the JSON on stdin and print what the bundle then says of resources
    #[command(long_about = UPDATE)]
    Update {
        /// Name of the container
        handle: Handle,
        /// Change nothing, print only
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        limits: Limits,
    },
    /// Print all handles
    List,
    /// Print the path of a bundle
    Lookup {
        /// Name of the container
        handle: Handle,
    },
    /// Print what a bundle says of its container
    Info {
        /// Name of the container
        handle: Handle,
    },
    /// Take a bundle away; one that is not there is no error
    Destroy {
        /// Name of the container
        handle: Handle,
    },
}

const CREATE: &str = "Make a bundle from the JSON on stdin and print its path.

The JSON is what `rootfs create` prints, with any of these members added: env, bind_mounts, \
limits, privileged, ids. Only root.path is required:

  echo '{\"root\":{\"path\":\"/srv/busybox\"}}' | depot create web-1";

const UPDATE: &str = "Change limits by the JSON on stdin and print what the bundle then says of \
resources.

The JSON has members of a create request's limits; those that are missing stay as they are:

  echo '{\"memory_limits\":{\"limit_in_bytes\":67108864}}' | depot update web-1 >new
  crun update --resources new web-1";

/// What shapes every bundle of a host, under gdn's names.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Options {
    /// Program that becomes pid 1 [default: `init` beside this program]
    #[arg(long, value_name = "PATH")]
    pub(crate) init_bin: Option<PathBuf>,
    /// Make the container privileged, whatever stdin says
    #[arg(long)]
    pub(crate) privileged: bool,
    /// AppArmor profile of unprivileged containers, where the host has AppArmor
    #[arg(long, value_name = "PROFILE")]
    pub(crate) apparmor: Option<String>,
    /// Keep processes of unprivileged containers from gaining privileges by exec
    #[arg(long)]
    pub(crate) no_new_privileges: bool,
    #[command(flatten)]
    pub(crate) limits: Limits,
    /// Device that privileged containers may use, as `c 10:232 rwm`
    #[arg(long = "device-cgroup-rule", value_name = "RULE")]
    pub(crate) device_cgroup_rules: Vec<Rule>,
    /// Name of this installation, for the parent cgroup `garden-TAG`
    #[arg(long)]
    pub(crate) tag: Option<Handle>,
    /// Put containers below `good` in the parent cgroup, from where a throttle can move them
    #[arg(long)]
    pub(crate) enable_cpu_throttling: bool,
    #[command(flatten)]
    pub(crate) tcp: Tcp,
}

/// What shapes the limits of every container of a host, under gdn's names.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Limits {
    /// Microseconds of processor time per share and 100 ms; 0 sets no quota
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) cpu_quota_per_share: u64,
    /// Limit memory alone, not memory and swap together
    #[arg(long)]
    pub(crate) disable_swap_limit: bool,
    /// Block I/O weight; 0 sets none
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) default_container_blockio_weight: u16,
    /// Bytes read per second from each block device; 0 sets no limit
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) container_io_max_read_bps: u64,
    /// Bytes written per second to each block device; 0 sets no limit
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) container_io_max_write_bps: u64,
    /// Reads per second from each block device; 0 sets no limit
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) container_io_max_read_iops: u64,
    /// Writes per second to each block device; 0 sets no limit
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) container_io_max_write_iops: u64,
}

/// TCP settings inside containers; 0 takes the host's current value.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Tcp {
    /// net.ipv4.tcp_keepalive_time; 0 takes the host's
    #[arg(long = "tcp-keepalive-time", value_name = "N", default_value_t = 0)]
    pub(crate) keepalive_time: u32,
    /// net.ipv4.tcp_keepalive_intvl; 0 takes the host's
    #[arg(long = "tcp-keepalive-interval", value_name = "N", default_value_t = 0)]
    pub(crate) keepalive_interval: u32,
    /// net.ipv4.tcp_keepalive_probes; 0 takes the host's
    #[arg(long = "tcp-keepalive-probes", value_name = "N", default_value_t = 0)]
    pub(crate) keepalive_probes: u32,
    /// net.ipv4.tcp_retries1; 0 takes the host's
    #[arg(long = "tcp-retries1", value_name = "N", default_value_t = 0)]
    pub(crate) retries1: u32,
    /// net.ipv4.tcp_retries2; 0 takes the host's
    #[arg(long = "tcp-retries2", value_name = "N", default_value_t = 0)]
    pub(crate) retries2: u32,
}

/// Answers the command line.
pub(crate) fn run(cli: Cli) -> anyhow::Result<Answer> {
    let depot = Depot::at(std::path::absolute(&cli.depot).context("find the depot")?);
    match cli.verb {
        Verb::Create { handle, options } => {
            create::create(&depot.bundle(&handle), request()?, *options)
        }
        Verb::Update { handle, dry_run, limits } => {
            update::update(&known(&depot, &handle)?, &request()?, &limits, dry_run)
        }
        Verb::List => list(&depot),
        Verb::Lookup { handle } => lookup(&known(&depot, &handle)?),
        Verb::Info { handle } => info::info(&known(&depot, &handle)?),
        Verb::Destroy { handle } => destroy::destroy(&depot, &handle),
    }
}

fn list(depot: &Depot) -> anyhow::Result<Answer> {
    // An absent depot is told, as gdn does: it is far more often a wrong flag than a fresh host.
    std::fs::metadata(depot.path()).with_context(|| invalid(depot))?;
    Answer::json(&depot.handles().with_context(|| invalid(depot))?)
}

fn lookup(bundle: &Bundle) -> anyhow::Result<Answer> {
    Ok(Answer::Text(bundle.path().display().to_string()))
}

fn known(depot: &Depot, handle: &Handle) -> anyhow::Result<Bundle> {
    let bundle = depot.bundle(handle);
    match bundle.path().is_dir() {
        true => Ok(bundle),
        false => Err(Fault::not_found(format!("unknown handle: {handle}")).into()),
    }
}

fn invalid(depot: &Depot) -> String {
    format!("invalid depot directory {}", depot.path().display())
}
