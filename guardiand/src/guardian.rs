//! The server's state: which containers there are. All of it can be rebuilt from the depot.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use guardian_contract::depot::Handle;
use guardian_contract::fault::{Fault, Kind};
use guardian_contract::garden::{ApiError, EXECUTABLE_NOT_FOUND, SERVICE_UNAVAILABLE};
use guardian_contract::log;
use serde_json::json;

use crate::container::{Container, Phase, lock, properties};
use crate::event::Events;
use crate::oom::KernelLog;
use crate::plugin::network::SetUp;
use crate::process::attach::Attachments;
use crate::settings::Settings;

/// The server.
#[derive(Debug)]
pub(crate) struct Guardian {
    /// What it was told.
    pub(crate) settings: Settings,
    /// What the network plugin said of this host.
    pub(crate) host: SetUp,
    /// Who reads the output of processes.
    pub(crate) attachments: Arc<Attachments>,
    /// Who is told what happens.
    pub(crate) events: Events,
    /// Whom the kernel killed.
    pub(crate) kernel_log: Arc<KernelLog>,
    containers: Mutex<BTreeMap<Handle, Arc<Container>>>,
}

impl Guardian {
    /// Returns a server that knows of no container yet.
    pub(crate) fn new(settings: Settings, host: SetUp) -> Arc<Self> {
        let (attachments, containers) = (Arc::default(), Mutex::default());
        let (events, kernel_log) = (Events::default(), KernelLog::follow());
        Arc::new(Self { settings, host, attachments, events, kernel_log, containers })
    }

    /// Takes a handle for a container, if it is free and there is room: one step, so that of two
    /// requests for one handle, or for the last place, exactly one succeeds.
    ///
    /// # Errors
    /// In gdn's words.
    pub(crate) fn admit(&self, container: &Arc<Container>) -> Result<(), ApiError> {
        let mut containers = lock(&self.containers);
        let handle = container.handle();
        if containers.contains_key(handle) {
            return Err(ApiError::other(format!("Handle '{handle}' already in use")));
        }
        let max = self.settings.flags.limits.max_containers;
        if max > 0 && containers.len() as u64 >= max {
            return Err(ApiError::other("max containers reached"));
        }
        containers.insert(handle.clone(), Arc::clone(container));
        Ok(())
    }

    /// Puts a container that was found in the depot among the others.
    pub(crate) fn adopt(&self, container: Arc<Container>) {
        lock(&self.containers).insert(container.handle().clone(), container);
    }

    /// Forgets a container that is gone.
    pub(crate) fn forget(&self, handle: &Handle) {
        lock(&self.containers).remove(handle);
    }

    /// Returns a container that clients may use.
    ///
    /// # Errors
    /// The not-found error.
    pub(crate) fn find(&self, handle: &str) -> Result<Arc<Container>, ApiError> {
        let found = self.find_any(handle)?;
        match found.phase() {
            Phase::Creating => Err(ApiError::container_not_found(handle)),
            _ => Ok(found),
        }
    }

    /// Returns a container in whatever phase.
    ///
    /// # Errors
    /// The not-found error.
    pub(crate) fn find_any(&self, handle: &str) -> Result<Arc<Container>, ApiError> {
        let found =
            handle.parse().ok().and_then(|h: Handle| lock(&self.containers).get(&h).cloned());
        found.ok_or_else(|| ApiError::container_not_found(handle))
    }

    /// Returns all containers, sorted by handle.
    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        lock(&self.containers).values().cloned().collect()
    }

    /// Returns the handles of the containers that meet the filter.
    pub(crate) fn list(&self, filter: &properties::Map) -> Vec<String> {
        let containers = self.all();
        let met = containers.iter().filter(|one| one.properties.match_filter(filter));
        met.map(|one| one.handle().to_string()).collect()
    }

    /// Destroys a container whose grace time is over. Somebody else doing so is fine.
    pub(crate) async fn reap(self: &Arc<Self>, handle: &Handle) {
        log::info("reaping", &json!({"handle": handle.as_str(), "reason": "grace time is over"}));
        if let Err(error) = self.destroy(handle.as_str()).await {
            let data = json!({"handle": handle.as_str(), "error": error.message});
            log::error("reap-failed", &data);
        }
    }
}

/// Returns what a client is told of an error: its type where it has one, all its words.
pub(crate) fn api_error(error: &anyhow::Error) -> ApiError {
    if let Some(api) = error.downcast_ref::<ApiError>() {
        return api.clone();
    }
    let fault = Fault::of(error);
    match fault.kind {
        Kind::ExecutableNotFound => ApiError::typed(EXECUTABLE_NOT_FOUND, fault.message),
        Kind::Unavailable => ApiError::typed(SERVICE_UNAVAILABLE, fault.message),
        _ => ApiError::other(fault.message),
    }
}
