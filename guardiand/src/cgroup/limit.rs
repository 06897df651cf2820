//! Limits of groups that are there, set as a runtime sets those of a new one: the same resources of
//! the OCI runtime specification, in the files of cgroups(7), version 1 or 2.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use guardian_contract::fault::{Fault, Kind};
use guardian_contract::garden::LimitsChange;
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

use super::{Cgroups, block_io};

/// What the kernel gives to a group that nothing is said of.
const DEFAULT_SHARES: u64 = 1024;

/// The groups of one container: where it was made, and where throttling moves it to and fro.
#[derive(Debug)]
pub(crate) struct Groups(pub(crate) Vec<Cgroups>);

impl Groups {
    /// Returns the directories of a controller.
    ///
    /// # Errors
    /// When the container has none.
    fn of(&self, controller: &str) -> anyhow::Result<Vec<PathBuf>> {
        let all: Vec<_> = self.0.iter().filter_map(|one| one.controller(controller)).collect();
        match all.is_empty() {
            true => bail!("the container has no {controller} cgroup"),
            false => Ok(all),
        }
    }

    /// Sets those limits that are to change to what `resources` says of them.
    ///
    /// # Errors
    /// With the file and the reason; what was set before stays set.
    pub(crate) fn hold(
        &self,
        change: &LimitsChange,
        resources: &LinuxResources,
    ) -> anyhow::Result<()> {
        if change.memory.is_some() {
            self.of("memory")?.iter().try_for_each(|dir| memory(dir, resources.memory()))?;
        }
        if change.pid.is_some() {
            let max = resources.pids().as_ref().map(|pids| pids.limit().to_string());
            let max = max.unwrap_or_else(|| "max".into());
            self.of("pids")?.iter().try_for_each(|dir| write(dir, "pids.max", &max))?;
        }
        if change.cpu.is_some() {
            self.of("cpu")?.iter().try_for_each(|dir| cpu(dir, resources))?;
        }
        if change.block_io.is_some() {
            let controller = if self.is_unified("blkio") { "io" } else { "blkio" };
            self.of(controller)?.iter().try_for_each(|dir| block_io::set(dir, resources))?;
        }
        Ok(())
    }

    /// Takes the limits of the processor away, and gives the largest share of it. A container without
    /// a group for that has no limits either.
    ///
    /// # Errors
    /// With the file and the reason.
    pub(crate) fn unlimit_processor(&self) -> anyhow::Result<()> {
        const LARGEST: [(&str, &str); 4] = [
            ("cpu.shares", "262144"),
            ("cpu.cfs_quota_us", "-1"),
            ("cpu.weight", "10000"),
            ("cpu.max", "max"),
        ];
        for dir in self.0.iter().filter_map(|groups| groups.controller("cpu")) {
            for (file, value) in LARGEST.iter().filter(|(file, _)| dir.join(file).exists()) {
                write(&dir, file, value)?;
            }
        }
        Ok(())
    }

    /// Refuses limits that are below what is used now: the kernel would kill for the one, and let
    /// nothing start for the other.
    ///
    /// # Errors
    /// With the limit and the use.
    pub(crate) fn check_use(&self, resources: &LinuxResources) -> anyhow::Result<()> {
        let memory = resources.memory().as_ref().and_then(LinuxMemory::limit);
        if let Some(limit) = memory.and_then(|limit| u64::try_from(limit).ok()) {
            let dirs = self.of("memory")?;
            let used: u64 = dirs.iter().map(|dir| used_memory(dir)).sum::<anyhow::Result<u64>>()?;
            refuse(limit < used, || {
                format!("memory limit of {limit} bytes is below the {used} bytes in use")
            })?;
        }
        let pids = resources.pids().as_ref().map(oci_spec::runtime::LinuxPids::limit);
        if let Some(limit) = pids.and_then(|limit| u64::try_from(limit).ok()) {
            let dirs = self.of("pids")?;
            let used: u64 =
                dirs.iter().map(|dir| number(dir, "pids.current")).sum::<anyhow::Result<u64>>()?;
            refuse(limit < used, || {
                format!("limit of {limit} tasks is below the {used} that there are")
            })?;
        }
        Ok(())
    }

    fn is_unified(&self, controller: &str) -> bool {
        self.0.iter().all(|groups| groups.is_unified(controller))
    }
}

fn refuse(is_wrong: bool, message: impl FnOnce() -> String) -> Result<(), Fault> {
    if is_wrong { Err(Fault::new(Kind::Failed, message())) } else { Ok(()) }
}

/// Bytes that the kernel can't take back by forgetting pages of files.
pub(crate) fn used_memory(dir: &Path) -> anyhow::Result<u64> {
    let is_unified = dir.join("memory.current").exists();
    let (usage, prefix) = match is_unified {
        true => ("memory.current", ""),
        false => ("memory.usage_in_bytes", "total_"),
    };
    let stat = std::fs::read_to_string(dir.join("memory.stat"))
        .with_context(|| format!("read memory.stat of {}", dir.display()))?;
    let of = |name: &str| {
        let mut lines = stat.lines().filter_map(|line| line.split_once(' '));
        let found = lines.find(|(key, _)| key.strip_prefix(prefix) == Some(name));
        found.and_then(|(_, value)| value.parse().ok()).unwrap_or(0_u64)
    };
    Ok(number(dir, usage)?.saturating_sub(of("active_file") + of("inactive_file")))
}

fn memory(dir: &Path, wanted: &Option<LinuxMemory>) -> anyhow::Result<()> {
    let limit = wanted.as_ref().and_then(LinuxMemory::limit);
    let both = wanted.as_ref().and_then(LinuxMemory::swap);
    if dir.join("memory.max").exists() {
        let swap = both.zip(limit).map(|(both, limit)| (both - limit).to_string());
        // Where the kernel has no swap the file is missing.
        if dir.join("memory.swap.max").exists() {
            write(dir, "memory.swap.max", &swap.unwrap_or_else(|| "max".into()))?;
        }
        let limit = limit.map(|limit| limit.to_string());
        return write(dir, "memory.max", &limit.unwrap_or_else(|| "max".into()));
    }
    // The sum with swap may never be the smaller one, on no way from the old values to the new.
    let (memory, sum) = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes");
    let (limit, both) = (limit.unwrap_or(-1), both.unwrap_or(-1));
    let counts_swap = dir.join(sum).exists();
    let is_smaller = limit >= 0 && u64::try_from(limit)? < number(dir, memory)?;
    if counts_swap && !is_smaller {
        write(dir, sum, &both.to_string())?;
    }
    write(dir, memory, &limit.to_string())?;
    if counts_swap && is_smaller {
        write(dir, sum, &both.to_string())?;
    }
    Ok(())
}

fn cpu(dir: &Path, resources: &LinuxResources) -> anyhow::Result<()> {
    if dir.join("cpu.weight").exists() {
        let unified = |name: &str| resources.unified().as_ref()?.get(name).cloned();
        write(dir, "cpu.weight", &unified("cpu.weight").unwrap_or_else(|| "100".into()))?;
        return write(dir, "cpu.max", &unified("cpu.max").unwrap_or_else(|| "max".into()));
    }
    let cpu = resources.cpu().as_ref();
    let shares = cpu.and_then(LinuxCpu::shares).unwrap_or(DEFAULT_SHARES);
    write(dir, "cpu.shares", &shares.to_string())?;
    let quota = cpu.and_then(LinuxCpu::quota);
    if let Some(period) = cpu.and_then(LinuxCpu::period) {
        write(dir, "cpu.cfs_period_us", &period.to_string())?;
    }
    // A kernel without quotas has no file that would have to say that there is none.
    match quota.is_some() || dir.join("cpu.cfs_quota_us").exists() {
        true => write(dir, "cpu.cfs_quota_us", &quota.unwrap_or(-1).to_string()),
        false => Ok(()),
    }
}

/// Reads a file with one number; version 2's `max` is the largest.
pub(crate) fn number(dir: &Path, file: &str) -> anyhow::Result<u64> {
    let path = dir.join(file);
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    match text.trim() {
        "max" => Ok(u64::MAX),
        text => text.parse().with_context(|| format!("{} says '{text}'", path.display())),
    }
}

/// Writes a value as one write(2), which is what the kernel takes for one.
pub(crate) fn write(dir: &Path, file: &str, value: &str) -> anyhow::Result<()> {
    let path = dir.join(file);
    std::fs::write(&path, value).with_context(|| format!("write {value} to {}", path.display()))
}
