//! `rootfs pull`: an image's layers into the store, before a container asks for them.

use guardian_contract::fault::Fault;
use serde::Serialize;

use crate::create::Limit;
use crate::progress::{Progress, State};
use crate::registry::Access;
use crate::source::Source;
use crate::store::Store;

/// What was pulled.
#[derive(Debug, Serialize)]
pub(crate) struct Pulled {
    /// How many layers the image has.
    layers: usize,
    /// How many of them the store had before.
    known: usize,
    /// Bytes that all of them take on disk.
    bytes: u64,
}

/// Makes sure that the store has the image's layers.
///
/// # Errors
/// When the image can't be had, or is not what it says.
pub(crate) fn pull(
    store: &Store,
    source: &Source,
    access: &Access,
    limit: Limit,
    progress: &Progress,
) -> anyhow::Result<Pulled> {
    if let Source::Raw(_) = source {
        return Err(Fault::invalid("a raw directory is used where it lies").into());
    }
    let found = source.image(store, access)?;
    store.create()?;
    // No image names these layers yet. A collection that comes now is put off.
    let _uncollected = store.keep_gate_open()?;
    let mut pulled = Pulled { layers: found.layers.len(), known: 0, bytes: 0 };
    for layer in &found.layers {
        pulled.known += usize::from(layer.find(store)?.is_some());
    }
    let _archives = found.download(store, progress)?;
    for (at, layer) in found.layers.iter().enumerate() {
        let blob = &layer.blob;
        let mut told = progress.layer(blob.digest.as_deref().unwrap_or_default(), blob.size);
        told.is(State::Unpack, blob.size);
        let made = layer.ensure(store, &found.layers[..at], limit.room());
        pulled.bytes += made.map_err(|error| limit.explain(error))?.size;
        told.is(State::Done, blob.size);
    }
    Ok(pulled)
}
