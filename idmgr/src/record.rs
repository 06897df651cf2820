//! What is known of one container, as it is on disk.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use guardian_contract::depot::{Handle, Init, boot_id};
use guardian_contract::ids::IdMaps;
use serde::{Deserialize, Serialize};

/// Where in its life a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// Its mounts can be prepared; it runs, or is about to.
    Live,
    /// It runs and does nothing; what it wrote is in order on disk.
    Paused,
    /// It does not run. Its ids and volumes are kept.
    Stopped,
}

/// What was begun with a container as a whole and not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unfinished {
    /// Cut off, it is taken back.
    Register,
    /// Cut off, it is finished.
    Unregister,
    /// Cut off, it is finished.
    Remove,
}

/// The document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) state: State,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unfinished: Option<Unfinished>,
    /// The boot in which its mounts were made.
    pub(crate) boot_id: String,
    /// A process whose end is the container's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) process: Option<Init>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rootfs: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) userns: Option<Namespace>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) netns: Option<Namespace>,
    pub(crate) maps: IdMaps,
    /// Whose user namespace it shares, because it shares that one's network namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) shares_with: Option<Handle>,
    /// It will not be started again, so nothing is kept in its root filesystem.
    #[serde(default)]
    pub(crate) auto_remove: bool,
    #[serde(default)]
    pub(crate) mounts: Vec<Mount>,
    #[serde(default)]
    pub(crate) volumes: Vec<Volume>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) overlay: Option<Overlay>,
}

/// A namespace: where it was found, and which one it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Namespace {
    pub(crate) path: PathBuf,
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl Namespace {
    /// Looks at a namespace.
    ///
    /// # Errors
    /// With the path and the reason.
    pub(crate) fn at(path: &Path) -> anyhow::Result<Self> {
        let stat = std::fs::metadata(path)
            .with_context(|| format!("look at namespace {}", path.display()))?;
        Ok(Self { path: path.into(), device: stat.dev(), inode: stat.ino() })
    }

    /// Tells whether both are the same namespace, wherever they were found.
    pub(crate) fn is(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// How the ids on a filesystem become the container's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Strategy {
    /// Not at all: they are already, or it can't be done.
    None,
    /// By an id-mapped mount: nothing changes on disk.
    Idmap,
    /// By changing the owners on disk, and back.
    Chown,
}

/// A source prepared for a container. The destination names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mount {
    pub(crate) destination: PathBuf,
    pub(crate) source: PathBuf,
    /// The source's entry ([`crate::source`]).
    pub(crate) key: String,
    /// What the runtime is to mount.
    pub(crate) shown: PathBuf,
    pub(crate) strategy: Strategy,
    pub(crate) exclusive: bool,
    pub(crate) recursive: bool,
    pub(crate) read_only: bool,
    /// Ids on disk that are the container's root.
    pub(crate) base: (u32, u32),
    /// Whether all of it was done.
    pub(crate) ready: bool,
}

/// A directory of ours that a container keeps while it is stopped. The destination names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Volume {
    pub(crate) destination: PathBuf,
    pub(crate) kind: String,
    /// Whether it is written back into the root filesystem.
    pub(crate) sync: bool,
}

/// An overlay mounted as root filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Overlay {
    pub(crate) target: PathBuf,
    pub(crate) lower: Vec<PathBuf>,
    pub(crate) upper: PathBuf,
    pub(crate) work: PathBuf,
    /// The upper layer's entry ([`crate::source`]).
    pub(crate) key: String,
    pub(crate) way: crate::overlay::Way,
    /// Whether all of it was done.
    pub(crate) ready: bool,
}

impl Record {
    /// Tells whether whatever the container had mounted is gone, with its processes.
    pub(crate) fn is_of_another_boot(&self) -> bool {
        self.boot_id != boot_id()
    }

    /// Tells whether the container has ended without a word.
    pub(crate) fn has_died(&self) -> bool {
        let ended = self.process.as_ref().is_some_and(|process| !process.is_alive());
        self.state != State::Stopped && (ended || self.is_of_another_boot())
    }
}
