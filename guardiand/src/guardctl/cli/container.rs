//! The arguments that say what a container should be: of `create` and of `run`.

use clap::Args;
use guardian_contract::garden::{BindMount, ContainerSpec, ImageRef, Limits, VolumeStore};
use guardian_contract::ids::IdPolicy;

use super::parse;
use super::update::{BandwidthArgs, BlockIoArgs};

/// `create`
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The container
    #[command(flatten)]
    pub(crate) container: ContainerArgs,
}

/// What a container should be.
#[derive(Debug, Args)]
#[command(next_help_heading = "Container")]
pub(crate) struct ContainerArgs {
    /// Its name; the server makes one up when none is given
    #[arg(long)]
    pub(crate) handle: Option<String>,

    /// Its image: oci:///DIR:TAG, docker:///NAME#TAG, raw:///DIR or the path of a tar file
    /// [default: the server's]
    #[arg(long, value_name = "URI")]
    image: Option<String>,

    /// Without a user namespace, with more capabilities; root inside is root outside
    #[arg(long)]
    privileged: bool,

    /// Keep its processes from gaining privileges by exec (no_new_privs)
    #[arg(long)]
    no_new_privileges: bool,

    /// Environment of every process; K alone takes the caller's value
    #[arg(short, long = "env", value_name = "K=V", value_parser = parse::variable)]
    env: Vec<String>,

    /// Show a file or directory of the server's host inside; writable unless :ro, and with :idmap
    /// as the container's own, so that its root can write what is the host's root's
    #[arg(short = 'v', long = "volume", value_name = "SRC:DST[:ro|rw|idmap,…]", value_parser = parse::bind_mount)]
    mounts: Vec<BindMount>,

    /// A directory for an engine inside that can't live on an overlay, kept as long as the
    /// container: docker, kubelet, k0s, k3s, rke2, buildkit, containerd, or custom with a path
    #[arg(long = "volume-store", value_name = "KIND[:PATH]", value_parser = parse::volume_store)]
    volume_stores: Vec<VolumeStore>,

    /// Whose ids it gets [default: the server's]
    #[arg(long, value_enum)]
    id_policy: Option<IdPolicy>,

    /// Most memory, in bytes or with k, M, G
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true, value_parser = parse::size)]
    memory: Option<u64>,

    /// Most tasks
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pids: Option<u64>,

    /// Most space on disk, the image included
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true, value_parser = parse::size)]
    disk: Option<u64>,

    /// Most files and directories, those of the image included
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    inodes: Option<u64>,

    /// Share of processor time, against 1024 of a container without this flag
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    limit_cpu_shares: Option<u64>,

    #[command(flatten)]
    bandwidth: BandwidthArgs,

    #[command(flatten)]
    block_io: BlockIoArgs,

    /// Its subnet and address: A, or A/N
    #[arg(long, value_name = "CIDR")]
    network: Option<String>,

    /// A note kept with the container
    #[arg(long = "property", value_name = "K=V", value_parser = parse::pair)]
    properties: Vec<(String, String)>,

    /// Remove it when no client has used it for so long, such as 5m
    #[arg(long, value_name = "TIME", value_parser = parse::nanoseconds)]
    grace_time: Option<i64>,
}

impl ContainerArgs {
    /// Returns the specification that the API takes.
    pub(crate) fn spec(&self) -> ContainerSpec {
        let mut limits = Limits::default();
        limits.memory.limit_in_bytes = self.memory.unwrap_or_default();
        limits.pid.max = self.pids.unwrap_or_default();
        limits.disk.byte_hard = self.disk.unwrap_or_default();
        limits.disk.inode_hard = self.inodes.unwrap_or_default();
        limits.cpu.limit_in_shares = self.limit_cpu_shares.unwrap_or_default();
        limits.bandwidth = self.bandwidth.limits().unwrap_or_default();
        limits.block_io = self.block_io.limits();
        ContainerSpec {
            handle: self.handle.clone().unwrap_or_default(),
            image: ImageRef { uri: self.image.clone().unwrap_or_default(), ..ImageRef::default() },
            privileged: self.privileged,
            no_new_privileges: self.no_new_privileges,
            env: self.env.clone(),
            bind_mounts: self.mounts.clone(),
            volume_stores: self.volume_stores.clone(),
            id_policy: self.id_policy,
            network: self.network.clone().unwrap_or_default(),
            properties: self.properties.iter().cloned().collect(),
            grace_time: self.grace_time.unwrap_or_default(),
            limits,
            ..ContainerSpec::default()
        }
    }
}
