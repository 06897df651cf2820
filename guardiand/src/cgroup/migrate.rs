//! Moving processes from one group to another (cgroups(7)).

use std::path::Path;

use anyhow::Context;
use nix::errno::Errno;

use super::own_pids;

/// How often a group is emptied before what is left is left: processes fork meanwhile.
const ROUNDS: usize = 8;

/// Moves the processes of a group itself, not of those below it.
///
/// # Errors
/// With the process and the reason.
pub(crate) fn migrate(from: &Path, to: &Path) -> anyhow::Result<()> {
    for _ in 0..ROUNDS {
        let pids = own_pids(from);
        if pids.is_empty() {
            return Ok(());
        }
        for pid in pids {
            match std::fs::write(to.join("cgroup.procs"), pid.to_string()) {
                // It has ended meanwhile.
                Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => {}
                moved => moved.with_context(|| format!("move {pid} to {}", to.display()))?,
            }
        }
    }
    Ok(())
}
