//! A process that counts as running as long as anything runs in its cgroup: it and all its
//! descendants, also those that have left their parents.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use guardian_contract::process::ProcessDir;
use rustix::process::{Pid, Signal, kill_process};

/// Version 2's file, whose changes can be waited for (cgroups(7)): its first line is `populated 1`
/// or `populated 0`.
const EVENTS: &str = "cgroup.events";
/// What version 1 has: a list that must be looked at again and again.
const MEMBERS: &str = "cgroup.procs";
/// Version 2's file that kills all (Linux 5.14).
const KILL: &str = "cgroup.kill";

/// Writes down in the process directory which cgroup is the process's.
///
/// # Errors
/// When it can't be written.
pub(crate) fn record(dir: &ProcessDir, tree: &Path) -> anyhow::Result<()> {
    let path = dir.cgroup();
    fs::write(&path, tree.as_os_str().as_bytes())
        .with_context(|| format!("write {}", path.display()))
}

/// Returns the cgroup of a process that has one of its own.
///
/// # Errors
/// When the record can't be read.
pub(crate) fn recorded(dir: &ProcessDir) -> anyhow::Result<Option<PathBuf>> {
    match fs::read_to_string(dir.cgroup()) {
        Ok(text) => Ok(Some(text.into())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", dir.cgroup().display())),
    }
}

/// Opens the file that tells whether anything runs in a cgroup.
///
/// # Errors
/// With the path and the reason.
pub(crate) fn watch(tree: &Path) -> anyhow::Result<OwnedFd> {
    let events = File::open(tree.join(EVENTS));
    let file = events.or_else(|_| File::open(tree.join(MEMBERS)));
    file.map(OwnedFd::from).with_context(|| format!("watch cgroup {}", tree.display()))
}

/// Sends a signal to all processes of a cgroup. SIGKILL reaches those too that are started
/// meanwhile.
///
/// # Errors
/// When the cgroup can't be read.
pub(crate) fn signal(tree: &Path, signal: Signal) -> anyhow::Result<()> {
    if signal != Signal::KILL {
        for pid in members(tree)? {
            // One that has ended meanwhile needs none.
            let _ = kill_process(pid, signal);
        }
        return Ok(());
    }
    if fs::write(tree.join(KILL), "1").is_ok() {
        return Ok(());
    }
    // Version 1: until nobody new is found. A fork bomb is slower than this loop, for its members
    // die without having run again.
    let mut killed = BTreeSet::new();
    loop {
        let before = killed.len();
        for pid in members(tree)? {
            let _ = kill_process(pid, Signal::KILL);
            killed.insert(pid.as_raw_nonzero());
        }
        if killed.len() == before {
            return Ok(());
        }
    }
}

/// Lists the processes of a cgroup and of those below it.
fn members(tree: &Path) -> anyhow::Result<Vec<Pid>> {
    let path = tree.join(MEMBERS);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let mut pids: Vec<Pid> =
        text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect();
    for entry in fs::read_dir(tree).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            // One that is removed meanwhile has no members.
            pids.extend(members(&entry.path()).unwrap_or_default());
        }
    }
    Ok(pids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_is_found_again_and_most_have_none() {
        let directory = tempfile::tempdir().unwrap();
        let dir = ProcessDir::at(directory.path());
        assert_eq!(recorded(&dir).unwrap(), None);
        record(&dir, Path::new("/sys/fs/cgroup/x y")).unwrap();
        assert_eq!(recorded(&dir).unwrap().unwrap(), Path::new("/sys/fs/cgroup/x y"));
    }
}
