//! Layers' archives on their way from a registry into the store: one download for all who wait
//! for it, and no lock of the store held meanwhile.
//!
//! `STORE/blobs/DIGEST` is locked exclusively (flock(2)) by the one who downloads it, and shared
//! by those who need it until they have unpacked it; the last of them removes it. Locks die with
//! their holders. What a dead process downloaded is carried on from where it ended.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, anyhow, bail};
use guardian_contract::fault::{Fault, Kind};
use guardian_contract::file::private_dir;
use guardian_contract::log;
use ureq::http::StatusCode;

use super::client::Client;
use crate::digest::Hashed;
use crate::layer::{Blob, Layer, size_mismatch};
use crate::progress::{Progress, State};
use crate::store::{Store, is_still};

/// Downloads at a time: more don't make a line faster, and registries count connections.
const AT_A_TIME: usize = 4;
/// How often a download may break off without having got further.
const TRIES: u32 = 4;
const BUFFER: usize = 256 * 1024;
/// The mode of a file that is whole and checked.
const WHOLE: u32 = 0o400;

/// What all downloads of an image have to do with each other.
struct Watch<'a> {
    /// One of them failed, so the others are of no use.
    has_failed: AtomicBool,
    progress: &'a Progress,
}

impl Watch<'_> {
    fn is_over(&self) -> bool {
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

/// Downloads the archives of those layers that the store lacks.
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
        if !is_listed && layer.find(store)?.is_none() {
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
            let got = one(clients, store, layer, &watch);
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
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Removes what dead processes left; what a living one downloads or needs is its own.
///
/// # Errors
/// When something can't be removed.
pub(crate) fn sweep(store: &Store) -> anyhow::Result<()> {
    let Ok(entries) = std::fs::read_dir(store.blobs()) else { return Ok(()) };
    for entry in entries {
        let path = entry.context("read the store")?.path();
        if let Ok(file) = File::open(&path) {
            drop(Download { file, path });
        }
    }
    Ok(())
}

/// Returns the layer's archive, downloaded by us or by another; `None` when the layer has come
/// into the store meanwhile.
fn one(
    clients: &[Client],
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
            let filled = fill_from_any(clients, &layer.blob, &file, watch);
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
    clients: &[Client],
    blob: &Blob,
    file: &File,
    watch: &Watch<'_>,
) -> anyhow::Result<()> {
    let mut filled = Err(anyhow!("nobody to ask"));
    for client in clients {
        filled = fill(client, blob, file, watch);
        if filled.is_ok() || watch.is_over() {
            break;
        }
    }
    filled
}

/// Downloads what is missing of the archive and checks all of it.
fn fill(client: &Client, blob: &Blob, file: &File, watch: &Watch<'_>) -> anyhow::Result<()> {
    let expected = blob.digest.as_deref().context("layer without a digest")?;
    let mut was_begun = !is_empty(file)?;
    loop {
        let mut partial = Partial::resume(file, blob.size)?;
        partial.complete(client, expected, watch)?;
        let actual = partial.hash.finish().0;
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
    log::info("layer-downloaded", &serde_json::json!({"digest": expected, "bytes": blob.size}));
    Ok(())
}

/// A file and the hash of what is in it.
struct Partial<'a> {
    file: &'a File,
    hash: Hashed<std::io::Sink>,
    has: u64,
    size: u64,
}

impl<'a> Partial<'a> {
    /// Reads again what is there already.
    fn resume(mut file: &'a File, size: u64) -> anyhow::Result<Self> {
        if file.metadata().context("look at download")?.len() > size {
            file.set_len(0).context("drop download")?;
        }
        file.seek(SeekFrom::Start(0)).context("read download")?;
        let mut hash = Hashed::new(std::io::sink());
        let has = std::io::copy(&mut file, &mut hash).context("read download")?;
        Ok(Self { file, hash, has, size })
    }

    fn restart(&mut self) -> anyhow::Result<()> {
        self.file.set_len(0).context("drop download")?;
        self.file.seek(SeekFrom::Start(0)).context("drop download")?;
        (self.hash, self.has) = (Hashed::new(std::io::sink()), 0);
        Ok(())
    }

    /// Downloads until all is there; a connection that breaks off is made again, as long as each
    /// brings something.
    fn complete(&mut self, client: &Client, digest: &str, watch: &Watch<'_>) -> anyhow::Result<()> {
        let mut fruitless = 0;
        while self.has < self.size {
            let before = self.has;
            let broken = self.carry_on(client, digest, watch)?;
            fruitless = if self.has > before { 0 } else { fruitless + 1 };
            if fruitless == TRIES {
                let text = format!("download of layer {digest} breaks off at byte {}", self.has);
                return Err(broken).context(Fault::new(Kind::Unavailable, text));
            }
        }
        Ok(())
    }

    /// Returns why the connection broke off, if it did before its time.
    fn carry_on(
        &mut self,
        client: &Client,
        digest: &str,
        watch: &Watch<'_>,
    ) -> anyhow::Result<anyhow::Error> {
        let response = client.blob(digest, self.has)?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if self.has > 0 => {}
            StatusCode::OK => self.restart()?,
            _ => {
                self.restart()?;
                return Ok(anyhow!("the registry answers {}", response.status()));
            }
        }
        let announced = response.body().content_length();
        let wanted = self.size - self.has;
        if announced.is_some_and(|length| length != wanted) {
            let actual = self.has + announced.unwrap_or_default();
            bail!(size_mismatch(self.size, actual));
        }
        let mut told = watch.progress.layer(digest, self.size);
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; BUFFER];
        loop {
            if watch.is_over() {
                bail!("another layer failed");
            }
            let length = match body.read(&mut buffer) {
                Ok(0) => return Ok(anyhow!("the connection was closed")),
                Ok(length) => length,
                Err(error) => return Ok(error.into()),
            };
            if self.has + length as u64 > self.size {
                bail!(size_mismatch(self.size, self.has + length as u64));
            }
            let bytes = &buffer[..length];
            self.file.write_all(bytes).context("write download")?;
            self.hash.write_all(bytes).context("hash download")?;
            self.has += length as u64;
            told.is(State::Download, self.has);
        }
    }
}
