//! Layers' archives on their way from a registry into the store: one download for all who wait
//! for it, and no lock of the store held meanwhile.
//!
//! `STORE/blobs/DIGEST` is locked exclusively (flock(2)) by the one who downloads it, and shared
//! by those who need it until they have unpacked it; the last of them removes it. Locks die with
//! their holders. What a dead process downloaded is carried on from where it ended.

use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, anyhow, bail};
use guardian_contract::fault::Fault;
use guardian_contract::file::private_dir;
use guardian_contract::log;

use super::client::Client;
use super::origin::Origin;
use super::partial::Partial;
use crate::full;
use crate::held::is_still;
use crate::layer::{Blob, Layer};
use crate::progress::Progress;
use crate::store::Store;

/// Downloads at a time: more don't make a line faster, and registries count connections.
const AT_A_TIME: usize = 4;
/// The mode of a file that is whole and checked.
const WHOLE: u32 = 0o400;

/// What all downloads of an image have to do with each other.
pub(super) struct Watch<'a> {
    /// One of them failed, so the others are of no use.
    has_failed: AtomicBool,
    pub(super) progress: &'a Progress,
}

impl Watch<'_> {
    pub(super) fn is_over(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }
}

/// An archive in the store, kept there while this lives.
#[derive(Debug)]
pub(crate) struct Download {
    /// Holds the shared lock.
    file: File,
    path: PathBuf,
}

impl Drop for Download {
    fn drop(&mut self) {
        // The exclusive lock says that we are the last who needed it.
        if self.file.try_lock().is_ok() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Downloads the archives of those layers that the store lacks and that are not on this disk: those
/// that have URLs from there, all others from the registry.
///
/// # Errors
/// When one of them can't be had, or is another one than announced.
pub(crate) fn all(
    clients: &[Client],
    store: &Store,
    layers: &[Layer],
    progress: &Progress,
) -> anyhow::Result<Vec<Download>> {
    let mut lacking: Vec<&Layer> = Vec::new();
    for layer in layers {
        let is_listed = lacking.iter().any(|other| other.blob.digest == layer.blob.digest);
        let is_here = !layer.blob.path.starts_with(store.blobs());
        if !is_here && !is_listed && layer.find(store)?.is_none() {
            lacking.push(layer);
        }
    }
    if lacking.is_empty() {
        return Ok(Vec::new());
    }
    private_dir(&store.blobs())?;
    let next = AtomicUsize::new(0);
    let watch = Watch { has_failed: AtomicBool::new(false), progress };
    let done = Mutex::new(Ok(Vec::new()));
    let work = || {
        while let Some(layer) = lacking.get(next.fetch_add(1, Ordering::Relaxed)) {
            if watch.is_over() {
                return;
            }
            let got =
                origins(clients, layer).and_then(|origins| one(&origins, store, layer, &watch));
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            match (got, &mut *done) {
                (Ok(download), Ok(all)) => all.extend(download),
                (Err(error), Ok(_)) => {
                    watch.has_failed.store(true, Ordering::Relaxed);
                    *done = Err(error);
                }
                // The first failure is the one that counts.
                (_, Err(_)) => {}
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..AT_A_TIME.min(lacking.len()) {
            scope.spawn(work);
        }
        work();
    });
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    if done.as_ref().is_err_and(full::is_full) {
        // What can't be carried on for want of room only takes it from others.
        sweep(store)?;
    }
    done.map_err(|error| full::explain(store, error))
}

/// Removes what dead processes left, and returns how many things that were; what a living one
/// downloads or needs is its own.
///
/// # Errors
/// When something can't be removed.
pub(crate) fn sweep(store: &Store) -> anyhow::Result<usize> {
    let Ok(entries) = std::fs::read_dir(store.blobs()) else { return Ok(0) };
    let mut count = 0;
    for entry in entries {
        let path = entry.context("read the store")?.path();
        if let Ok(file) = File::open(&path) {
            drop(Download { file, path: path.clone() });
            count += usize::from(!path.exists());
        }
    }
    Ok(count)
}

fn origins<'a>(clients: &'a [Client], layer: &Layer) -> anyhow::Result<Vec<Origin<'a>>> {
    match layer.blob.urls.is_empty() {
        true => Ok(clients.iter().map(Origin::Registry).collect()),
        false => layer.blob.urls.iter().map(|url| Origin::url(url)).collect(),
    }
}

/// Returns the layer's archive, downloaded by us or by another; `None` when the layer has come
/// into the store meanwhile.
fn one(
    origins: &[Origin<'_>],
    store: &Store,
    layer: &Layer,
    watch: &Watch<'_>,
) -> anyhow::Result<Option<Download>> {
    let path = &layer.blob.path;
    loop {
        if layer.find(store)?.is_some() {
            return Ok(None);
        }
        let file = open(path)?;
        let is_ours = file.try_lock().is_ok();
        if is_ours && is_still(&file, path) && !is_whole(&file)? {
            let filled = fill_from_any(origins, &layer.blob, &file, watch);
            if filled.is_err() && is_empty(&file)? {
                std::fs::remove_file(path).context("remove download")?;
            }
            filled?;
        }
        // Waits for the one who downloads it, if that is not us.
        file.lock_shared().with_context(|| format!("lock {}", path.display()))?;
        if is_still(&file, path) && is_whole(&file)? {
            return Ok(Some(Download { file, path: path.clone() }));
        }
    }
}

fn open(path: &Path) -> anyhow::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).with_context(|| format!("open {}", path.display()))
}

fn is_whole(file: &File) -> anyhow::Result<bool> {
    let stat = file.metadata().context("look at download")?;
    Ok(stat.permissions().mode() & 0o777 == WHOLE)
}

fn is_empty(file: &File) -> anyhow::Result<bool> {
    Ok(file.metadata().context("look at download")?.len() == 0)
}

/// Asks one after the other; the last one's failure is the one that counts.
fn fill_from_any(
    origins: &[Origin<'_>],
    blob: &Blob,
    file: &File,
    watch: &Watch<'_>,
) -> anyhow::Result<()> {
    let mut filled = Err(anyhow!("nobody to ask"));
    for origin in origins {
        filled = fill(origin, blob, file, watch);
        // Of a full disk nobody else knows better.
        if watch.is_over() || filled.as_ref().map_or_else(full::is_full, |()| true) {
            break;
        }
    }
    filled
}

/// Downloads what is missing of the archive and checks all of it.
fn fill(origin: &Origin<'_>, blob: &Blob, file: &File, watch: &Watch<'_>) -> anyhow::Result<()> {
    let expected = blob.digest.as_deref().context("layer without a digest")?;
    let mut was_begun = !is_empty(file)?;
    let size = match (origin, blob.size) {
        // Nobody asked, for the store had the layer; it was collected since.
        (Origin::Url(..), 0) => origin.size()?,
        (_, size) => size,
    };
    loop {
        let mut partial = Partial::resume(file, &blob.path, expected, size)?;
        partial.complete(origin, watch)?;
        let actual = partial.digest();
        if actual == expected {
            break;
        }
        file.set_len(0).context("drop download")?;
        // What was there may have been another's fault, the rest is the registry's.
        if !std::mem::take(&mut was_begun) {
            let text = format!("layerID digest mismatch: expected: {expected}, actual: {actual}");
            bail!(Fault::invalid(text));
        }
    }
    file.set_permissions(Permissions::from_mode(WHOLE)).context("mark download as whole")?;
    log::info("layer-downloaded", &serde_json::json!({"digest": expected, "bytes": size}));
    Ok(())
}
