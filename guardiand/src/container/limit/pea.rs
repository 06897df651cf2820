//! Limits of a pea that runs and was given limits of its own: those that the kernel holds. Its bundle,
//! which is its process directory, says them too.

use anyhow::Context;
use guardian_contract::depot::Handle;
use guardian_contract::fault::Fault;
use guardian_contract::file::read_json;
use guardian_contract::garden::{ApiError, Limits, LimitsChange};
use guardian_contract::log;
use oci_spec::runtime::Spec;
use serde_json::json;

use super::change::{changed_only, resources};
use super::groups_at;
use crate::container::facts::Facts;
use crate::container::{Container, pea};
use crate::guardian::Guardian;

impl Guardian {
    /// Returns the limits of a pea.
    ///
    /// # Errors
    /// The not-found error, or that it has none of its own.
    pub(crate) fn pea_limits(
        &self,
        container: &Container,
        process_id: &str,
    ) -> anyhow::Result<Limits> {
        let (_, facts) = find(container, process_id)?;
        Ok(facts.limits())
    }

    /// Changes limits of a pea and returns those that then hold.
    ///
    /// # Errors
    /// The not-found error; when the pea has no such limits, or they are below what is used now.
    pub(crate) async fn change_pea_limits(
        &self,
        container: &Container,
        process_id: &str,
        change: &LimitsChange,
    ) -> anyhow::Result<Limits> {
        change.check()?;
        let foreign = [
            ("disk_limits", change.disk.is_some()),
            ("bandwidth_limits", change.bandwidth.is_some()),
        ];
        if let Some((name, _)) = foreign.iter().find(|(_, is_given)| *is_given) {
            return Err(Fault::invalid(format!("a pea has no {name} of its own")).into());
        }
        let _one_at_a_time = container.changing.lock().await;
        let (id, facts) = find(container, process_id)?;
        let home = facts.cgroup.context("the pea's bundle names no cgroup")?;
        let groups = groups_at(&home)?;
        let (tool, processes) = (&self.settings.depot_tool, container.bundle.processes());
        let before = resources(&container.bundle.process(&id).config())?;
        let wanted = tool.update_pea(&processes, &id, change, true).await?;
        groups.check_use(&changed_only(change, &wanted))?;
        let held = groups.hold(change, &wanted).with_context(|| format!("limits of '{id}'"));
        let kept = match held {
            Ok(()) => tool.update_pea(&processes, &id, change, false).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            if let Err(worse) = groups.hold(change, &before) {
                let data = json!({"process": id.as_str(), "error": format!("{worse:#}")});
                log::error("limits.not-taken-back", &data);
            }
            return Err(error);
        }
        log::info("limits.changed", &json!({"process": id.as_str(), "limits": change}));
        self.pea_limits(container, process_id)
    }
}

/// Finds a pea that runs, and what its bundle says.
fn find(container: &Container, process_id: &str) -> anyhow::Result<(Handle, Facts)> {
    let running = container.processes().keys().find(|id| id.as_str() == process_id).cloned();
    let id = running.ok_or_else(|| ApiError::process_not_found(process_id))?;
    let dir = container.bundle.process(&id);
    if !pea::is_pea(&dir) {
        let text = format!("process {id} is no pea: its limits are those of its container");
        return Err(Fault::invalid(text).into());
    }
    let spec: Option<Spec> = read_json(&dir.config())?;
    let facts = Facts::of(&spec.context("the pea's bundle has no configuration")?);
    let of_container = container.facts()?.cgroup.clone();
    if facts.cgroup.as_ref().and_then(|group| group.parent()) == of_container.as_deref() {
        let text = format!("pea {id} was given no limits: those of its container are its own");
        return Err(Fault::invalid(text).into());
    }
    Ok((id, facts))
}
