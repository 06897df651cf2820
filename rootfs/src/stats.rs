//! `rootfs stats`: how much room one image takes.

use guardian_contract::depot::Handle;
use guardian_contract::fault::Fault;
use guardian_contract::image::{DiskUsage, Stats};

use crate::disk;
use crate::image::Image;
use crate::store::Store;

/// Measures an image.
///
/// # Errors
/// `NotFound` for an unknown one.
pub(crate) fn stats(store: &Store, id: &Handle) -> anyhow::Result<Stats> {
    let unknown = || Fault::not_found(format!("Image `{id}` not found"));
    // Not locked: whoever measures must not keep a container from going away.
    let image = Image::peek(store, id);
    let info = image.info()?.ok_or_else(unknown)?;
    let exclusive_bytes_used = disk::used(store, &image, &info)?;
    let total_bytes_used = info.image_bytes + exclusive_bytes_used;
    let disk_usage = DiskUsage {
        total_bytes_used,
        exclusive_bytes_used,
        quota_size_bytes: info.limit_bytes,
        committed_space_bytes: info.image_bytes + info.limit_bytes,
    };
    Ok(Stats { disk_usage })
}
