//! Version 1 hierarchies that nobody has mounted yet, mounted as gdn's set-up does.
//!
//! A controller without a hierarchy of its own belongs to version 2's; crun then refuses hybrid
//! hosts, and containers lack what their clients look for under /sys/fs/cgroup. Hosts with pure
//! version 2 need nothing: runtimes enable controllers where they want them.

use std::path::Path;

use anyhow::Context;
use guardian_contract::log;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use rustix::fs::statfs;
use serde_json::json;

use super::ROOT;

/// statfs(2): the type of a tmpfs, which is what holds version 1's hierarchies.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Mounts what is missing. Does it once; a second call finds nothing to do.
///
/// # Errors
/// When a controller can't be mounted although nobody else holds it.
pub(crate) fn mount_missing() -> anyhow::Result<()> {
    let kind = statfs(ROOT).with_context(|| format!("look at {ROOT}"))?.f_type;
    if kind.cast_unsigned() != TMPFS_MAGIC {
        return Ok(());
    }
    let controllers = std::fs::read_to_string("/proc/cgroups").context("read /proc/cgroups")?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    for controller in missing(&controllers, &mounts) {
        mount_one(controller)?;
    }
    Ok(())
}

fn mount_one(controller: &str) -> anyhow::Result<()> {
    let dir = Path::new(ROOT).join(controller);
    let context = || format!("mount the {controller} cgroup hierarchy on {}", dir.display());
    match std::fs::create_dir(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(context);
        }
        _ => {}
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    match mount(Some("cgroup"), &dir, Some("cgroup"), flags, Some(controller)) {
        Ok(()) => {
            log::info("cgroups.mounted", &json!({"controller": controller}));
            Ok(())
        }
        // In use by version 2, or compiled out: containers do without it.
        Err(Errno::EBUSY | Errno::EINVAL | Errno::ENOENT) => {
            let _ = std::fs::remove_dir(&dir);
            Ok(())
        }
        Err(error) => Err(error).with_context(context),
    }
}

/// Returns the enabled controllers of /proc/cgroups (cgroups(7)) that no version 1 mount has.
fn missing<'a>(controllers: &'a str, mounts: &str) -> Vec<&'a str> {
    let is_mounted = |controller: &str| {
        mounts.lines().any(|line| {
            let mut fields = line.split(' ');
            let (kind, options) = (fields.nth(2), fields.next());
            kind == Some("cgroup") && options.is_some_and(|o| o.split(',').any(|o| o == controller))
        })
    };
    let enabled = controllers.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut fields = line.split_whitespace();
        let (name, enabled) = (fields.next()?, fields.nth(2)?);
        (enabled == "1").then_some(name)
    });
    enabled.filter(|name| !is_mounted(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_enabled_controllers_without_a_mount_are_missing() {
        let controllers = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n\
            cpu\t1\t5\t1\ncpuacct\t1\t5\t1\nhugetlb\t0\t4\t1\nrdma\t0\t1\t0\n";
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw,mode=755 0 0\n\
            cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw,hugetlb 0 0\n";
        assert_eq!(missing(controllers, mounts), ["hugetlb"]);
    }
}
