//! Changing limits of a container that runs: first it is seen whether they can be held, then whoever
//! holds them is told, one after the other, then the bundle says so. What fails takes back all that
//! was done before it.

use std::path::Path;

use anyhow::Context;
use guardian_contract::file::read_json;
use guardian_contract::garden::{BandwidthLimits, DiskChange, DiskLimits, Limits, LimitsChange};
use guardian_contract::log;
use guardian_contract::network::{BANDWIDTH, LimitRequest};
use oci_spec::runtime::{LinuxResources, Spec};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::unfinished::Unfinished;
use crate::cgroup::limit::Groups;
use crate::container::Container;
use crate::container::facts::Facts;
use crate::guardian::Guardian;

/// Who holds limits, in the order in which they are told: those that may refuse come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    ImagePlugin,
    NetworkPlugin,
    Kernel,
}

const HOLDERS: [Holder; 3] = [Holder::ImagePlugin, Holder::NetworkPlugin, Holder::Kernel];

/// Limits as their holders take them: those that are to hold, or those that held.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Wanted {
    pub(super) disk: DiskLimits,
    pub(super) bandwidth: BandwidthLimits,
    pub(super) resources: LinuxResources,
}

impl Wanted {
    /// Returns what a bundle says, and this bandwidth, of which it says nothing.
    ///
    /// # Errors
    /// When the bundle can't be read.
    pub(super) fn of(container: &Container, bandwidth: BandwidthLimits) -> anyhow::Result<Self> {
        let disk = container.facts()?.disk.clone();
        Ok(Self { disk, bandwidth, resources: resources(&container.bundle.config())? })
    }
}

impl Guardian {
    /// Changes limits of a container and returns those that then hold.
    ///
    /// # Errors
    /// When they are below what is used now, or can't be held.
    pub(crate) async fn change_limits(
        &self,
        container: &Container,
        change: &LimitsChange,
    ) -> anyhow::Result<Limits> {
        change.check()?;
        let _one_at_a_time = container.changing.lock().await;
        container.init()?;
        let handle = container.handle();
        let facts = container.facts()?;
        self.check_holders(change, &facts)?;
        self.finish_change(container).await;
        let before = Wanted::of(container, container.bandwidth_limits())?;
        let wanted = Wanted {
            disk: change.disk.unwrap_or_default().applied_to(&before.disk),
            bandwidth: change.bandwidth.clone().unwrap_or_default(),
            resources: self.settings.depot_tool.update(handle, change, true).await?,
        };
        if concerns(Holder::Kernel, change) {
            container.groups()?.check_use(&changed_only(change, &wanted.resources))?;
        }
        let bandwidth = wanted.bandwidth.clone();
        let begun = Unfinished { change: change.clone(), before, bandwidth };
        begun.begin(container)?;
        let mut told = Vec::new();
        let held = self.tell_all(container, change, &wanted, &mut told).await;
        let kept = match held {
            Ok(()) => self.settings.depot_tool.update(handle, change, false).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            self.take_back(container, &begun, &told).await;
            return Err(error);
        }
        Unfinished::end(container);
        container.forget_facts();
        log::info("limits.changed", &json!({"handle": handle.as_str(), "limits": change}));
        container.limits()
    }

    /// Refuses what no holder can do, before anybody is told anything.
    fn check_holders(&self, change: &LimitsChange, facts: &Facts) -> anyhow::Result<()> {
        if concerns(Holder::ImagePlugin, change) {
            self.settings.images.check_resize(facts.uid_map.is_empty())?;
        }
        match concerns(Holder::NetworkPlugin, change) {
            true => self.settings.network.check_limit(),
            false => Ok(()),
        }
    }

    /// Tells all holders; `told` are those who were, the last one perhaps in vain.
    pub(super) async fn tell_all(
        &self,
        container: &Container,
        change: &LimitsChange,
        wanted: &Wanted,
        told: &mut Vec<Holder>,
    ) -> anyhow::Result<()> {
        for holder in HOLDERS.into_iter().filter(|holder| concerns(*holder, change)) {
            told.push(holder);
            self.tell(holder, container, change, wanted).await?;
        }
        Ok(())
    }

    /// What can't be taken back stays written down, and is tried again with the next change.
    async fn take_back(&self, container: &Container, begun: &Unfinished, told: &[Holder]) {
        let mut is_whole = true;
        for holder in told.iter().rev() {
            let told = self.tell(*holder, container, &begun.change, &begun.before).await;
            if let Err(worse) = told {
                let handle = container.handle().as_str();
                let data = json!({"handle": handle, "error": format!("{worse:#}")});
                log::error("limits.not-taken-back", &data);
                is_whole = false;
            }
        }
        if is_whole {
            Unfinished::end(container);
        }
    }

    async fn tell(
        &self,
        holder: Holder,
        container: &Container,
        change: &LimitsChange,
        wanted: &Wanted,
    ) -> anyhow::Result<()> {
        let handle = container.handle();
        match holder {
            Holder::ImagePlugin => {
                let is_privileged = container.facts()?.uid_map.is_empty();
                let disk = change.disk.unwrap_or_default();
                self.settings.images.resize(handle, is_privileged, disk, &wanted.disk).await
            }
            Holder::NetworkPlugin => {
                let bandwidth = wanted.bandwidth.clone();
                let pid = container.init()?.pid;
                let ask = LimitRequest { pid, bandwidth, ..LimitRequest::default() };
                let mut answer = self.settings.network.limit(handle, &ask).await?;
                container.properties.change(|map| {
                    map.remove(BANDWIDTH);
                    let told = answer.properties.remove(BANDWIDTH);
                    map.extend(told.map(|told| (BANDWIDTH.to_owned(), told)));
                })
            }
            Holder::Kernel => {
                let groups: Groups = container.groups()?;
                let held = groups.hold(change, &wanted.resources);
                held.with_context(|| format!("limits of '{handle}'"))
            }
        }
    }
}

fn concerns(holder: Holder, change: &LimitsChange) -> bool {
    match holder {
        Holder::ImagePlugin => change.disk.unwrap_or_default() != DiskChange::default(),
        Holder::NetworkPlugin => change.bandwidth.is_some(),
        Holder::Kernel => {
            let only = LimitsChange { disk: None, bandwidth: None, ..change.clone() };
            only != LimitsChange::default()
        }
    }
}

/// What is not to change may be below what is used: nobody asked.
pub(super) fn changed_only(change: &LimitsChange, wanted: &LinuxResources) -> LinuxResources {
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
pub(super) fn resources(config: &Path) -> anyhow::Result<LinuxResources> {
    let spec: Spec =
        read_json(config)?.with_context(|| format!("{} is missing", config.display()))?;
    let linux = spec.linux().as_ref();
    let mut all = linux.and_then(|linux| linux.resources().clone()).unwrap_or_default();
    let mut block_io = all.block_io().clone().unwrap_or_default();
    block_io.set_weight(Facts::of(&spec).block_io.weight);
    all.set_block_io(Some(block_io));
    Ok(all)
}
