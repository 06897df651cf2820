//! The host's cgroup tree as it was before a server ran.
//!
//! A server mounts version 1 hierarchies that the host has not mounted, as gdn does, and makes a
//! parent group for its containers. Other servers may come to use both, so no server takes them
//! away; whoever ran one just to show or test something does.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";

/// Hierarchies and our parent groups, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchies {
    mounts: BTreeSet<PathBuf>,
    parents: BTreeSet<PathBuf>,
}

impl Hierarchies {
    /// Returns what is there now.
    pub fn now() -> Self {
        let text = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let points = text.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
        let mounts = points.filter(|point| point.starts_with(ROOT)).collect();
        let tops = directories(Path::new(ROOT));
        let parents = tops.iter().flat_map(|top| directories(top)).filter(|path| is_parent(path));
        Self { mounts, parents: parents.collect() }
    }

    /// Takes away what has been added since, unless somebody uses it, and returns what is left.
    pub fn restore(&self) -> Vec<String> {
        let now = Self::now();
        for parent in now.parents.difference(&self.parents) {
            let _ = fs::remove_dir(parent);
        }
        for mount in now.mounts.difference(&self.mounts) {
            let _ = crate::host::run(&["umount", &mount.display().to_string()]);
            let _ = fs::remove_dir(mount);
        }
        let left = Self::now();
        let mounts = left.mounts.difference(&self.mounts);
        let parents = left.parents.difference(&self.parents);
        mounts.chain(parents).map(|path| format!("cgroup {}", path.display())).collect()
    }
}

/// A server's parent group is `garden`, or `garden-` and its tag.
fn is_parent(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name == "garden" || name.starts_with("garden-")
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir() && !path.is_symlink()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_told_by_their_name() {
        assert!(is_parent(Path::new("/sys/fs/cgroup/pids/garden")));
        assert!(is_parent(Path::new("/sys/fs/cgroup/pids/garden-a")));
        assert!(!is_parent(Path::new("/sys/fs/cgroup/pids/gardener")));
    }
}
