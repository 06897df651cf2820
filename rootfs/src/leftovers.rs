//! What dead processes left takes room: unfinished images, layers and downloads, and what was half
//! removed.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;

use anyhow::Context;

use crate::image::Image;
use crate::inventory::{Inventory, names};
use crate::store::Store;
use crate::{held, usage};

/// Returns the bytes of unfinished images; one that a living process works on is its own.
///
/// # Errors
/// When something can't be read.
pub(crate) fn of_images(store: &Store, inventory: &Inventory) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for stored in inventory.images.iter().filter(|stored| stored.info.is_none()) {
        if let Some(image) = Image::find_idle(store, &stored.id)?
            && image.info()?.is_none()
        {
            bytes += of_image(&image)?;
        }
    }
    Ok(bytes)
}

/// Returns the bytes of everything else.
///
/// # Errors
/// When something can't be read.
pub(crate) fn beside_images(store: &Store) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for name in names(&store.partial())? {
        if let Some(_lock) = store.try_lock_layer(&name.to_string_lossy())?
            && let Some(directory) = held::open(&store.partial().join(name))?
        {
            bytes += usage::of(&directory.into())?.bytes;
        }
    }
    for name in names(&store.trash())? {
        let held = held::open(&store.trash().join(name))?;
        if let Some(held) = held.filter(|held| held.try_lock().is_ok()) {
            bytes += usage::of(&held.into())?.bytes;
        }
    }
    for name in names(&store.blobs())? {
        let held = held::open(&store.blobs().join(name))?;
        if let Some(held) = held.filter(|held| held.try_lock().is_ok()) {
            bytes += held.metadata().context("look at download")?.blocks() * 512;
        }
    }
    Ok(bytes)
}

/// What its creator wrote, not what may be mounted there.
fn of_image(image: &Image) -> anyhow::Result<u64> {
    match std::fs::metadata(image.disk()) {
        Ok(disk) => Ok(disk.blocks() * 512),
        Err(error) if error.kind() == ErrorKind::NotFound => match held::open(&image.upper())? {
            Some(upper) => Ok(usage::of(&upper.into())?.bytes),
            None => Ok(0),
        },
        Err(error) => Err(error).context("look at disk file"),
    }
}
