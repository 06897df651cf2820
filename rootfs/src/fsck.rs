//! `rootfs fsck`: is the store whole, and did anybody leave something behind?
//!
//! Damage is what can't be repaired without losing something: an image without one of its layers, a
//! layer that is not as it was unpacked. Leftovers are what dead processes did not finish or take
//! away; `rootfs prune` does. What a living process works on is neither.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use anyhow::Context;
use guardian_contract::run::Answer;
use serde::Serialize;

use crate::disk::{self, Disk};
use crate::image::{Image, Info};
use crate::inventory::{Inventory, StoredImage, names};
use crate::layer::Meta;
use crate::store::Store;
use crate::{held, layer, mounts, usage};

/// The exit code of a store that is not as it should be; 1 is a failure to look.
const FOUND: u8 = 3;

/// What was looked at, and what was found.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    images: usize,
    layers: usize,
    damaged: Vec<Finding>,
    left: Vec<Finding>,
}

/// One thing that is not as it should be.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    what: String,
    why: String,
}

impl Report {
    /// Returns the answer, with exit code 3 if there is something to tell.
    ///
    /// # Errors
    /// When it can't be encoded.
    pub(crate) fn answer(&self, is_json: bool) -> anyhow::Result<Answer> {
        let answer = if is_json { Answer::json(self)? } else { Answer::Text(self.text()) };
        Ok(match self.damaged.is_empty() && self.left.is_empty() {
            true => answer,
            false => Answer::Finding(FOUND, Box::new(answer)),
        })
    }

    fn text(&self) -> String {
        let mut text = format!("{} images, {} layers", self.images, self.layers);
        for (kind, findings) in [("damaged", &self.damaged), ("left", &self.left)] {
            for Finding { what, why } in findings {
                let _ = write!(text, "\n{kind}: {what}: {why}");
            }
        }
        text
    }

    fn damaged(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.damaged.push(Finding { what: what.into(), why: why.into() });
    }

    fn left(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.left.push(Finding { what: what.into(), why: why.into() });
    }
}

/// Checks the store.
///
/// # Errors
/// When there is none, or something can't be read.
pub(crate) fn fsck(store: &Store) -> anyhow::Result<Report> {
    let mut report = Report::default();
    store.expect()?;
    // Before the gate, which others wait for.
    Inventory::take_settled(store)?;
    // No layer goes while it is looked at.
    let _gate = store.keep_gate_open()?;
    let inventory = Inventory::take(store)?;
    (report.images, report.layers) = (inventory.images.len(), inventory.layers.len());
    for layer in &inventory.layers {
        check_layer(store, &layer.chain_id, &mut report)?;
    }
    let present: BTreeSet<&str> =
        inventory.layers.iter().map(|layer| layer.chain_id.as_str()).collect();
    for image in &inventory.images {
        match &image.info {
            Some(info) => check_image(store, image, info, &present, &mut report)?,
            None => check_unfinished(store, image, &mut report)?,
        }
    }
    check_mounts(store, &inventory, &mut report)?;
    check_leftovers(store, &mut report)?;
    Ok(report)
}

/// A layer takes what it took when it was unpacked: nobody writes to it.
fn check_layer(store: &Store, chain_id: &str, report: &mut Report) -> anyhow::Result<()> {
    let what = format!("layer {chain_id}");
    let Some(meta) = guardian_contract::file::read_json::<Meta>(&store.meta(chain_id))? else {
        report.damaged(what, "its size is not written down");
        return Ok(());
    };
    let found = usage::of(&layer::open_directory(&store.layer(chain_id))?)?;
    if (found.bytes, found.inodes) != (meta.size, meta.inodes) {
        let why = format!(
            "has {} bytes in {} inodes, had {} in {} when it was unpacked",
            found.bytes, found.inodes, meta.size, meta.inodes
        );
        report.damaged(what, why);
    }
    Ok(())
}

fn check_image(
    store: &Store,
    image: &StoredImage,
    info: &Info,
    present: &BTreeSet<&str>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let what = || format!("image {}", image.id);
    for layer in info.layers.iter().filter(|layer| !present.contains(layer.as_str())) {
        report.damaged(what(), format!("layer {layer} is missing"));
    }
    let kept = Image::peek(store, &image.id);
    let writes = match info.disk {
        Disk::Loop => kept.disk(),
        Disk::Unlimited | Disk::Project(_) => kept.upper(),
    };
    if !writes.exists() {
        report.damaged(what(), format!("{} is missing", writes.display()));
    }
    if let Disk::Project(project) = info.disk
        && disk::project_of(&kept.writes()) != Some(project)
    {
        report.damaged(what(), format!("is not charged to its project, {project}"));
    }
    if info.is_changing && Image::find_idle(store, &image.id)?.is_some() {
        report.left(what(), "who changed its limit died");
    }
    Ok(())
}

fn check_unfinished(store: &Store, image: &StoredImage, report: &mut Report) -> anyhow::Result<()> {
    if let Some(idle) = Image::find_idle(store, &image.id)?
        && idle.info()?.is_none()
    {
        report.left(format!("image {}", image.id), "its creator died");
    }
    Ok(())
}

/// Every mount in the store is the root filesystem of a whole image, once. An image may have none:
/// the host was started anew, or the mount is in a mount namespace of somebody else.
fn check_mounts(store: &Store, inventory: &Inventory, report: &mut Report) -> anyhow::Result<()> {
    let merged: BTreeSet<_> =
        inventory.images.iter().map(|image| Image::peek(store, &image.id).merged()).collect();
    let mut seen = BTreeSet::new();
    for point in mounts::beneath(store.root())? {
        if point == store.root() || is_in_an_image(store, inventory, &point) {
            continue;
        }
        if !merged.contains(&point) {
            report.left(format!("mount {}", point.display()), "no image is there");
        } else if !seen.insert(point.clone()) {
            report.left(format!("mount {}", point.display()), "is there more than once");
        }
    }
    Ok(())
}

/// A mount in the making, or one that somebody made inside a root filesystem.
fn is_in_an_image(store: &Store, inventory: &Inventory, point: &Path) -> bool {
    inventory.images.iter().any(|stored| {
        let image = Image::peek(store, &stored.id);
        let is_below = point.starts_with(image.merged()) && point != image.merged();
        is_below || stored.info.is_none() && point.starts_with(image.path())
    })
}

fn check_leftovers(store: &Store, report: &mut Report) -> anyhow::Result<()> {
    for name in names(&store.partial())? {
        let name = name.to_string_lossy().into_owned();
        if store.try_lock_layer(&name)?.is_some() && store.partial().join(&name).exists() {
            report.left(format!("layer {name}"), "who unpacked it died");
        }
    }
    for (directory, why) in [(store.trash(), "half removed"), (store.blobs(), "half downloaded")] {
        for name in names(&directory)? {
            let path = directory.join(name);
            let held = held::open(&path)?;
            if held.is_some_and(|held| held.try_lock().is_ok() && held::is_still(&held, &path)) {
                report.left(path.display().to_string(), why);
            }
        }
    }
    for project in disk::stale(store).context("look at projects")? {
        report.left(format!("project {project}"), "its image is gone");
    }
    Ok(())
}
