//! `show`: what is known of containers.

use std::collections::BTreeMap;

use guardian_contract::depot::Handle;
use guardian_contract::fault::Fault;
use serde_json::{Value, json};

use crate::entry::{self, Entry};
use crate::record::{Record, State};
use crate::store::Store;

/// Tells all of one container.
pub(crate) fn show(store: &Store, id: &Handle) -> anyhow::Result<Value> {
    let directory = store.containers().join(id.as_str());
    match Entry::<Record>::peek(&directory)? {
        Some(record) => Ok(json!(record)),
        None => Err(Fault::not_found(format!("container '{id}' is not registered")).into()),
    }
}

/// Returns the state of every container that is registered.
pub(crate) fn states(store: &Store) -> anyhow::Result<BTreeMap<String, State>> {
    let mut states = BTreeMap::new();
    for name in entry::names(&store.containers())? {
        // One that can't be read is for `recover`.
        if let Ok(Some(record)) = Entry::<Record>::peek(&store.containers().join(&name)) {
            states.insert(name, record.state);
        }
    }
    Ok(states)
}
