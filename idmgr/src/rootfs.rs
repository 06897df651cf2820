//! `rootfs prepare` and `rootfs release`: the layers of an image mounted as a container's root
//! filesystem, in the best way that works.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use guardian_contract::depot::Handle;
use guardian_contract::fault::Fault;
use guardian_contract::ids::IdMaps;
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, move_mount};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::container::expect_live;
use crate::entry::Entry;
use crate::overlay::{Layers, Way, stack};
use crate::record::{Overlay, Record, Strategy};
use crate::request::absolute;
use crate::source::{self, Claim, Source};
use crate::store::Store;
use crate::{mark, userns};

/// `rootfs prepare`
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
pub(crate) struct Prepare {
    /// Name of the container
    pub(crate) id: Handle,
    /// A layer of the image, topmost first; may be given again
    #[arg(long, required = true, value_name = "DIR", value_parser = absolute)]
    pub(crate) lower: Vec<PathBuf>,
    /// Where the container writes
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    pub(crate) upper: PathBuf,
    /// An empty directory beside it
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    pub(crate) work: PathBuf,
    /// Where the whole is mounted
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    pub(crate) target: PathBuf,
    /// The only way to try [default: the best that works, without chown]
    #[arg(long, value_enum)]
    pub(crate) way: Option<Way>,
}

/// Where the root filesystem is in a container, which names its claim.
const ROOT: &str = "/";

/// Mounts the layers; if they are mounted, says so again.
pub(crate) fn prepare(store: &Store, request: &Prepare) -> anyhow::Result<Value> {
    let id = &request.id;
    let (mut entry, record) = store.known(id)?;
    expect_live(id, &record)?;
    let known = record.overlay.clone();
    if let Some(overlay) = known.as_ref().filter(|one| one.ready && mark::is_mount(&one.target)) {
        return Ok(shown(overlay));
    }
    release(store, id, &mut entry)?;
    if mark::is_mount(&request.target) {
        let message = format!("something is mounted on {} already", request.target.display());
        return Err(Fault::exists(message).into());
    }
    // What one way left in the upper layer, another may not understand.
    let before = known.filter(|one| one.upper == request.upper).map(|one| one.way);
    let ways = match request.way.or(before) {
        Some(way) => vec![way],
        None => Way::AUTOMATIC.to_vec(),
    };
    let userns = userns::with_maps(&record.maps)?;
    let mut reasons = Vec::new();
    for way in ways {
        match attempt(store, request, way, (&record.maps, &userns), &mut entry) {
            Ok(overlay) => return Ok(shown(&overlay)),
            Err(error) => reasons.push(format!("{way:?}: {error:#}")),
        }
        release(store, id, &mut entry)
            .with_context(|| format!("{}; and to undo that", reasons.join("; ")))?;
        if let Some(record) = &mut entry.document {
            record.overlay = None;
        }
        entry.save()?;
    }
    let message = format!("no overlay of {}: {}", request.upper.display(), reasons.join("; "));
    Err(Fault::unsupported(message).into())
}

fn attempt(
    store: &Store,
    request: &Prepare,
    way: Way,
    (maps, userns): (&IdMaps, &File),
    entry: &mut Entry<Record>,
) -> anyhow::Result<Overlay> {
    let mut overlay = Overlay {
        target: request.target.clone(),
        lower: request.lower.clone(),
        upper: request.upper.clone(),
        work: request.work.clone(),
        key: source::key(&request.upper)?,
        way,
        ready: false,
    };
    put(entry, &overlay)?;
    let mut upper = claim(store, &request.id, &overlay, maps)?;
    if way == Way::Lower {
        source::change_owners(&mut upper, &overlay.upper, maps)?;
    }
    let layers = Layers {
        lower: &overlay.lower,
        upper: &overlay.upper,
        work: &overlay.work,
        userns: Some(userns),
        maps,
    };
    let merged = stack(&layers, way)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(merged.as_fd(), "", CWD, &overlay.target, flags)
        .with_context(|| format!("attach mount at {}", overlay.target.display()))?;
    if way.changes_merged() {
        source::change_owners(&mut upper, &overlay.target, maps)?;
    }
    overlay.ready = true;
    put(entry, &overlay)?;
    Ok(overlay)
}

fn claim(
    store: &Store,
    id: &Handle,
    overlay: &Overlay,
    maps: &IdMaps,
) -> anyhow::Result<Entry<Source>> {
    let mut entry = source::open(store, &overlay.key)?;
    let mut source = entry.document.clone().unwrap_or_else(|| Source::new(&overlay.upper));
    source.claim(Claim {
        container: id.clone(),
        destination: ROOT.into(),
        exclusive: true,
        strategy: if overlay.way.owns_upper() { Strategy::Chown } else { Strategy::Idmap },
        maps: maps.clone(),
        mark: None,
    })?;
    entry.document = Some(source);
    entry.save()?;
    Ok(entry)
}

fn put(entry: &mut Entry<Record>, overlay: &Overlay) -> anyhow::Result<()> {
    if let Some(record) = &mut entry.document {
        record.overlay = Some(overlay.clone());
    }
    entry.save()
}

/// Unmounts the root filesystem, and gives the upper layer its own owners back. How it was mounted
/// stays on record for the next time.
///
/// # Errors
/// The kernel's; it can be done again.
pub(crate) fn release(store: &Store, id: &Handle, entry: &mut Entry<Record>) -> anyhow::Result<()> {
    let Some(overlay) = entry.document.as_ref().and_then(|record| record.overlay.clone()) else {
        return Ok(());
    };
    mark::unmount(&overlay.target)?;
    source::release(store, &overlay.key, id, Path::new(ROOT))?;
    put(entry, &Overlay { ready: false, ..overlay })
}

/// Answers `rootfs release`.
pub(crate) fn release_one(store: &Store, id: &Handle) -> anyhow::Result<Value> {
    let (mut entry, record) = store.known(id)?;
    release(store, id, &mut entry)?;
    Ok(json!({"released": record.overlay.is_some_and(|overlay| overlay.ready)}))
}

/// Gives the upper layer of a paused container its own owners back.
pub(crate) fn rest(store: &Store, record: &Record) -> anyhow::Result<()> {
    match changed(record) {
        Some(overlay) => source::restore_owners(&mut source::open(store, &overlay.key)?).map(drop),
        None => Ok(()),
    }
}

/// Undoes [`rest`]: in the upper layer itself, where by now all is that was changed.
pub(crate) fn wake(store: &Store, record: &Record) -> anyhow::Result<()> {
    match changed(record) {
        Some(overlay) => {
            let mut entry = source::open(store, &overlay.key)?;
            source::change_owners(&mut entry, &overlay.upper, &record.maps).map(drop)
        }
        None => Ok(()),
    }
}

fn changed(record: &Record) -> Option<&Overlay> {
    record.overlay.as_ref().filter(|overlay| overlay.ready && overlay.way.owns_upper())
}

fn shown(overlay: &Overlay) -> Value {
    json!({"way": overlay.way, "target": overlay.target, "upper": overlay.upper})
}
