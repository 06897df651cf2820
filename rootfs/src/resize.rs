//! `rootfs resize`: another limit on what a container may write, while it runs.
//!
//! That a change has begun is written down before anything is done, so that what is told of an image
//! whose change was cut off is measured and not remembered; `fsck` tells of it, and `prune` or
//! another `resize` puts it right.

use anyhow::Context;
use guardian_contract::depot::Handle;
use guardian_contract::fault::Fault;
use guardian_contract::file::read_json;
use guardian_contract::image::Stats;
use guardian_contract::run::check_caller;

use crate::create::Limit;
use crate::disk::{self, Room};
use crate::image::{Image, Info};
use crate::layer::Meta;
use crate::stats::stats;
use crate::store::Store;
use crate::usage::Usage;

/// What is to change; what is not given stays as it is, and 0 is no limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change {
    pub(crate) bytes: Option<u64>,
    pub(crate) inodes: Option<u64>,
    /// Whether only the container's own writes count, and not its image.
    pub(crate) is_exclusive: bool,
}

/// Changes the limit of an image, and returns what it then takes and may take.
///
/// # Errors
/// When there is no such image, when its container uses more already, or when nothing could hold the
/// limit; the former one then stays.
pub(crate) fn resize(store: &Store, id: &Handle, change: Change) -> anyhow::Result<Stats> {
    if change.bytes.is_none() && change.inodes.is_none() {
        let text = "no limit is to change: give --disk-limit-size-bytes or --inode-limit";
        return Err(Fault::invalid(text).into());
    }
    let unknown = || Fault::not_found(format!("Image `{id}` not found"));
    let image = Image::find(store, id)?.ok_or_else(unknown)?;
    let info = image.info()?.ok_or_else(unknown)?;
    check_caller()?;
    let (of_image, room) = wanted(store, &info, change)?;
    let used = disk::content(store, &image, &info)?;
    let is_over = |limit: u64, used: u64| limit > 0 && limit < used;
    let of_image = if change.is_exclusive { Usage::default() } else { of_image };
    for (what, room, used, of_image) in [
        ("disk limit", room.bytes, used.bytes, of_image.bytes),
        ("inode limit", room.inodes, used.inodes, of_image.inodes),
    ] {
        if is_over(room, used) {
            let (limit, used) = (room + of_image, used + of_image);
            let text = format!("{what} of {limit} is below the {used} in use");
            return Err(Fault::invalid(text).into());
        }
    }
    hold(store, &image, info, room)?;
    stats(store, id)
}

/// Makes the limit that is told of an image hold, if a change of it was cut off and nobody is at work
/// on it; tells whether there was anything to do.
///
/// # Errors
/// When that can't be.
pub(crate) fn settle(store: &Store, id: &Handle) -> anyhow::Result<bool> {
    let Some(image) = Image::find_idle(store, id)? else { return Ok(false) };
    let Some(info) = image.info()?.filter(|info| info.is_changing) else { return Ok(false) };
    let room = info.room();
    hold(store, &image, info, room).map(|()| true)
}

/// What the image takes, and what the container may write.
fn wanted(store: &Store, info: &Info, change: Change) -> anyhow::Result<(Usage, Room)> {
    let mut image = Usage { bytes: info.image_bytes, inodes: 0 };
    for layer in info.layers.iter().filter(|_| change.inodes.is_some()) {
        let meta: Option<Meta> = read_json(&store.meta(layer))?;
        image.inodes += meta.with_context(|| format!("layer {layer} is missing"))?.inodes;
    }
    let limit = Limit {
        bytes: change.bytes.unwrap_or_default(),
        inodes: change.inodes.unwrap_or_default(),
        is_exclusive: change.is_exclusive,
        ..Limit::default()
    };
    let Room { bytes, inodes } = limit.of_writes(image)?;
    let bytes = change.bytes.map_or(info.limit_bytes, |_| bytes);
    let inodes = change.inodes.map_or(info.limit_inodes, |_| inodes);
    Ok((image, Room { bytes, inodes }))
}

fn hold(store: &Store, image: &Image, info: Info, room: Room) -> anyhow::Result<()> {
    image.finish(&Info { is_changing: true, ..info.clone() })?;
    let changed = disk::change(store, image, &info, room);
    // Half of it may have been done.
    let (room, held) = match &changed {
        Ok(overhead) => (room, Ok(*overhead)),
        Err(_) => (info.room(), disk::change(store, image, &info, info.room())),
    };
    if let Ok(overhead) = held {
        let (limit_bytes, limit_inodes) = (room.bytes, room.inodes);
        let known = Info { limit_bytes, limit_inodes, overhead, is_changing: false, ..info };
        image.finish(&known)?;
    }
    changed.map(drop)
}
