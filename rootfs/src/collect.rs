//! Garbage collection: layers that no image lies on lose their names under the store's gate, which
//! takes microseconds, and are removed after it is open again.

use std::time::Duration;

use guardian_contract::fault::{Fault, Kind};
use guardian_contract::log;

use crate::inventory::Inventory;
use crate::store::Store;
use crate::trash::Bin;

/// How long a collection waits for the gate, as grootfs does. Only who needs layers that no image
/// names yet keeps it longer.
const PATIENCE: Duration = Duration::from_secs(3);

/// What was removed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Collected {
    pub(crate) layers: usize,
    pub(crate) bytes: u64,
}

/// Removes all unused layers.
///
/// # Errors
/// `Unavailable` when the store stays in use; otherwise when something can't be read or removed.
pub(crate) fn collect(store: &Store) -> anyhow::Result<Collected> {
    // Mostly there is nothing to do, and then nobody has to wait for us.
    if Inventory::take(store)?.unused().next().is_none() {
        return Ok(Collected::default());
    }
    let bin = Bin::new(store)?;
    let gate = store.close_gate(PATIENCE)?.ok_or_else(|| {
        let store = store.root().display();
        Fault::new(Kind::Unavailable, format!("store {store} is in use; layers were not collected"))
    })?;
    let mut collected = Collected::default();
    for layer in Inventory::take(store)?.unused() {
        // The name first: a layer without its size would be in the way of a new one.
        if bin.take(&store.layer(&layer.chain_id))? {
            store.forget_layer(&layer.chain_id)?;
            collected.layers += 1;
            collected.bytes += layer.bytes;
        }
    }
    drop(gate);
    bin.empty()?;
    let (layers, bytes) = (collected.layers, collected.bytes);
    log::info("layers-collected", &serde_json::json!({"layers": layers, "bytes": bytes}));
    Ok(collected)
}
