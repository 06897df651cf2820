//! `rootfs df`: what the store's bytes are for, and which of them could go.

use std::fmt::Write;

use anyhow::Context;
use guardian_contract::depot::Handle;
use serde::Serialize;

use crate::inventory::Inventory;
use crate::store::Store;
use crate::{leftovers, stats};

/// All in bytes. `shared`, `exclusive` and `reclaimable` are disjoint and make up `total`.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Usage {
    /// Size of the filesystem that the store is on.
    filesystem_bytes: u64,
    /// What of it is left, for whomever.
    available_bytes: u64,
    /// What the store takes.
    total_bytes: u64,
    /// Layers that images lie on, each counted once.
    shared_bytes: u64,
    /// What images hold of their own.
    exclusive_bytes: u64,
    /// Unused layers and what dead processes left.
    reclaimable_bytes: u64,
    /// What images may hold of their own, as far as they are limited.
    committed_bytes: u64,
    images: Vec<ImageUsage>,
    layers: Vec<LayerUsage>,
}

/// One image.
#[derive(Debug, Serialize)]
struct ImageUsage {
    id: Handle,
    /// Its layers, also those that it shares, and what it holds of its own.
    total_bytes: u64,
    /// What it holds of its own: what would be free without it, its layers aside.
    exclusive_bytes: u64,
    /// What it may hold of its own; 0 is no limit.
    limit_bytes: u64,
}

/// One layer.
#[derive(Debug, Serialize)]
struct LayerUsage {
    chain_id: String,
    bytes: u64,
    /// How many images lie on it.
    images: usize,
}

/// Measures the store.
///
/// # Errors
/// When there is none, or something can't be read.
pub(crate) fn df(store: &Store) -> anyhow::Result<Usage> {
    let mut df = Usage::default();
    store.expect()?;
    let filesystem = rustix::fs::statvfs(store.root()).context("look at the store's filesystem")?;
    df.filesystem_bytes = filesystem.f_blocks * filesystem.f_frsize;
    df.available_bytes = filesystem.f_bavail * filesystem.f_frsize;
    let inventory = Inventory::take(store)?;
    df.committed_bytes = inventory.committed_bytes();
    df.reclaimable_bytes = inventory.unused().map(|layer| layer.bytes).sum();
    df.shared_bytes = inventory.layer_bytes() - df.reclaimable_bytes;
    df.reclaimable_bytes += leftovers::of_images(store, &inventory)?;
    df.reclaimable_bytes += leftovers::beside_images(store)?;
    for image in inventory.images {
        // One that is being made or removed is not an image; nor is one that went meanwhile.
        let Some(info) = image.info else { continue };
        let Ok(stats) = stats::stats(store, &image.id) else { continue };
        df.exclusive_bytes += stats.disk_usage.exclusive_bytes_used;
        df.images.push(ImageUsage {
            id: image.id,
            total_bytes: stats.disk_usage.total_bytes_used,
            exclusive_bytes: stats.disk_usage.exclusive_bytes_used,
            limit_bytes: info.limit_bytes,
        });
    }
    let layers = inventory.layers.into_iter();
    df.layers = layers
        .map(|layer| LayerUsage {
            chain_id: layer.chain_id,
            bytes: layer.bytes,
            images: layer.images,
        })
        .collect();
    df.total_bytes = df.shared_bytes + df.exclusive_bytes + df.reclaimable_bytes;
    Ok(df)
}

impl Usage {
    /// A table for people.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        for (what, bytes) in [
            ("filesystem", self.filesystem_bytes),
            ("available", self.available_bytes),
            ("total", self.total_bytes),
            ("shared", self.shared_bytes),
            ("exclusive", self.exclusive_bytes),
            ("reclaimable", self.reclaimable_bytes),
            ("committed", self.committed_bytes),
        ] {
            let _ = writeln!(text, "{what:<12}{:>12}", readable(bytes));
        }
        let width = self.images.iter().map(|image| image.id.as_str().len()).max();
        let width = width.unwrap_or_default().max("IMAGE".len());
        if !self.images.is_empty() {
            text.push('\n');
        }
        let mut row = |name: &str, columns: [&str; 3]| {
            let [total, exclusive, limit] = columns;
            let _ = writeln!(text, "{name:<width$}{total:>12}{exclusive:>12}{limit:>12}");
        };
        if !self.images.is_empty() {
            row("IMAGE", ["TOTAL", "EXCLUSIVE", "LIMIT"]);
        }
        for image in &self.images {
            let limit = match image.limit_bytes {
                0 => "-".to_owned(),
                bytes => readable(bytes),
            };
            let (total, exclusive) = (readable(image.total_bytes), readable(image.exclusive_bytes));
            row(image.id.as_str(), [&total, &exclusive, &limit]);
        }
        text
    }
}

/// Bytes for people: three digits or a little more, in powers of 1024.
fn readable(bytes: u64) -> String {
    let (mut unit, mut scale) = ("B", 1);
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if bytes / scale < 1024 {
            break;
        }
        (unit, scale) = (larger, scale * 1024);
    }
    let (whole, tenths) = (bytes / scale, bytes % scale * 10 / scale);
    if scale == 1 { format!("{whole} {unit}") } else { format!("{whole}.{tenths} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_readable() {
        for (bytes, want) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_500_000, "1.4 MiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(readable(bytes), want);
        }
    }
}
