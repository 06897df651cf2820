//! Control groups of containers: found, read, emptied of directories. cgroups(7).

pub(crate) mod block_io;
pub(crate) mod census;
pub(crate) mod hierarchies;
pub(crate) mod leaf;
pub(crate) mod limit;
pub(crate) mod migrate;
mod room;
pub(crate) mod twin;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use guardian_contract::depot::{BAD, GOOD, Handle};

const ROOT: &str = "/sys/fs/cgroup";

/// The control groups one process is in.
#[derive(Debug)]
pub(crate) struct Cgroups(Vec<(String, PathBuf)>);

impl Cgroups {
    /// Reads the groups of `pid`. For a container's own process these are the container's.
    ///
    /// # Errors
    /// When the process is gone.
    pub(crate) fn of(pid: i32) -> anyhow::Result<Self> {
        Ok(Self(parse(&text(Path::new(&format!("/proc/{pid}/cgroup")))?)))
    }

    /// Reads our own groups.
    ///
    /// # Errors
    /// When /proc is not there.
    pub(crate) fn own() -> anyhow::Result<Self> {
        Self::of(i32::try_from(std::process::id())?)
    }

    /// Returns the groups of one name in all hierarchies; `below` is their path there.
    ///
    /// # Errors
    /// When it is not known which hierarchies there are.
    pub(crate) fn named(below: &Path) -> anyhow::Result<Self> {
        let mut groups = Self::own()?;
        groups.0.iter_mut().for_each(|(_, path)| *path = below.to_owned());
        Ok(groups)
    }

    /// Returns the directory of a controller: version 1's where it is there, else version 2's.
    pub(crate) fn controller(&self, name: &str) -> Option<PathBuf> {
        let (names, path) = self.line(name)?;
        let below = path.strip_prefix("/").unwrap_or(path);
        let mounts: Vec<PathBuf> = match names.as_str() {
            "" => vec![ROOT.into(), Path::new(ROOT).join("unified")],
            names => [names, name].map(|dir| Path::new(ROOT).join(dir)).into(),
        };
        mounts.into_iter().map(|mount| mount.join(below)).find(|dir| dir.is_dir())
    }

    fn line(&self, name: &str) -> Option<&(String, PathBuf)> {
        let named = self.0.iter().find(|(names, _)| names.split(',').any(|one| one == name));
        named.or_else(|| self.0.iter().find(|(names, _)| names.is_empty()))
    }

    /// Returns the path of a controller's group below the root of its hierarchy.
    pub(crate) fn path(&self, name: &str) -> Option<&Path> {
        self.line(name).map(|(_, path)| path.as_path())
    }

    /// Returns the other places of a throttled container's groups, where they have one.
    pub(crate) fn twins(&self) -> Self {
        let twin = |(names, path): &(String, PathBuf)| Some((names.clone(), twin::of(path)?));
        Self(self.0.iter().filter_map(twin).collect())
    }

    /// Tells whether a controller is on version 2.
    pub(crate) fn is_unified(&self, name: &str) -> bool {
        !self.0.iter().any(|(names, _)| names.split(',').any(|one| one == name))
    }
}

/// Reads a file that the kernel makes up as it is read. Its size is told as 0, so asking for that would
/// be in vain, and the usual way begins with a few bytes: with thousands of them that is time.
///
/// # Errors
/// With the path and the reason.
pub(crate) fn text(path: &Path) -> anyhow::Result<String> {
    const USUAL: usize = 4096;
    const MOST: u64 = 1 << 20;
    let mut text = String::with_capacity(USUAL);
    let file = File::open(path).with_context(|| format!("read {}", path.display()))?;
    let read = file.take(MOST).read_to_string(&mut text);
    read.with_context(|| format!("read {}", path.display())).map(|_| text)
}

/// `hierarchy:controllers:path` lines; version 2 has no controllers.
fn parse(text: &str) -> Vec<(String, PathBuf)> {
    let lines = text.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some((fields.next()?.to_owned(), room::home(fields.next()?.into())))
    });
    lines.collect()
}

/// Returns the processes in a group itself.
pub(crate) fn own_pids(dir: &Path) -> BTreeSet<i32> {
    let text = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Returns all processes in a group and below it.
pub(crate) fn pids(dir: &Path) -> BTreeSet<i32> {
    let mut pids = own_pids(dir);
    for child in children(dir) {
        pids.extend(self::pids(&child));
    }
    pids
}

/// Removes what a runtime left of a container's groups. Groups with processes stay: an error.
///
/// # Errors
/// With the path and the reason.
pub(crate) fn remove(tag: &str, handle: &Handle) -> anyhow::Result<()> {
    for parent in parents(tag) {
        let halves = [GOOD, BAD].map(|half| parent.join(half));
        let group = parent.join(handle.as_str());
        // A container of that name must not take all that are throttled with it.
        let group = Some(group).filter(|group| !halves.contains(group));
        for dir in halves.iter().map(|half| half.join(handle.as_str())).chain(group) {
            remove_tree(&dir)?;
        }
    }
    Ok(())
}

/// Removes the group that holds all containers' groups, where it is empty.
pub(crate) fn remove_parents(tag: &str) {
    for parent in parents(tag) {
        for dir in [parent.join(GOOD), parent.join(BAD), parent] {
            let _ = std::fs::remove_dir(dir);
        }
    }
}

pub(crate) fn parent_name(tag: &str) -> String {
    if tag.is_empty() { "garden".into() } else { format!("garden-{tag}") }
}

/// The group of all our containers in every hierarchy that has one.
fn parents(tag: &str) -> Vec<PathBuf> {
    let name = parent_name(tag);
    let groups = hierarchies_mounted().into_iter().map(|root| root.join(&name));
    groups.filter(|dir| dir.is_dir()).collect()
}

/// The roots of all hierarchies there are.
fn hierarchies_mounted() -> Vec<PathBuf> {
    let mut roots = children(Path::new(ROOT));
    roots.push(ROOT.into());
    roots.retain(|root| is_hierarchy(root));
    roots
}

/// Tells a mounted hierarchy from a plain directory of its name, which a runtime may have made
/// where the hierarchy is mounted in somebody else's mount namespace only (statfs(2)).
fn is_hierarchy(dir: &Path) -> bool {
    const CGROUP: u64 = 0x0027_e0eb;
    const CGROUP2: u64 = 0x6367_7270;
    let kind = rustix::fs::statfs(dir).map(|stat| stat.f_type.cast_unsigned());
    kind == Ok(CGROUP) || kind == Ok(CGROUP2)
}

fn remove_tree(dir: &Path) -> anyhow::Result<()> {
    for child in children(dir) {
        remove_tree(&child)?;
    }
    match std::fs::remove_dir(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

pub(crate) fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    dirs.map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_proc_cgroup_are_understood() {
        let parsed = parse("9:name=systemd:/x\n2:cpu,cpuacct:/garden/h\n0::/garden/h\n");
        assert_eq!(parsed[1], ("cpu,cpuacct".into(), "/garden/h".into()));
        let groups = Cgroups(parsed);
        assert!(!groups.is_unified("cpuacct"));
        assert!(groups.is_unified("memory"));
    }
}
