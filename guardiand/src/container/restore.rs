//! What a server does with the containers it finds when it starts: those that live are taken
//! over with their processes, those that were half made or half destroyed, and those that died,
//! are taken away. All of that goes on while the server already answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use guardian_contract::depot::{Handle, Init};
use guardian_contract::file::read_json;
use guardian_contract::log;
use serde_json::json;

use super::properties::{GRACE_TIME, Map, Properties, STATE};
use super::{Container, Phase, facts, grace, pea};
use crate::guardian::Guardian;
use crate::process::Process;

impl Guardian {
    /// Finds all containers of the depot. Returns those that must be taken away.
    ///
    /// # Errors
    /// When the depot can't be read.
    pub(crate) fn restore(self: &Arc<Self>) -> anyhow::Result<Vec<Arc<Container>>> {
        let saved = self.saved_by_gdn()?;
        let destroys_all = self.settings.flags.lifecycle.destroy_containers_on_startup;
        let mut doomed = Vec::new();
        for handle in self.settings.depot.handles()? {
            let container = self.load(&handle, saved.get(handle.as_str()));
            self.adopt(Arc::clone(&container));
            let reason = match verdict(&container) {
                None if destroys_all => "all containers are destroyed at start",
                None => {
                    self.take_over(&container);
                    continue;
                }
                Some(reason) => reason,
            };
            log::info("restore.doomed", &json!({"handle": handle.as_str(), "reason": reason}));
            container.begin_destroy();
            // Hidden from now on: nobody should be given a container that is going.
            let _ = container.properties.change(|map| drop(map.remove(STATE)));
            doomed.push(container);
        }
        Ok(doomed)
    }

    /// Takes the doomed away, one after another, so that requests come first.
    pub(crate) async fn take_away(self: &Arc<Self>, doomed: Vec<Arc<Container>>) {
        for container in doomed {
            self.outlast_forsaken(container.handle()).await;
            let handle = container.handle().to_string();
            if self.take_down(&container).await.is_ok() {
                log::info("start.clean-up-container.cleaned-up", &json!({"handle": handle}));
                continue;
            }
            let guardian = Arc::clone(self);
            tokio::spawn(async move { guardian.persist(&container).await });
        }
    }

    fn load(&self, handle: &Handle, saved: Option<&Map>) -> Arc<Container> {
        let bundle = self.settings.depot.bundle(handle);
        let path = bundle.properties();
        let properties = match Properties::load(path.clone()) {
            Ok(Some(properties)) => properties,
            Ok(None) => Properties::new(path, saved.cloned().unwrap_or_default()),
            Err(error) => {
                let data = json!({"handle": handle.as_str(), "error": format!("{error:#}")});
                log::error("restore.properties", &data);
                Properties::new(path, Map::new())
            }
        };
        Container::new(bundle, Phase::Live, properties)
    }

    /// Takes a living container over: its processes are watched again, its countdown begins anew.
    fn take_over(self: &Arc<Self>, container: &Arc<Container>) {
        let drain = self.settings.flags.lifecycle.drain_timeout;
        let processes = std::fs::read_dir(container.bundle.processes()).into_iter().flatten();
        for entry in processes.flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let id: Handle = id;
            // One that ended meanwhile is kept for a moment too, if something is to be cleaned up.
            let dir = container.bundle.process(&id);
            if let Some(process) = Process::adopt(id.clone(), dir, &self.settings.dadoo, drain)
                && (!process.has_ended() || pea::has_own_group(&container.bundle.process(&id)))
            {
                self.keep(container, process);
            }
        }
        self.watch(container);
        self.finish_change_later(container);
        let countdown = container.properties.get(GRACE_TIME).and_then(|text| text.parse().ok());
        grace::set(self, container, countdown.unwrap_or(0));
    }

    /// Reads the properties that a gdn saved when it stopped.
    fn saved_by_gdn(&self) -> anyhow::Result<BTreeMap<String, Map>> {
        let path = &self.settings.flags.lifecycle.properties_path;
        let saved = path.as_deref().map(read_json).transpose()?;
        Ok(saved.flatten().unwrap_or_default())
    }
}

/// Says why a container can't go on; `None` when it can.
fn verdict(container: &Container) -> Option<&'static str> {
    match container.journal().unfinished() {
        Err(_) => return Some("its journal can't be read"),
        Ok(Some(_)) => return Some("it was half made or half destroyed"),
        Ok(None) => {}
    }
    match facts::read_init(&container.bundle).is_some_and(|init| Init::is_alive(&init)) {
        true => None,
        false => Some("it does not run any more"),
    }
}
