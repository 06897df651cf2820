//! Limits of a container that is there: told, changed, and kept over a restart of the server by the
//! bundle, which is changed too.

mod change;
mod pea;
mod unfinished;

use std::path::{Path, PathBuf};

use guardian_contract::garden::{BandwidthLimits, CpuLimits, Limits, MemoryLimits};
use guardian_contract::network::BANDWIDTH;

use super::Container;
use super::network::parse_bandwidth;
use crate::cgroup::limit::Groups;
use crate::cgroup::{Cgroups, block_io, parent_name, twin};

impl Container {
    /// Returns the memory limit as it was asked for.
    ///
    /// # Errors
    /// When the bundle can't be read.
    pub(crate) fn memory_limits(&self) -> anyhow::Result<MemoryLimits> {
        Ok(self.facts()?.limits().memory)
    }

    /// Returns the shares, or on cgroup v2 the weight, under the name that gdn uses for both.
    ///
    /// # Errors
    /// When the bundle can't be read.
    pub(crate) fn cpu_limits(&self) -> anyhow::Result<CpuLimits> {
        Ok(self.facts()?.limits().cpu)
    }

    /// Returns the bandwidth that the network plugin says it enforces.
    pub(crate) fn bandwidth_limits(&self) -> BandwidthLimits {
        let told = self.properties.get(BANDWIDTH);
        told.map(|text| parse_bandwidth(&text)).unwrap_or_default()
    }

    /// Returns all limits that can change.
    ///
    /// # Errors
    /// When the bundle can't be read.
    pub(crate) fn limits(&self) -> anyhow::Result<Limits> {
        Ok(Limits { bandwidth: self.bandwidth_limits(), ..self.facts()?.limits() })
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
        groups_at(&home)
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

/// Returns the groups at a path below each hierarchy's root, and those at its other place.
fn groups_at(home: &Path) -> anyhow::Result<Groups> {
    let twin = twin::of(home);
    let all = [Some(home), twin.as_deref()].into_iter().flatten();
    Ok(Groups(all.map(Cgroups::named).collect::<Result<_, _>>()?))
}
