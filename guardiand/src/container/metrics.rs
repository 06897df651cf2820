//! What a container uses, read from its control groups.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;
use guardian_contract::garden::{CpuStat, MemoryStat, Metrics, NetworkStat, PidStat};
use guardian_contract::network::INTERFACE;
use serde::Deserialize;
use serde::de::value::MapDeserializer;

use super::Container;
use crate::cgroup::{self, Cgroups};
use crate::guardian::Guardian;

/// Property: whether Diego made the container to see that containers can be made.
const HEALTH_CHECK: &str = "network.healthcheck";

impl Guardian {
    /// Measures a container, but for its disk.
    ///
    /// # Errors
    /// When it does not run.
    pub(super) fn container_metrics(&self, container: &Container) -> anyhow::Result<Metrics> {
        let init = container.init().context("runC stats")?;
        let groups = Cgroups::of(init.pid)?;
        let age = age_nanoseconds(&container.bundle.pidfile());
        let measured = measure(&groups, age)?;
        let cpu_entitlement = self.entitlement(&*container.facts()?, age);
        let network_stat = self.traffic(container, init.pid)?;
        Ok(Metrics { cpu_entitlement, network_stat, ..measured })
    }

    /// Returns the traffic of the interface that the network plugin has named, whichever plugin it
    /// is, as the container sees it. gdn leaves out those that Diego only checks its cells with.
    fn traffic(&self, container: &Container, pid: i32) -> anyhow::Result<Option<NetworkStat>> {
        let is_check = container.properties.get(HEALTH_CHECK).as_deref() == Some("true");
        let is_wanted = self.settings.flags.network.enable_container_network_metrics && !is_check;
        let interface = container.properties.get(INTERFACE).filter(|_| is_wanted);
        let Some(interface) = interface else { return Ok(None) };
        let path = format!("/proc/{pid}/net/dev");
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        // Somebody may have taken the link away; the rest is measured all the same.
        Ok(interface_traffic(&text, &interface))
    }
}

/// Reads what control groups tell.
///
/// # Errors
/// When one is gone.
pub(super) fn measure(groups: &Cgroups, age: i64) -> anyhow::Result<Metrics> {
    Ok(Metrics {
        memory_stat: memory(groups)?,
        cpu_stat: cpu(groups)?,
        pid_stat: tasks(groups)?,
        age,
        ..Metrics::default()
    })
}

/// Finds one interface in a /proc/PID/net/dev: received bytes come first, sent ones ninth
/// (proc_pid_net(5)).
fn interface_traffic(text: &str, interface: &str) -> Option<NetworkStat> {
    let of = |line: &'_ str| {
        let (name, numbers) = line.split_once(':')?;
        let mut numbers = numbers.split_whitespace().map(str::parse);
        let is_it = name.trim() == interface;
        let (received, sent) = (numbers.next()?.ok()?, numbers.nth(7)?.ok()?);
        is_it.then_some(NetworkStat { rx_bytes: received, tx_bytes: sent })
    };
    text.lines().find_map(of)
}

/// Returns how long ago the runtime wrote a pidfile.
pub(crate) fn age_nanoseconds(pidfile: &Path) -> i64 {
    let made = std::fs::metadata(pidfile).and_then(|meta| meta.modified());
    let age = made.ok().and_then(|made| SystemTime::now().duration_since(made).ok());
    age.and_then(|age| i64::try_from(age.as_nanos()).ok()).unwrap_or(0)
}

fn memory(groups: &Cgroups) -> anyhow::Result<MemoryStat> {
    let text = read(&dir(groups, "memory")?, "memory.stat")?;
    let counters = MapDeserializer::<_, serde::de::value::Error>::new(pairs(&text));
    let mut stat = MemoryStat::deserialize(counters)?;
    let (used, reclaimable) = match groups.is_unified("memory") {
        true => (stat.anon + stat.file + stat.swapcached, stat.inactive_file),
        false => (stat.total_rss + stat.total_cache + stat.total_swap, stat.total_inactive_file),
    };
    stat.total_usage_toward_limit = used.saturating_sub(reclaimable);
    Ok(stat)
}

pub(crate) fn cpu(groups: &Cgroups) -> anyhow::Result<CpuStat> {
    if groups.is_unified("cpuacct") && groups.is_unified("cpu") {
        let text = read(&dir(groups, "cpu")?, "cpu.stat")?;
        let of = |wanted: &str| {
            let found = pairs(&text).find(|(name, _)| *name == wanted);
            found.map_or(0, |(_, microseconds)| microseconds * 1000)
        };
        return Ok(CpuStat {
            usage: of("usage_usec"),
            user: of("user_usec"),
            system: of("system_usec"),
        });
    }
    let dir = dir(groups, "cpuacct")?;
    // Where it is counted in the same hierarchy as it is shared, each place has counted its part.
    let twin = groups.twins().controller("cpuacct");
    let number = |file| {
        let own: u64 = read(&dir, file)?.trim().parse()?;
        let other = twin.as_deref().and_then(|twin| read(twin, file).ok()?.trim().parse().ok());
        anyhow::Ok(own + other.unwrap_or(0))
    };
    Ok(CpuStat {
        usage: number("cpuacct.usage")?,
        user: number("cpuacct.usage_user")?,
        system: number("cpuacct.usage_sys")?,
    })
}

fn tasks(groups: &Cgroups) -> anyhow::Result<PidStat> {
    let dir = dir(groups, "pids")?;
    let current = read(&dir, "pids.current")?.trim().parse()?;
    // "max" means that there is none.
    let max = read(&dir, "pids.max")?.trim().parse().unwrap_or(0);
    Ok(PidStat { current, max })
}

fn dir(groups: &Cgroups, controller: &str) -> anyhow::Result<PathBuf> {
    let dir = groups.controller(controller);
    dir.with_context(|| format!("container has no {controller} cgroup"))
}

fn read(dir: &Path, file: &str) -> anyhow::Result<String> {
    cgroup::text(&dir.join(file))
}

fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (name, value) = line.split_once(' ')?;
        Some((name, value.trim().parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_found_by_its_whole_name() {
        let text = "Inter-|   Receive                |  Transmit\n \
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes\n\
                    xeth0: 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9\n  \
                    eth0:1234 5 0 0 0 0 0 0 5678 9 0 0 0 0 0 0\n";
        let found = interface_traffic(text, "eth0").unwrap();
        assert_eq!((found.rx_bytes, found.tx_bytes), (1234, 5678));
        assert_eq!(interface_traffic(text, "eth1"), None);
        let ours = std::fs::read_to_string("/proc/self/net/dev").unwrap();
        assert!(interface_traffic(&ours, "lo").is_some());
    }
}
