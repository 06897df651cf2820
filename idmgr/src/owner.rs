//! Acting as a container's root towards the filesystem, for the length of one call.

use anyhow::{Context, ensure};
use guardian_contract::fault::Fault;
use guardian_contract::ids::{IdMapping, IdMaps, host_id};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::thread::{capabilities, set_capabilities};

/// Returns the host's user and group behind root of a container.
///
/// # Errors
/// `Invalid` when a map leaves root out.
pub(crate) fn root_of(maps: &IdMaps) -> Result<(u32, u32), Fault> {
    let has_root = |map: &[IdMapping]| map.iter().any(|one| one.container_id == 0);
    match has_root(&maps.uid) && has_root(&maps.gid) {
        true => Ok((host_id(&maps.uid, 0), host_id(&maps.gid, 0))),
        false => Err(Fault::invalid("the id maps leave out id 0")),
    }
}

/// Runs `action` with the filesystem ids of `owner` and all our capabilities, in this thread.
///
/// Where owners are mapped, the host's root has no id on disk, so it can make nothing there
/// (`EOVERFLOW`); the container's root can. Leaving file id 0 drops the capabilities that go with
/// files (capabilities(7)), so they are raised again.
///
/// # Errors
/// The action's, or the kernel's.
pub(crate) fn acting_as<T>(
    (uid, gid): (u32, u32),
    action: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let before = capabilities(None).context("read own capabilities")?;
    let (old_gid, old_uid) = (setfsgid(Gid::from_raw(gid)), setfsuid(Uid::from_raw(uid)));
    let result = set_capabilities(None, before).context("keep own capabilities").and_then(|()| {
        // setfsuid(2) tells of a failure only by the id that stands afterwards.
        ensure!(setfsuid(Uid::from_raw(uid)).as_raw() == uid, "can't act as user {uid}");
        action()
    });
    setfsgid(old_gid);
    setfsuid(old_uid);
    set_capabilities(None, before).context("restore own capabilities")?;
    result
}
