//! A group of its own for one process of a container and its descendants, below the container's, so
//! that they can be awaited, killed and measured alone.

use std::path::{Path, PathBuf};

use anyhow::Context;
use guardian_contract::depot::Handle;
use guardian_contract::log;
use serde_json::json;

use super::{Cgroups, ROOT, hierarchies_mounted, is_hierarchy, remove_tree, room};

/// What a new version 1 cpuset must be given before it takes a process (cpuset(7)).
const CPUSET: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// Makes room for a group below the container's, which somebody else makes.
///
/// # Errors
/// With the path and the reason.
pub(crate) fn make_room(home: &Path) -> anyhow::Result<()> {
    of(home).iter().try_for_each(|group| room::make(group))
}

/// Makes the group in every hierarchy in which the container has one. Returns the directory in
/// which its emptiness shows.
///
/// # Errors
/// With the path and the reason; nothing is left then.
pub(crate) fn make(home: &Path, process_id: &Handle) -> anyhow::Result<PathBuf> {
    for group in of(home) {
        if let Err(error) = make_in(&group, process_id) {
            remove(home, process_id);
            return Err(error);
        }
    }
    Ok(watched(&home.join(process_id.as_str())))
}

fn make_in(group: &Path, process_id: &Handle) -> anyhow::Result<()> {
    room::make(group)?;
    let leaf = group.join(process_id.as_str());
    std::fs::create_dir(&leaf).with_context(|| format!("make cgroup {}", leaf.display()))?;
    for file in CPUSET {
        // A version 2 leaf has no such file: limits stay the container's there.
        if leaf.join(file).exists() {
            let value = std::fs::read(group.join(file)).context("read the container's cpuset")?;
            let told = || format!("set {file} of {}", leaf.display());
            std::fs::write(leaf.join(file), value).with_context(told)?;
        }
    }
    Ok(())
}

/// Removes the group. What fails is logged: the container's end removes it too.
pub(crate) fn remove(home: &Path, process_id: &Handle) {
    let twin = super::twin::of(home);
    for group in of(home).into_iter().chain(twin.iter().flat_map(|twin| of(twin))) {
        if let Err(error) = remove_tree(&group.join(process_id.as_str())) {
            log::error("remove-cgroup", &json!({"error": format!("{error:#}")}));
        }
    }
}

/// Returns the directory in which the emptiness of a group shows, given its path below a hierarchy:
/// version 2's where there is one, which wakes those who wait, or else that of the controller
/// that is there for counting processes.
pub(crate) fn watched(below: &Path) -> PathBuf {
    let below = below.strip_prefix("/").unwrap_or(below);
    let root = Path::new(ROOT);
    let version_2 = [root.join("unified"), root.to_owned()];
    let version_2 = version_2.into_iter().find(|dir| dir.join("cgroup.controllers").exists());
    version_2.filter(|dir| is_hierarchy(dir)).unwrap_or_else(|| root.join("pids")).join(below)
}

/// Returns a process's groups in all hierarchies, given the one that is watched. Its pid does not
/// lead there once the process itself has ended, and only its descendants run.
///
/// # Errors
/// When they are not to be found.
pub(crate) fn groups(watched: &Path) -> anyhow::Result<Cgroups> {
    let roots = [Path::new(ROOT).join("unified"), Path::new(ROOT).join("pids"), ROOT.into()];
    let below = roots.iter().find_map(|root| watched.strip_prefix(root).ok());
    Cgroups::named(below.with_context(|| format!("{} is no cgroup", watched.display()))?)
}

/// The container's group in each hierarchy that has it; `home` is its path there.
fn of(home: &Path) -> Vec<PathBuf> {
    let below = home.strip_prefix("/").unwrap_or(home);
    let groups = hierarchies_mounted().into_iter().map(|root| root.join(below));
    groups.filter(|group| group.is_dir()).collect()
}
