//! What a container uses, read from its control groups and its image.

use std::path::Path;
use std::time::SystemTime;

use anyhow::Context;
use guardian_contract::depot::Handle;
use guardian_contract::garden::{ApiError, CpuStat, DiskStat, MemoryStat, Metrics, PidStat};
use guardian_contract::image::DiskUsage;
use guardian_contract::process::ProcessDir;

use super::{Container, pea};
use crate::cgroup::{Cgroups, leaf};
use crate::guardian::Guardian;

impl Guardian {
    /// Measures a container.
    ///
    /// # Errors
    /// When it does not run, or its image plugin can't tell.
    pub(crate) async fn metrics(&self, container: &Container) -> anyhow::Result<Metrics> {
        let init = container.init().context("runC stats")?;
        let groups = Cgroups::of(init.pid)?;
        let disk = self.settings.images.stats(container.handle()).await?;
        let age = age_nanoseconds(&container.bundle.pidfile());
        let measured = measure(&groups, &disk, age)?;
        let cpu_entitlement = self.entitlement(container.facts()?.cpu, age);
        Ok(Metrics { cpu_entitlement, ..measured })
    }

    /// Measures a process that has a control group of its own, by its process id: a pea, or one
    /// that counts with its descendants. Only a pea has a disk of its own.
    ///
    /// # Errors
    /// When no container has such a process, or it does not run.
    pub(crate) async fn process_metrics(&self, process_id: &str) -> anyhow::Result<Metrics> {
        let unknown = || ApiError::container_not_found(process_id);
        let id: Handle = process_id.parse().map_err(|_| unknown())?;
        let dirs = self.all().into_iter().map(|container| container.bundle.process(&id));
        let is_measured = |dir: &ProcessDir| pea::is_pea(dir) || dir.cgroup().exists();
        let dir = dirs.into_iter().find(is_measured).ok_or_else(unknown)?;
        let groups = match std::fs::read_to_string(dir.cgroup()) {
            Ok(watched) => leaf::groups(Path::new(&watched))?,
            Err(_) => {
                let pid = std::fs::read_to_string(dir.pidfile()).context("runC stats")?;
                Cgroups::of(pid.trim().parse()?)?
            }
        };
        let disk = match pea::is_pea(&dir) {
            true => self.settings.images.stats(&id).await?,
            false => DiskUsage::default(),
        };
        measure(&groups, &disk, age_nanoseconds(&dir.pidfile()))
    }

    /// Shares times what a share is entitled to times age. By default all shares together, one
    /// for each MiB of memory, are entitled to all processors.
    fn entitlement(&self, shares: u64, age: i64) -> u64 {
        let percent = match self.settings.flags.limits.cpu_entitlement_per_share {
            0.0 => {
                let cores = std::thread::available_parallelism().map_or(1, usize::from);
                let mib = crate::host::memory_bytes().unwrap_or(1 << 30) >> 20;
                #[expect(clippy::cast_precision_loss, reason = "both are far below 2^52")]
                let per_share = 100.0 * cores as f64 / mib.max(1) as f64;
                per_share
            }
            percent => percent,
        };
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an estimate: float casts saturate, and neither factor is negative"
        )]
        let nanoseconds = (shares as f64 * percent / 100.0 * age.max(0) as f64) as u64;
        nanoseconds
    }
}

fn measure(groups: &Cgroups, disk: &DiskUsage, age: i64) -> anyhow::Result<Metrics> {
    Ok(Metrics {
        memory_stat: memory(groups)?,
        cpu_stat: cpu(groups)?,
        disk_stat: DiskStat {
            total_bytes_used: disk.total_bytes_used,
            exclusive_bytes_used: disk.exclusive_bytes_used,
            ..DiskStat::default()
        },
        network_stat: None,
        pid_stat: tasks(groups)?,
        age,
        cpu_entitlement: 0,
    })
}

fn age_nanoseconds(pidfile: &Path) -> i64 {
    let made = std::fs::metadata(pidfile).and_then(|meta| meta.modified());
    let age = made.ok().and_then(|made| SystemTime::now().duration_since(made).ok());
    age.and_then(|age| i64::try_from(age.as_nanos()).ok()).unwrap_or(0)
}

fn memory(groups: &Cgroups) -> anyhow::Result<MemoryStat> {
    let text = read(groups, "memory", "memory.stat")?;
    let counters: serde_json::Map<String, serde_json::Value> =
        pairs(&text).map(|(name, value)| (name.to_owned(), value.into())).collect();
    let mut stat: MemoryStat = serde_json::from_value(counters.into())?;
    let (used, reclaimable) = match groups.is_unified("memory") {
        true => (stat.anon + stat.file + stat.swapcached, stat.inactive_file),
        false => (stat.total_rss + stat.total_cache + stat.total_swap, stat.total_inactive_file),
    };
    stat.total_usage_toward_limit = used.saturating_sub(reclaimable);
    Ok(stat)
}

fn cpu(groups: &Cgroups) -> anyhow::Result<CpuStat> {
    if groups.is_unified("cpuacct") && groups.is_unified("cpu") {
        let text = read(groups, "cpu", "cpu.stat")?;
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
    let number = |file| Ok::<u64, anyhow::Error>(read(groups, "cpuacct", file)?.trim().parse()?);
    Ok(CpuStat {
        usage: number("cpuacct.usage")?,
        user: number("cpuacct.usage_user")?,
        system: number("cpuacct.usage_sys")?,
    })
}

fn tasks(groups: &Cgroups) -> anyhow::Result<PidStat> {
    let current = read(groups, "pids", "pids.current")?.trim().parse()?;
    // "max" means that there is none.
    let max = read(groups, "pids", "pids.max")?.trim().parse().unwrap_or(0);
    Ok(PidStat { current, max })
}

fn read(groups: &Cgroups, controller: &str, file: &str) -> anyhow::Result<String> {
    let dir = groups.controller(controller);
    let path = dir.with_context(|| format!("container has no {controller} cgroup"))?.join(file);
    std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (name, value) = line.split_once(' ')?;
        Some((name, value.trim().parse().ok()?))
    })
}
