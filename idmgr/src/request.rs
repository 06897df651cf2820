//! The verbs, whether typed at a shell or sent to the server.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use guardian_contract::depot::Handle;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::attach::Attach;
use crate::container::{self, References, Register};
use crate::reown::{self, Shift};
use crate::store::Store;
use crate::{allocate, mounts, probe, recover, rootfs, show, subid, volume};

/// One verb with its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Print what this kernel and these filesystems can do
    Probe {
        /// Directory whose filesystem is tried; overlays are tried in the first one [default: the
        /// state directory]
        #[arg(long = "dir", value_name = "DIR", value_parser = absolute)]
        directories: Vec<PathBuf>,
    },
    /// Make sure that /etc/subuid and /etc/subgid have a range for us
    Init {
        /// How many ids
        #[arg(long, value_name = "N", default_value_t = 268_435_456)]
        size: u32,
        /// The file that says which ids are for containers [default: /etc/login.defs]
        #[arg(long, value_name = "FILE", value_parser = absolute)]
        login_defs: Option<PathBuf>,
    },
    /// Print the id maps of a container; the same ones each time
    Allocate(Allocate),
    /// Give a container's ids back; one that has none is no error
    Release {
        /// Name of the container
        id: Handle,
    },
    /// Print who holds which ids, and the state of every registered container
    List,
    /// Print who on this host uses ids that are ours to give and given to nobody
    Verify,
    /// Make a container known, or a stopped one live again; print its maps, mounts and volumes
    Register(Box<Register>),
    /// Say what was not known at `register`
    Update {
        /// Name of the container
        id: Handle,
        #[command(flatten)]
        refs: References,
    },
    /// Write volumes back and give the upper layer its own owners, for a copy to be taken
    Pause {
        /// Name of the container
        id: Handle,
    },
    /// Undo `pause`
    Resume {
        /// Name of the container
        id: Handle,
    },
    /// Give up all mounts of a container that has ended; its ids and volumes are kept
    Unregister {
        /// Name of the container
        id: Handle,
        /// Write no volume back into the root filesystem
        #[arg(long)]
        no_sync: bool,
    },
    /// Take away all there is of a container; one that is not known is no error
    Remove {
        /// Name of the container
        id: Handle,
    },
    /// Print all that is known of a container
    Show {
        /// Name of the container
        id: Handle,
    },
    /// Sources that are mounted in containers
    Mount {
        #[command(subcommand)]
        verb: MountVerb,
    },
    /// Directories that containers keep
    Volume {
        #[command(subcommand)]
        verb: VolumeVerb,
    },
    /// Root filesystems made of layers
    Rootfs {
        #[command(subcommand)]
        verb: RootfsVerb,
    },
    /// Mount an id-mapped view of a source, here; with `call`, of what the server sees
    Attach(Attach),
    /// Change the owners of a tree for good, or back; it can be cut off and done again
    Shift(Shift),
    /// Finish or take back what was cut off; nothing that a container wrote is lost
    Recover,
    /// Remove volumes of unknown containers, and what `recover` has put aside
    Gc {
        /// Only what has not changed for so many seconds
        #[arg(long, value_name = "S", default_value_t = 3600)]
        older: u64,
    },
}

/// `mount`
#[derive(Debug, Clone, PartialEq, Eq, Subcommand, Serialize, Deserialize)]
pub(crate) enum MountVerb {
    /// Make a source ready for a container, and print the mount for its runtime
    Prepare(Box<mounts::Prepare>),
    /// Give mounts up; those that are not there are no error
    Release {
        /// Name of the container
        id: Handle,
        /// Where it was; may be given again [default: all of them]
        #[arg(long = "dst", value_name = "PATH")]
        destinations: Vec<PathBuf>,
    },
}

/// `volume`
#[derive(Debug, Clone, PartialEq, Eq, Subcommand, Serialize, Deserialize)]
pub(crate) enum VolumeVerb {
    /// Make a volume, begin it as what the image has there, and print its mount
    Create(Box<volume::Create>),
    /// Write a container's volumes back into its root filesystem
    Sync {
        /// Name of the container
        id: Handle,
    },
}

/// `rootfs`
#[derive(Debug, Clone, PartialEq, Eq, Subcommand, Serialize, Deserialize)]
pub(crate) enum RootfsVerb {
    /// Mount layers so that they belong to the container
    Prepare(Box<rootfs::Prepare>),
    /// Unmount them
    Release {
        /// Name of the container
        id: Handle,
    },
}

/// What to allocate.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
pub(crate) struct Allocate {
    /// Name of the container
    pub(crate) id: Handle,
    /// How the container's ids relate to those of others
    #[arg(long, value_enum, default_value_t = Policy::Maximus)]
    pub(crate) policy: Policy,
    /// Number of ids, rounded up to blocks of 65536 (exclusive, shared)
    #[arg(long, default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) size: u32,
    /// What to do when no block is free (exclusive)
    #[arg(long, value_enum, default_value_t = Exhausted::Fail)]
    pub(crate) exhausted: Exhausted,
    /// Pass over blocks that living user namespaces on this host use (exclusive, shared)
    #[arg(long)]
    pub(crate) verify: bool,
    #[command(flatten)]
    pub(crate) overrides: Overrides,
}

/// How the ids of containers relate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Policy {
    /// gdn's map: root is the host's highest id, every other id is itself
    Maximus,
    /// Blocks that no other container has
    Exclusive,
    /// One block for all containers of this policy
    Shared,
    /// The host's own ids
    Identity,
}

/// What to do when no block is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Exhausted {
    /// Refuse
    Fail,
    /// Share the block that the fewest containers have
    Reuse,
}

/// The second extent of gdn's map, under gdn's names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
pub(crate) struct Overrides {
    /// First host user behind container users from 1 on (maximus)
    #[arg(long, value_name = "ID", default_value_t = 1)]
    pub(crate) uid_map_start: u32,
    /// How many users; 0 is as many as there are (maximus)
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) uid_map_length: u32,
    /// First host group behind container groups from 1 on (maximus)
    #[arg(long, value_name = "ID", default_value_t = 1)]
    pub(crate) gid_map_start: u32,
    /// How many groups; 0 is as many as there are (maximus)
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) gid_map_length: u32,
}

impl Overrides {
    /// What gdn does without flags.
    pub(crate) fn gdn() -> Self {
        Self { uid_map_start: 1, gid_map_start: 1, ..Self::default() }
    }
}

impl Request {
    /// Does what is asked, and returns the answer.
    pub(crate) fn answer(&self, store: &Store) -> anyhow::Result<Value> {
        match self {
            Self::Probe { directories } => probe::probe(store, directories),
            Self::Init { size, login_defs } => subid::init(store, *size, login_defs.as_deref()),
            Self::Allocate(request) => allocate::allocate(store, request),
            Self::Release { id } => allocate::release(store, id),
            Self::List => allocate::list(store),
            Self::Verify => allocate::verify(store),
            Self::Register(request) => container::register(store, request),
            Self::Update { id, refs } => container::update(store, id, refs),
            Self::Pause { id } => container::pause(store, id),
            Self::Resume { id } => container::resume(store, id),
            Self::Unregister { id, no_sync } => container::unregister(store, id, *no_sync),
            Self::Remove { id } => container::remove(store, id),
            Self::Show { id } => show::show(store, id),
            Self::Mount { verb: MountVerb::Prepare(request) } => mounts::prepare(store, request),
            Self::Mount { verb: MountVerb::Release { id, destinations } } => {
                mounts::release_some(store, id, destinations)
            }
            Self::Volume { verb: VolumeVerb::Create(request) } => volume::create(store, request),
            Self::Volume { verb: VolumeVerb::Sync { id } } => volume::sync(store, id),
            Self::Rootfs { verb: RootfsVerb::Prepare(request) } => rootfs::prepare(store, request),
            Self::Rootfs { verb: RootfsVerb::Release { id } } => rootfs::release_one(store, id),
            Self::Attach(request) => request.attach(&request.open()?),
            Self::Shift(request) => reown::shift(store, request),
            Self::Recover => recover::recover(store),
            Self::Gc { older } => recover::gc(store, Duration::from_secs(*older)),
        }
    }
}

/// The server has another working directory than its callers.
pub(crate) fn absolute(text: &str) -> std::io::Result<PathBuf> {
    std::path::absolute(text)
}
