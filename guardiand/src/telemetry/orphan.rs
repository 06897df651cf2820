//! What is there without belonging to a container or pea: left by a program that was killed at the
//! wrong moment, or by somebody's hand.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use guardian_contract::depot::Handle;

use crate::cgroup::census;
use crate::guardian::Guardian;

/// Numbers of things without an owner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Orphans {
    /// Mounts of root filesystems and in the depot.
    pub(crate) mounts: usize,
    /// Control groups, one that is in several hierarchies counted once.
    pub(crate) cgroups: usize,
    /// Directories in the depot.
    pub(crate) depot_dirs: usize,
}

impl Guardian {
    /// Looks for what has no owner. Reads directories and the mount table, so it may block.
    pub(crate) fn orphans(&self) -> Orphans {
        let depot = &self.settings.depot;
        // Owners are looked at last: what is being made meanwhile has one by then.
        let groups = census::names(&self.settings.flags.listen.tag);
        let dirs = depot.handles().unwrap_or_default();
        let dirs: BTreeSet<String> = dirs.iter().map(Handle::to_string).collect();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut homes: Vec<PathBuf> = self.settings.images.stores();
        homes.iter_mut().for_each(|store| store.push("images"));
        homes.push(depot.path().to_owned());
        let mounted = mount_points(&mounts).filter_map(|point| owner(&homes, point));
        let mounted: Vec<&str> = mounted.collect();
        Orphans {
            mounts: mounted.into_iter().filter(|name| !self.is_owner(name)).count(),
            cgroups: groups.iter().filter(|name| !self.is_owner(name)).count(),
            depot_dirs: dirs.iter().filter(|name| self.find_any(name).is_err()).count(),
        }
    }

    /// Tells whether this is the name of a container, or of a process of one: a pea's things have
    /// its process id for a name.
    fn is_owner(&self, name: &str) -> bool {
        let Ok(handle) = name.parse::<Handle>() else { return false };
        self.find_any(name).is_ok()
            || self.all().iter().any(|container| container.bundle.process(&handle).path().exists())
    }
}

/// Returns the mount points of a mountinfo (proc_pid_mountinfo(5)). Names of ours have nothing in them
/// that would be escaped.
fn mount_points(mountinfo: &str) -> impl Iterator<Item = &str> {
    mountinfo.lines().filter_map(|line| line.split(' ').nth(4))
}

/// Returns the first name below one of these directories.
fn owner<'a>(homes: &[PathBuf], point: &'a str) -> Option<&'a str> {
    let below = homes.iter().find_map(|home| Path::new(point).strip_prefix(home).ok())?;
    below.components().next()?.as_os_str().to_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_known_by_the_directory_they_are_in() {
        let text = "36 35 0:30 / /s/images/web/rootfs rw - overlay overlay rw\n\
                    37 35 7:0 / /s/images rw - ext4 /dev/loop0 rw\n\
                    38 35 0:30 / /elsewhere rw - tmpfs tmpfs rw\n";
        let homes = [PathBuf::from("/s/images")];
        let owners: Vec<&str> = mount_points(text).filter_map(|p| owner(&homes, p)).collect();
        assert_eq!(owners, ["web"]);
    }
}
