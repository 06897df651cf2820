//! Throttled processor time: a container that has used more than it is entitled to gets no more than
//! that, as long as others want the processors (decision 8).
//!
//! On cgroup version 1 such a container is moved, in the processor's hierarchy alone, from the group
//! `good` to the group `bad`. On version 2 its own weight is lowered where it is. Either way all other
//! limits stay where they are. Nothing of this runs unless the operator wants it.

mod group;
mod weight;

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use guardian_contract::log;
use serde_json::json;

use crate::cgroup::Cgroups;
use crate::cli;
use crate::container::entitlement::{default_percent_per_share, total_shares};
use crate::container::{Container, Phase, metrics};
use crate::guardian::Guardian;

/// One container at one look.
#[derive(Debug, Clone)]
struct Seen {
    container: Arc<Container>,
    /// Nanoseconds of processor time since it was made.
    used: u64,
    /// Nanoseconds it may have used.
    entitled: u64,
}

impl Seen {
    fn is_bad(&self) -> bool {
        self.used > self.entitled
    }
}

/// Refuses flags that can't be followed.
///
/// # Errors
/// In gdn's words.
pub(crate) fn check(flags: &cli::Throttling) -> anyhow::Result<()> {
    let is_wrong = flags.enable_cpu_throttling && flags.cpu_throttling_check_interval == 0;
    ensure!(!is_wrong, "non-positive CPU throttling checking interval");
    Ok(())
}

/// Makes the groups that containers are made in and moved to.
///
/// # Errors
/// With the directory and the reason.
pub(crate) fn set_up(tag: &str) -> anyhow::Result<()> {
    match is_unified()? {
        true => Ok(()),
        false => group::make(tag),
    }
}

/// Looks at all containers from time to time, for as long as the server runs. A server that is not to
/// throttle takes back what one before it has done, once.
///
/// # Errors
/// When the groups can't be made.
pub(crate) fn start(guardian: &Arc<Guardian>) -> anyhow::Result<()> {
    let flags = &guardian.settings.flags.throttling;
    if !flags.enable_cpu_throttling {
        let guardian = Arc::clone(guardian);
        tokio::task::spawn_blocking(move || guardian.release_all());
        return Ok(());
    }
    set_up(&guardian.settings.flags.listen.tag)?;
    let pause = Duration::from_secs(flags.cpu_throttling_check_interval.into());
    let guardian = Arc::clone(guardian);
    tokio::spawn(async move {
        let mut before = weight::Uses::default();
        loop {
            tokio::time::sleep(pause).await;
            let looking = Arc::clone(&guardian);
            let looked = tokio::task::spawn_blocking(move || looking.throttle(&before)).await;
            match looked {
                Ok(uses) => before = uses,
                Err(error) => return log::error("throttle", &json!({"error": error.to_string()})),
            }
        }
    });
    Ok(())
}

impl Guardian {
    /// Looks once. Returns what each container has used, for the next look.
    fn throttle(&self, before: &weight::Uses) -> weight::Uses {
        let seen = self.see();
        let multiplier = self.percent_per_share() / default_percent_per_share();
        let done = match is_unified() {
            Ok(true) => weight::balance(&seen, before, multiplier),
            Ok(false) => group::balance(&self.settings.flags.listen.tag, &seen, multiplier),
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            log::error("throttle", &json!({"error": format!("{error:#}")}));
        }
        seen.iter().map(|one| (one.container.handle().clone(), one.used)).collect()
    }

    /// Those that can't be measured are just dying, or still being made.
    fn see(&self) -> Vec<Seen> {
        let live = self.all().into_iter().filter(|container| container.phase() == Phase::Live);
        let see = |container: Arc<Container>| {
            let groups = Cgroups::of(container.init().ok()?.pid).ok()?;
            let used = metrics::cpu(&groups).ok()?.usage;
            let facts = container.facts().ok()?;
            let age = metrics::age_nanoseconds(&container.bundle.pidfile());
            let entitled = self.entitlement(&facts, age);
            Some(Seen { container, used, entitled })
        };
        live.filter_map(see).collect()
    }

    fn release_all(&self) {
        // What was half made is about to be taken away.
        let live = self.all().into_iter().filter(|container| container.phase() == Phase::Live);
        for container in live {
            if let Err(error) = release(&container) {
                let handle = container.handle().as_str();
                log::error(
                    "throttle.release",
                    &json!({"handle": handle, "error": format!("{error:#}")}),
                );
            }
        }
    }

    /// Puts a process that has just been started where its container is: a runtime starts it where
    /// the container was made.
    pub(crate) fn throttle_new_process(&self, container: &Container) {
        if !self.settings.flags.throttling.enable_cpu_throttling {
            return;
        }
        if let Err(error) = group::follow(container) {
            let handle = container.handle().as_str();
            log::error(
                "throttle.follow",
                &json!({"handle": handle, "error": format!("{error:#}")}),
            );
        }
    }
}

/// Takes back whatever was done to a container.
///
/// # Errors
/// With the file and the reason.
pub(crate) fn release(container: &Container) -> anyhow::Result<()> {
    match is_unified()? {
        true => weight::release(container),
        false => group::release(container),
    }
}

/// Returns what the good and the bad are to have, in shares of a version 1 group: the bad what all of
/// them are entitled to, the good all the rest, as in gdn.
fn halves(bad_shares: u64, multiplier: f64) -> (u64, u64) {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "shares are far below 2^52 and never negative"
    )]
    let bad = ((bad_shares as f64 * multiplier) as u64).max(MIN_SHARES);
    // Who has promised more than the host has can only let the good go first.
    let good = total_shares().checked_sub(bad).map_or(MAX_SHARES, |rest| rest.max(MIN_SHARES));
    (good, bad.min(MAX_SHARES))
}

/// What the kernel takes for shares (sched-design-CFS.rst).
const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;

fn is_unified() -> anyhow::Result<bool> {
    Ok(Cgroups::named("/".as_ref())?.is_unified("cpu"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bad_have_what_they_are_entitled_to_and_the_good_all_else() {
        let total = total_shares();
        assert_eq!(halves(0, 1.0), (total - 2, 2));
        assert_eq!(halves(100, 1.0), (total - 100, 100));
        assert_eq!(halves(100, 2.0), (total - 200, 200));
        assert_eq!(halves(total * 2, 1.0).0, MAX_SHARES);
    }
}
