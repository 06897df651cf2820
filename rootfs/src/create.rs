//! `rootfs create`: an image's layers, a writable directory over them, one mount.

use std::path::PathBuf;

use anyhow::Context;
use guardian_contract::depot::{Handle, ImageProcess, Root};
use guardian_contract::fault::Fault;
use guardian_contract::ids::IdMaps;
use guardian_contract::image::Fragment;

use crate::disk::{self, Room};
use crate::image::{Image, Info};
use crate::layer::Layer;
use crate::overlay::{self, Overlay, Way};
use crate::owner::Owner;
use crate::progress::Progress;
use crate::registry::Access;
use crate::source::{self, Source};
use crate::store::Store;
use crate::unpack::TooLarge;
use crate::usage::Usage;

/// How much a container may write.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limit {
    /// Bytes; 0 is no limit.
    pub(crate) bytes: u64,
    /// Files and everything else that has an inode; 0 is no limit.
    pub(crate) inodes: u64,
    /// The only way of limiting to try.
    pub(crate) way: Option<disk::Way>,
    /// Whether only the container's own writes count, and not its image.
    pub(crate) is_exclusive: bool,
    /// Bytes that one layer may unpack to, whatever the rest says; 0 is no limit.
    pub(crate) layer_bytes: u64,
}

impl Limit {
    /// Bytes that a layer may take.
    pub(crate) fn room(self) -> u64 {
        let of_layer = if self.layer_bytes == 0 { u64::MAX } else { self.layer_bytes };
        self.of_image().min(of_layer)
    }

    /// Bytes that the image may take.
    fn of_image(self) -> u64 {
        if self.bytes == 0 || self.is_exclusive { u64::MAX } else { self.bytes }
    }

    /// Says which limit a layer broke if it was not the container's.
    pub(crate) fn explain(self, error: anyhow::Error) -> anyhow::Error {
        if error.downcast_ref::<TooLarge>().is_none() || self.room() != self.layer_bytes {
            return error;
        }
        let text = format!("a layer may unpack to {} bytes (--max-layer-bytes)", self.layer_bytes);
        error.context(Fault::invalid(text))
    }

    /// Refuses an image before it is downloaded that can't fit. The text is grootfs'.
    fn check_archives(self, layers: &[Layer]) -> anyhow::Result<()> {
        let bytes = layers.iter().fold(0_u64, |sum, layer| sum.saturating_add(layer.blob.size));
        if bytes <= self.of_image() {
            return Ok(());
        }
        let text = format!("layers exceed disk quota {bytes}/{} bytes", self.of_image());
        Err(Fault::invalid(text).into())
    }

    /// What the container may write beside its image.
    pub(crate) fn of_writes(self, image: Usage) -> anyhow::Result<Room> {
        if self.is_exclusive {
            return Ok(Room { bytes: self.bytes, inodes: self.inodes });
        }
        let bytes = left(self.bytes, image.bytes)
            .ok_or_else(|| Fault::invalid("disk limit is smaller than volume size"))?;
        let inodes = left(self.inodes, image.inodes).ok_or_else(|| {
            let (has, may) = (image.inodes, self.inodes);
            Fault::invalid(format!("image has {has} inodes, the inode limit is {may}"))
        })?;
        Ok(Room { bytes, inodes })
    }
}

/// What a limit leaves beside what is used; `None` is nothing, and 0 stays no limit.
fn left(limit: u64, used: u64) -> Option<u64> {
    match limit {
        0 => Some(0),
        limit => limit.checked_sub(used).filter(|left| *left > 0),
    }
}

/// How the root filesystem is to be shown to its container.
#[derive(Debug, Clone, Default)]
pub(crate) struct Show {
    /// The container's id maps; empty ones for a privileged container.
    pub(crate) maps: IdMaps,
    /// The only way of mapping to try.
    pub(crate) way: Option<Way>,
}

/// Makes the image `id` from `source` and returns what its container needs of it.
///
/// # Errors
/// `Exists` for a known id; otherwise whatever is wrong with the image, and nothing is left of it.
pub(crate) fn create(
    store: &Store,
    source: &Source,
    id: &Handle,
    show: &Show,
    limit: Limit,
    access: &Access,
) -> anyhow::Result<Fragment> {
    if let Source::Raw(path) = source {
        return raw(path.clone());
    }
    store.create()?;
    let image = Image::claim(store, id)?;
    let made = source.image(store, access).and_then(|found| {
        fill(store, &image, &found, show, limit)?;
        Ok(fragment(image.merged(), found.env))
    });
    made.map_err(|error| {
        let left = image.delete(store);
        left.err().map_or(error, |left| left.context("clean up after a failure"))
    })
}

fn fill(
    store: &Store,
    image: &Image,
    found: &source::Image,
    show: &Show,
    limit: Limit,
) -> anyhow::Result<()> {
    if found.is_remote() {
        limit.check_archives(&found.layers)?;
    }
    let lower = found.layers.iter().rev().map(|layer| layer.chain_id.clone()).collect();
    let mut info = Info { layers: lower, env: found.env.clone(), ..Info::default() };
    // From here on no layer that is found can be collected, so a download is the last thing missing.
    image.rely_on(store, &info.layers)?;
    let _archives = found.download(store, &Progress::Silent)?;
    let mut usage = Usage::default();
    for (at, layer) in found.layers.iter().enumerate() {
        let meta = layer
            .ensure(store, &found.layers[..at], limit.room())
            .map_err(|error| limit.explain(error))?;
        usage.bytes += meta.size;
        usage.inodes += meta.inodes;
    }
    let room = limit.of_writes(usage)?;
    info.image_bytes = usage.bytes;
    (info.limit_bytes, info.limit_inodes) = (room.bytes, room.inodes);
    info.disk = disk::create(store, image, room, limit.way)?;
    let writes = image.writes();
    let top = info.layers.first().context("image without layers")?;
    image.give_to(Owner::root_of(&show.maps)?)?;
    image.prepare(&store.layer(top))?;
    let layers = store.layers();
    let merged = image.merged();
    let way = Overlay {
        layers: &layers,
        lower: &info.layers,
        writes: &writes,
        merged: &merged,
        maps: &show.maps,
        way: show.way,
    }
    .mount()?;
    info.has_host_owners = way == Some(Way::LowerOnly);
    info.overhead = disk::seal(image, info.disk, room)?;
    // The overlay holds a filesystem of the image's own; that one's mount has done its work.
    overlay::unmount(&writes)?;
    image.finish(&info)
}

/// A directory is used as it is: nothing to make, and so nothing to delete.
fn raw(path: PathBuf) -> anyhow::Result<Fragment> {
    if !path.is_dir() {
        return Err(Fault::not_found(format!("no directory {}", path.display())).into());
    }
    Ok(fragment(path, Vec::new()))
}

fn fragment(path: PathBuf, env: Vec<String>) -> Fragment {
    Fragment { root: Root { path }, process: ImageProcess { env }, ..Fragment::default() }
}
