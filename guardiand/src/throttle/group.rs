//! Version 1: processes move between two groups of the processor's hierarchy, and stay where they are
//! in all others.

use std::path::{Path, PathBuf};

use anyhow::Context;
use guardian_contract::depot::{BAD, GOOD};
use guardian_contract::log;
use serde_json::json;

use super::{Seen, halves};
use crate::cgroup::limit::{number, write};
use crate::cgroup::migrate::migrate;
use crate::cgroup::{Cgroups, children, own_pids, parent_name, twin};
use crate::container::Container;

const SHARES: &str = "cpu.shares";

/// What a container's group says that its other one must say too. A cpuset is among it only where
/// somebody has mounted it together with the processor.
const LIMITS: [&str; 5] =
    ["cpuset.cpus", "cpuset.mems", SHARES, "cpu.cfs_period_us", "cpu.cfs_quota_us"];

/// Makes both groups.
pub(super) fn make(tag: &str) -> anyhow::Result<()> {
    let parent = root()?.join(parent_name(tag));
    for half in [GOOD, BAD] {
        let dir = parent.join(half);
        std::fs::create_dir_all(&dir).with_context(|| format!("make cgroup {}", dir.display()))?;
    }
    Ok(())
}

/// Puts every container where it belongs, and gives both groups their shares.
pub(super) fn balance(tag: &str, seen: &[Seen], multiplier: f64) -> anyhow::Result<()> {
    let mut bad_shares = 0;
    for one in seen {
        let Some(places) = places(&one.container)? else { continue };
        let moved = match one.is_bad() {
            true => places.punish(),
            false => places.release(),
        };
        if let Err(error) = moved {
            let handle = one.container.handle().as_str();
            log::error("throttle.move", &json!({"handle": handle, "error": format!("{error:#}")}));
        }
        if places.is_bad() {
            bad_shares += number(&places.bad, SHARES)?;
        }
    }
    let parent = root()?.join(parent_name(tag));
    let (good, bad) = halves(bad_shares, multiplier);
    write(&parent.join(GOOD), SHARES, &good.to_string())?;
    write(&parent.join(BAD), SHARES, &bad.to_string())
}

/// Moves a new process of a bad container to the others.
pub(super) fn follow(container: &Container) -> anyhow::Result<()> {
    match places(container)? {
        Some(places) if places.is_bad() => places.punish(),
        _ => Ok(()),
    }
}

/// Moves a bad container back.
pub(super) fn release(container: &Container) -> anyhow::Result<()> {
    places(container)?.map_or(Ok(()), |places| places.release())
}

/// The two groups of a container.
struct Places {
    good: PathBuf,
    bad: PathBuf,
}

/// Finds them; a container that was made without throttling has none.
fn places(container: &Container) -> anyhow::Result<Option<Places>> {
    let home = container.facts()?.cgroup.clone();
    let Some((home, twin)) = home.and_then(|home| twin::of(&home).map(|twin| (home, twin))) else {
        return Ok(None);
    };
    let root = root()?;
    let below = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    Ok(Some(Places { good: below(&home), bad: below(&twin) }))
}

impl Places {
    fn is_bad(&self) -> bool {
        !own_pids(&self.bad).is_empty()
    }

    fn punish(&self) -> anyhow::Result<()> {
        carry(&self.good, &self.bad, true)
    }

    fn release(&self) -> anyhow::Result<()> {
        match self.bad.is_dir() {
            true => carry(&self.bad, &self.good, false),
            false => Ok(()),
        }
    }
}

/// Moves all processes of a group and those below it, to groups of the same names.
fn carry(from: &Path, to: &Path, copies_limits: bool) -> anyhow::Result<()> {
    let pids = own_pids(from);
    if !pids.is_empty() {
        std::fs::create_dir_all(to).with_context(|| format!("make cgroup {}", to.display()))?;
        if copies_limits {
            LIMITS.iter().try_for_each(|file| copy(from, to, file))?;
        }
        migrate(from, to)?;
    }
    children(from).iter().try_for_each(|child| match child.file_name() {
        Some(name) => carry(child, &to.join(name), copies_limits),
        None => Ok(()),
    })
}

fn copy(from: &Path, to: &Path, file: &str) -> anyhow::Result<()> {
    match std::fs::read_to_string(from.join(file)) {
        Ok(value) => write(to, file, value.trim()),
        // Not in this hierarchy, or not in this kernel.
        Err(_) => Ok(()),
    }
}

fn root() -> anyhow::Result<PathBuf> {
    let root = Cgroups::named(Path::new("/"))?.controller("cpu");
    root.context("this host has no cpu hierarchy")
}
