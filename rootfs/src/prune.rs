//! `rootfs prune`: all that nobody uses goes at once, whatever its size.

use std::os::fd::OwnedFd;

use anyhow::Context;
use guardian_contract::log;
use serde::Serialize;
use serde_json::json;

use crate::collect::collect;
use crate::image::Image;
use crate::inventory::{Inventory, names};
use crate::registry::download;
use crate::store::Store;
use crate::{disk, layer, leftovers, remove, resize, trash};

/// What was removed.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Pruned {
    /// Unused layers.
    layers: usize,
    /// Bytes that they took.
    layer_bytes: u64,
    /// Images, layers and downloads that dead processes had begun, and what others had not finished
    /// removing.
    leftovers: usize,
    /// Bytes that those took.
    leftover_bytes: u64,
}

impl std::fmt::Display for Pruned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { layers, layer_bytes, leftovers, leftover_bytes } = self;
        write!(f, "Removed {layers} unused layers ({layer_bytes} bytes) ")?;
        write!(f, "and {leftovers} leftovers ({leftover_bytes} bytes)")
    }
}

/// Removes unused layers and what dead processes left; a missing store has neither.
///
/// # Errors
/// When something can't be removed, or the store stays in use.
pub(crate) fn prune(store: &Store) -> anyhow::Result<Pruned> {
    let mut pruned = Pruned::default();
    if !store.exists() {
        return Ok(pruned);
    }
    pruned.leftover_bytes = leftovers::beside_images(store)?;
    pruned.leftovers += unfinished_layers(store)?;
    pruned.leftovers += trash::sweep(store)? + download::sweep(store)?;
    let inventory = Inventory::take_settled(store)?;
    pruned.leftover_bytes += leftovers::of_images(store, &inventory)?;
    // Before the layers: a dead image's are unused.
    pruned.leftovers += unfinished_images(store, &inventory)?;
    pruned.leftovers += unfinished_changes(store, &inventory)?;
    pruned.leftovers += disk::sweep(store)?;
    let collected = collect(store)?;
    (pruned.layers, pruned.layer_bytes) = (collected.layers, collected.bytes);
    records_without_layer(store)?;
    Ok(pruned)
}

/// Removes images whose creator died.
fn unfinished_images(store: &Store, inventory: &Inventory) -> anyhow::Result<usize> {
    let mut count = 0;
    for stored in &inventory.images {
        if stored.info.is_none()
            && let Some(image) = Image::find_idle(store, &stored.id)?
            && image.info()?.is_none()
        {
            image.delete(store)?;
            count += 1;
        }
    }
    Ok(count)
}

/// Makes limits hold whose changer died. One that can't hold keeps nothing else from being removed.
fn unfinished_changes(store: &Store, inventory: &Inventory) -> anyhow::Result<usize> {
    let mut count = 0;
    for stored in &inventory.images {
        let is_changing = stored.info.as_ref().is_some_and(|info| info.is_changing);
        match is_changing.then(|| resize::settle(store, &stored.id)).transpose() {
            Ok(settled) => count += usize::from(settled == Some(true)),
            Err(error) => {
                let data = json!({"image": stored.id, "error": format!("{error:#}")});
                log::error("limit-not-settled", &data);
            }
        }
    }
    Ok(count)
}

/// Removes layers whose unpacker died: one that lives holds the layer's lock.
fn unfinished_layers(store: &Store) -> anyhow::Result<usize> {
    let partial: OwnedFd = layer::open_directory(&store.partial())?;
    let mut count = 0;
    for name in names(&store.partial())? {
        if let Some(_lock) = store.try_lock_layer(&name.to_string_lossy())? {
            remove::tree(&partial, &name)?;
            count += 1;
        }
    }
    Ok(count)
}

/// Removes what is known of layers that were never finished, or were being collected when we crashed.
fn records_without_layer(store: &Store) -> anyhow::Result<()> {
    let meta = store.meta("").parent().context("the store has no sizes")?.to_owned();
    for name in names(&meta)? {
        let Some((chain_id, _)) = name.to_str().and_then(|name| name.split_once('.')) else {
            continue;
        };
        // Its unpacker writes the size first.
        if !store.layer(chain_id).exists()
            && let Some(_lock) = store.try_lock_layer(chain_id)?
            && !store.layer(chain_id).exists()
        {
            store.forget_layer(chain_id)?;
        }
    }
    Ok(())
}
