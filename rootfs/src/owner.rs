//! Acting as a container's root towards the filesystem, for the length of one call.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use guardian_contract::fault::Fault;
use guardian_contract::ids::{IdMaps, host_id};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::thread::{capabilities, set_capabilities};

/// A user and group on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Owner {
    /// Returns who stands behind root of a container with these maps; without maps it is root.
    ///
    /// # Errors
    /// When a map leaves root out.
    pub(crate) fn root_of(maps: &IdMaps) -> anyhow::Result<Self> {
        if maps.uid.is_empty() && maps.gid.is_empty() {
            return Ok(Self { uid: 0, gid: 0 });
        }
        let maps_root = |map: &[guardian_contract::ids::IdMapping]| {
            map.iter().any(|extent| extent.container_id == 0)
        };
        if !maps_root(&maps.uid) || !maps_root(&maps.gid) {
            return Err(Fault::invalid("the id mappings must map id 0 of users and groups").into());
        }
        Ok(Self { uid: host_id(&maps.uid, 0), gid: host_id(&maps.gid, 0) })
    }
}

/// Runs `action` with the filesystem ids of `owner` and all our capabilities.
///
/// An overlay keeps the credentials of its mounter for everything it does in upper and work. Our
/// own root has no id in the container's map, so with it the kernel could own nothing there
/// (`EOVERFLOW`); the container's root can. Changing the fsuid drops the file capabilities from
/// the effective set (capabilities(7)), so they are raised again.
pub(crate) fn acting_as<T>(
    owner: Owner,
    action: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let before = capabilities(None).context("read capabilities")?;
    let uid = setfsuid(Uid::from_raw(owner.uid));
    let gid = setfsgid(Gid::from_raw(owner.gid));
    let result = set_capabilities(None, before).context("raise capabilities").and_then(|()| {
        // setfsuid(2) tells of a failure only by the id that stands afterwards.
        let now = setfsuid(Uid::from_raw(owner.uid)).as_raw();
        if now == owner.uid { action() } else { Err(anyhow!("can't act as user {}", owner.uid)) }
    });
    setfsgid(gid);
    setfsuid(uid);
    set_capabilities(None, before).context("restore capabilities")?;
    result
}

/// Returns the path under which an open descriptor can be named to calls that take paths only.
pub(crate) fn descriptor_path(descriptor: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
}
