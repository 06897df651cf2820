//! Limits of a container that is there: told, changed, and kept over a restart of the server by the
//! bundle, which is changed too.

use std::path::{Path, PathBuf};

use anyhow::Context;
use guardian_contract::file::read_json;
use guardian_contract::garden::{CpuLimits, Limits, LimitsChange, MemoryLimits, PidLimits};
use guardian_contract::log;
use oci_spec::runtime::{LinuxResources, Spec};
use serde_json::json;

use super::Container;
use super::facts::Facts;
use crate::cgroup::limit::Groups;
use crate::cgroup::{Cgroups, block_io, parent_name, twin};
use crate::guardian::Guardian;

impl Container {
    /// Returns the memory limit as it was asked for.
    ///
    /// # Errors
    /// When the bundle can't be read.
    pub(crate) fn memory_limits(&self) -> anyhow::Result<MemoryLimits> {
        Ok(MemoryLimits { limit_in_bytes: self.facts()?.memory_bytes })
    }

    /// Returns the shares, or on cgroup v2 the weight, under the name that gdn uses for both.
    ///
    /// # Errors
    /// When the bundle can't be read.
    pub(crate) fn cpu_limits(&self) -> anyhow::Result<CpuLimits> {
        Ok(CpuLimits { limit_in_shares: self.facts()?.cpu, weight: 0 })
    }

    /// Returns all limits that can change.
    ///
    /// # Errors
    /// When the bundle can't be read.
    pub(crate) fn limits(&self) -> anyhow::Result<Limits> {
        let facts = self.facts()?;
        Ok(Limits {
            cpu: self.cpu_limits()?,
            memory: self.memory_limits()?,
            pid: PidLimits { max: facts.tasks },
            block_io: facts.block_io,
            ..Limits::default()
        })
    }

    /// Returns where the container's groups are below each hierarchy's root.
    ///
    /// # Errors
    /// When the bundle can't be read.
    pub(crate) fn home(&self, tag: &str) -> anyhow::Result<PathBuf> {
        let told = self.facts()?.cgroup.clone();
        // A gdn's privileged container has no path of its own in its bundle.
        Ok(told
            .unwrap_or_else(|| Path::new("/").join(parent_name(tag)).join(self.handle().as_str())))
    }

    /// Returns the container's groups, wherever throttling has put its processes.
    ///
    /// # Errors
    /// When it does not run.
    pub(crate) fn groups(&self) -> anyhow::Result<Groups> {
        let Some(home) = self.facts()?.cgroup.clone().filter(|home| home.has_root()) else {
            return Ok(Groups(vec![Cgroups::of(self.init()?.pid)?]));
        };
        let twin = twin::of(&home);
        let all = [Some(home.as_path()), twin.as_deref()].into_iter().flatten();
        Ok(Groups(all.map(Cgroups::named).collect::<Result<_, _>>()?))
    }

    /// Gives the new container's traffic with block devices its weight, which no runtime does.
    ///
    /// # Errors
    /// With the file and the reason.
    pub(crate) fn set_block_io_weight(&self) -> anyhow::Result<()> {
        let Some(weight) = self.facts()?.block_io.weight else { return Ok(()) };
        for groups in self.groups()?.0 {
            let dirs = ["blkio", "io"].map(|name| groups.controller(name));
            dirs.iter().flatten().try_for_each(|dir| block_io::set_weight(dir, weight))?;
        }
        Ok(())
    }
}

impl Guardian {
    /// Changes limits of a container and returns those that then hold. First it is seen whether they
    /// can be held, then the kernel holds them, then the bundle says so; a step that fails takes the
    /// ones before it back.
    ///
    /// # Errors
    /// When they are below what is used now, or can't be set.
    pub(crate) async fn change_limits(
        &self,
        container: &Container,
        change: &LimitsChange,
    ) -> anyhow::Result<Limits> {
        change.check()?;
        let _one_at_a_time = container.changing.lock().await;
        container.init()?;
        let handle = container.handle();
        let before = resources(&container.bundle.config())?;
        let wanted = self.settings.depot_tool.update(handle, change, true).await?;
        let groups = container.groups()?;
        groups.check_use(&changed_only(change, &wanted))?;
        let held = groups.hold(change, &wanted).with_context(|| format!("limits of '{handle}'"));
        let kept = match held {
            Ok(()) => self.settings.depot_tool.update(handle, change, false).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            if let Err(worse) = groups.hold(change, &before) {
                let data = json!({"handle": handle.as_str(), "error": format!("{worse:#}")});
                log::error("limits.not-taken-back", &data);
            }
            return Err(error);
        }
        container.forget_facts();
        log::info("limits.changed", &json!({"handle": handle.as_str(), "limits": change}));
        container.limits()
    }
}

/// What is not to change may be below what is used: nobody asked.
fn changed_only(change: &LimitsChange, wanted: &LinuxResources) -> LinuxResources {
    let mut only = LinuxResources::default();
    if change.memory.is_some() {
        only.set_memory(*wanted.memory());
    }
    if change.pid.is_some() {
        only.set_pids(*wanted.pids());
    }
    only
}

/// The resources of a bundle as `depot update` tells them: with the weight of block I/O.
fn resources(config: &Path) -> anyhow::Result<LinuxResources> {
    let spec: Spec =
        read_json(config)?.with_context(|| format!("{} is missing", config.display()))?;
    let linux = spec.linux().as_ref();
    let mut all = linux.and_then(|linux| linux.resources().clone()).unwrap_or_default();
    let mut block_io = all.block_io().clone().unwrap_or_default();
    block_io.set_weight(Facts::of(&spec).block_io.weight);
    all.set_block_io(Some(block_io));
    Ok(all)
}
