//! What the id manager does for a container: ids of its own, the host's files shown as its, volumes.
//!
//! Most containers need none of it, and then it is not asked: gdn's mapping is the same for all.

use std::path::Path;

use guardian_contract::fault::{Fault, Kind};
use guardian_contract::garden::ContainerSpec;
use guardian_contract::ids::{IdMaps, IdPolicy};
use guardian_contract::journal::{Mark, Operation};
use guardian_contract::log;
use serde_json::json;

use super::Container;
use crate::guardian::Guardian;

/// The step of a create that is begun before the id manager is asked for the first time.
const STEP: &str = "ids";

impl Guardian {
    /// Returns the id maps of a new container; none for a privileged one.
    ///
    /// # Errors
    /// With the id manager's own words.
    pub(crate) async fn give_ids(
        &self,
        container: &Container,
        spec: &ContainerSpec,
    ) -> anyhow::Result<Option<IdMaps>> {
        let policy = self.settings.ids.policy(spec.id_policy);
        let is_exclusive = !spec.privileged && policy == IdPolicy::Exclusive;
        if is_exclusive || has_mounts(spec) {
            container.journal().mark(Operation::Create, STEP, Mark::Begin)?;
        }
        match spec.privileged {
            true => Ok(None),
            false => self.settings.ids.allocate(container.handle(), policy).await.map(Some),
        }
    }

    /// Prepares the mounts that need the id manager, and puts what is to be mounted in their place.
    ///
    /// # Errors
    /// With the id manager's own words.
    pub(crate) async fn prepare_mounts(
        &self,
        container: &Container,
        spec: &mut ContainerSpec,
        ids: Option<&IdMaps>,
        rootfs: &Path,
    ) -> anyhow::Result<()> {
        if !has_mounts(spec) {
            return Ok(());
        }
        let (manager, handle) = (&self.settings.ids, container.handle());
        manager.register(handle, ids, rootfs).await?;
        for mount in spec.bind_mounts.iter_mut().filter(|mount| mount.idmap) {
            *mount = manager.mapped(handle, mount).await?;
        }
        for store in &spec.volume_stores {
            spec.bind_mounts.push(manager.volume(handle, store).await?);
        }
        Ok(())
    }

    /// Takes back all that the id manager has of a container.
    ///
    /// # Errors
    /// With the id manager's own words.
    pub(crate) async fn take_ids_back(&self, container: &Container) -> anyhow::Result<()> {
        match has_asked(container) {
            true => self.settings.ids.remove(container.handle()).await,
            false => Ok(()),
        }
    }

    /// Writes volumes back into the root filesystem of a container that was stopped, for whoever
    /// takes a copy of it now. A failure is logged: the container has stopped all the same.
    pub(crate) async fn save_volumes(&self, container: &Container) {
        if !has_asked(container) {
            return;
        }
        let handle = container.handle();
        let saved = self.settings.ids.sync(handle).await;
        // One with nothing but ids of its own is not registered.
        let is_there = |error: &anyhow::Error| Fault::of(error).kind != Kind::NotFound;
        if let Some(error) = saved.err().filter(is_there) {
            let data = json!({"handle": handle.as_str(), "error": format!("{error:#}")});
            log::error("stop.save-volumes", &data);
        }
    }
}

fn has_mounts(spec: &ContainerSpec) -> bool {
    !spec.volume_stores.is_empty() || spec.bind_mounts.iter().any(|mount| mount.idmap)
}

/// Tells whether the id manager may know the container. Where that can't be read, it is asked.
fn has_asked(container: &Container) -> bool {
    container.journal().entries().map_or(true, |entries| {
        entries.iter().any(|entry| entry.operation == Operation::Create && entry.step == STEP)
    })
}
