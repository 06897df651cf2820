//! The verbs, whether typed at a shell or sent to the server.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use guardian_contract::depot::Handle;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::store::Store;
use crate::{allocate, probe};

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
    /// Print the id maps of a container; the same ones each time
    Allocate(Allocate),
    /// Give a container's ids back; one that has none is no error
    Release {
        /// Name of the container
        id: Handle,
    },
    /// Print who holds which ids
    List,
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

impl Request {
    /// Does what is asked, and returns the answer.
    pub(crate) fn answer(&self, store: &Store) -> anyhow::Result<Value> {
        match self {
            Self::Probe { directories } => probe::probe(store, directories),
            Self::Allocate(request) => allocate::allocate(store, request),
            Self::Release { id } => allocate::release(store, id),
            Self::List => allocate::list(store),
        }
    }
}

/// The server has another working directory than its callers.
fn absolute(text: &str) -> std::io::Result<PathBuf> {
    std::path::absolute(text)
}
