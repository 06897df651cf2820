//! Whether the server lives, and whether it could make a container now. Neither makes one.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use rustix::fs::{StatVfsMountFlags, statvfs};
use serde::Serialize;

use crate::cgroup::Cgroups;
use crate::guardian::Guardian;
use crate::host;
use crate::http::reply::Reply;

/// Controllers that every container has limits or counters in.
const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];

/// Descriptors that a create and some requests beside it need.
const SPARE_DESCRIPTORS: u64 = 64;

/// What the server needs to make a container, and whether it is there.
#[derive(Debug, Serialize)]
struct Check {
    name: String,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// The answer to a readiness request.
#[derive(Debug, Serialize)]
struct Readiness {
    ready: bool,
    checks: Vec<Check>,
}

/// Returns the answer of a server that lives. One whose locks are held for ever does not give it.
pub(crate) fn alive(guardian: &Guardian) -> Reply {
    Reply::text(200, format!("ok, {} containers\n", guardian.all().len()))
}

/// Returns the answer that says what is missing: 200 when nothing is, or else 503.
pub(crate) async fn ready(guardian: &Arc<Guardian>) -> Reply {
    let looking = Arc::clone(guardian);
    // A depot on a dead file server must not keep others waiting.
    let checks = tokio::task::spawn_blocking(move || checks(&looking)).await.unwrap_or_default();
    let ready = !checks.is_empty() && checks.iter().all(|check| check.ok);
    let status = if ready { 200 } else { 503 };
    Reply::json(&Readiness { ready, checks }).with_status(status)
}

fn checks(guardian: &Guardian) -> Vec<Check> {
    let settings = &guardian.settings;
    let programs = settings.programs();
    let programs = programs
        .iter()
        .map(|(name, path)| check(format!("program {name}"), host::program(path).map(drop)));
    let groups = Cgroups::own();
    let controllers = CONTROLLERS.map(|name| {
        let groups = groups.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"));
        let found = groups.and_then(|groups| controller(groups, name));
        check(format!("cgroup controller {name}"), found)
    });
    let depot = check("depot".into(), writable(settings.depot.path()));
    let descriptors = check("descriptors".into(), descriptors());
    programs.chain(controllers).chain([depot, descriptors]).collect()
}

fn check(name: String, result: anyhow::Result<()>) -> Check {
    let reason = result.err().map(|error| format!("{error:#}"));
    Check { name, ok: reason.is_none(), reason }
}

/// A create takes some for its programs, and two that stay.
fn descriptors() -> anyhow::Result<()> {
    let (open, most) = host::descriptors();
    ensure!(open + SPARE_DESCRIPTORS <= most, "{open} of {most} are open; raise LimitNOFILE");
    Ok(())
}

/// Version 2 says which controllers there are; version 1's have a directory each.
fn controller(groups: &Cgroups, name: &str) -> anyhow::Result<()> {
    let dir = groups.controller(name).with_context(|| format!("{name} is not mounted"))?;
    if groups.is_unified(name) {
        let list = std::fs::read_to_string(dir.join("cgroup.controllers"));
        let list = list.with_context(|| format!("read cgroup.controllers in {}", dir.display()))?;
        ensure!(list.split_whitespace().any(|one| one == name), "{} has no {name}", dir.display());
    }
    Ok(())
}

fn writable(depot: &Path) -> anyhow::Result<()> {
    let filesystem = statvfs(depot).with_context(|| format!("look at {}", depot.display()))?;
    let is_read_only = filesystem.f_flag.contains(StatVfsMountFlags::RDONLY);
    ensure!(!is_read_only, "{} is on a read-only filesystem", depot.display());
    ensure!(filesystem.f_bavail > 0, "no space left beside {}", depot.display());
    // Filesystems without a fixed number of inodes say 0 of 0.
    let has_inodes = filesystem.f_files == 0 || filesystem.f_favail > 0;
    ensure!(has_inodes, "no inodes left beside {}", depot.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_depot_that_is_not_there_is_named() {
        let error = writable(Path::new("/nowhere/depot")).unwrap_err();
        assert!(format!("{error:#}").contains("/nowhere/depot"));
        assert!(writable(tempfile::tempdir().unwrap().path()).is_ok());
    }
}
