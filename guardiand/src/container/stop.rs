//! Stopping a container: everything in it but init is told to end, then made to.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::Container;
use super::properties::STOPPED;
use crate::cgroup::{self, Cgroups};

/// How long processes have to end by themselves, and how long they are killed for: Garden's ten
/// rounds of a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often they are told again.
const ROUND: Duration = Duration::from_secs(1);

/// How often it is looked whether any are left: ends of processes that are not our children can't
/// be waited for together, and this goes on for ten seconds at most.
const LOOK: Duration = Duration::from_millis(25);

/// Ends all processes of a container but its first: politely unless `kill`, then by force.
///
/// # Errors
/// When the container does not run.
pub(crate) async fn stop(container: &Container, kill: bool) -> anyhow::Result<()> {
    let init = container.init().context("stop: pid not found for container")?;
    let groups = Cgroups::of(init.pid)?;
    // Every hierarchy lists the same processes; "pids" or "devices" is always there on version 1.
    let group = groups.controller("pids").or_else(|| groups.controller("devices"));
    let group = group.context("stop: container has no control group")?;
    let others = || {
        let mut pids = cgroup::pids(&group);
        pids.remove(&init.pid);
        pids
    };
    let is_empty = match kill {
        true => false,
        false => round(&others, Signal::TERM).await,
    };
    if !is_empty {
        round(&others, Signal::KILL).await;
    }
    container.properties.change(|map| drop(map.insert(STOPPED.into(), "stopped".into())))
}

/// Sends `signal` once a second until nobody is left; `false` when some are after all.
async fn round(others: &impl Fn() -> std::collections::BTreeSet<i32>, signal: Signal) -> bool {
    let begun = Instant::now();
    let mut next_round = begun;
    loop {
        let left = others();
        if left.is_empty() {
            return true;
        }
        if begun.elapsed() >= PATIENCE {
            return false;
        }
        if Instant::now() >= next_round {
            next_round += ROUND;
            let held: Vec<(i32, OwnedFd)> = left.into_iter().filter_map(hold).collect();
            // Listed again after the pidfds are open: who is still in the group is who was meant.
            let still = others();
            for (_, pidfd) in held.iter().filter(|(pid, _)| still.contains(pid)) {
                let _ = pidfd_send_signal(pidfd, signal);
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn hold(pid: i32) -> Option<(i32, OwnedFd)> {
    Some((pid, pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?))
}
