//! `mount prepare` and `mount release`: a source of the host made ready to be mounted in one
//! container, by an id-mapped mount if that can be, by changing owners only where that was asked for.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, ValueEnum};
use guardian_contract::depot::Handle;
use guardian_contract::fault::{Fault, Kind};
use guardian_contract::ids::IdMaps;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::container::expect_live;
use crate::entry::Entry;
use crate::record::{Mount, Record, Strategy};
use crate::request::absolute;
use crate::source::{self, Claim, Source};
use crate::store::Store;
use crate::translate::{Translation, based};
use crate::{mark, shift};

/// `mount prepare`
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
pub(crate) struct Prepare {
    /// Name of the container
    pub(crate) id: Handle,
    /// File or directory of the host
    #[arg(long = "src", value_name = "PATH", value_parser = absolute)]
    pub(crate) source: PathBuf,
    /// Where it will be in the container, which names the mount
    #[arg(long = "dst", value_name = "PATH")]
    pub(crate) destination: PathBuf,
    /// Refuse to share it with other containers
    #[arg(long)]
    pub(crate) exclusive: bool,
    /// With the mounts below it
    #[arg(long)]
    pub(crate) recursive: bool,
    /// Not to be written by the container
    #[arg(long)]
    pub(crate) read_only: bool,
    /// How its owners become the container's
    #[arg(long, value_enum, default_value_t = Wanted::Auto)]
    pub(crate) strategy: Wanted,
    /// Owner on disk that is to be root of the container: UID:GID, or `owner` for the source's own
    #[arg(long, value_name = "UID:GID", default_value = "0:0")]
    pub(crate) base: Base,
}

/// How owners become the container's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Wanted {
    /// By an id-mapped mount if that works, else not at all
    Auto,
    /// By an id-mapped mount, or it is an error
    Idmap,
    /// By changing owners on disk until the mount is released
    Chown,
    /// Not at all
    None,
}

/// Whose files are shown as those of the container's root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Base {
    /// The source's owner.
    Owner,
    /// This user and group.
    Ids(u32, u32),
}

impl std::str::FromStr for Base {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        if text == "owner" {
            return Ok(Self::Owner);
        }
        let ids = text
            .split_once(':')
            .and_then(|(uid, gid)| Some(Self::Ids(uid.parse().ok()?, gid.parse().ok()?)));
        ids.ok_or_else(|| Fault::invalid(format!("'{text}' is not UID:GID or owner")))
    }
}

/// Prepares a mount; the same one again is the same answer.
pub(crate) fn prepare(store: &Store, request: &Prepare) -> anyhow::Result<Value> {
    let (mut entry, record) = store.known(&request.id)?;
    expect_live(&request.id, &record)?;
    prepare_in(store, request, &mut entry).map(|mount| shown(&mount))
}

/// The same, with the container's entry in hand.
pub(crate) fn prepare_in(
    store: &Store,
    request: &Prepare,
    entry: &mut Entry<Record>,
) -> anyhow::Result<Mount> {
    let Some(record) = entry.document.clone() else {
        return Err(Fault::not_found(format!("container '{}'", request.id)).into());
    };
    let mut mount = wanted(request)?;
    let present = record.mounts.iter().find(|one| one.destination == mount.destination);
    if let Some(present) = present.filter(|present| present.ready) {
        if present.key != mount.key {
            let (destination, source) = (mount.destination.display(), present.source.display());
            let message = format!("{destination} of '{}' is {source} already", request.id);
            return Err(Fault::exists(message).into());
        }
    } else if present.is_some() {
        release(store, &request.id, entry, &mount.destination)?;
    }
    put(entry, mount.clone())?;
    match make(store, request, &record.maps, &mut mount) {
        Ok(()) => {
            mount.ready = true;
            put(entry, mount.clone())?;
            Ok(mount)
        }
        Err(error) => {
            release(store, &request.id, entry, &mount.destination)
                .with_context(|| format!("{error:#}; and to undo that"))?;
            Err(error)
        }
    }
}

fn wanted(request: &Prepare) -> anyhow::Result<Mount> {
    let source = std::fs::canonicalize(&request.source)
        .with_context(|| format!("find {}", request.source.display()))?;
    let base = match request.base {
        Base::Ids(uid, gid) => (uid, gid),
        Base::Owner => shift::owner(&source)?,
    };
    Ok(Mount {
        destination: Path::new("/").join(&request.destination),
        key: source::key(&source)?,
        shown: source.clone(),
        source,
        strategy: Strategy::None,
        exclusive: request.exclusive,
        recursive: request.recursive,
        read_only: request.read_only,
        base,
        ready: false,
    })
}

fn put(entry: &mut Entry<Record>, mount: Mount) -> anyhow::Result<()> {
    if let Some(record) = &mut entry.document {
        match record.mounts.iter_mut().find(|one| one.destination == mount.destination) {
            Some(present) => *present = mount,
            None => record.mounts.push(mount),
        }
    }
    entry.save()
}

fn make(store: &Store, request: &Prepare, maps: &IdMaps, mount: &mut Mount) -> anyhow::Result<()> {
    let maps = &based(maps, mount.base)?;
    match request.strategy {
        Wanted::None => claim(store, request, maps, mount).map(drop),
        Wanted::Idmap => idmap(store, request, maps, mount),
        Wanted::Chown => {
            mount.strategy = Strategy::Chown;
            let mut entry = claim(store, request, maps, mount)?;
            // What belongs to the container already stays so.
            let owner = shift::owner(&mount.source)?;
            let there = Translation::to_host(maps);
            if entry.document.as_ref().is_some_and(|one| one.shifted.is_none())
                && there.is_target(owner)
            {
                return Ok(());
            }
            source::change_owners(&mut entry, &mount.source, maps).map(drop)
        }
        Wanted::Auto => match idmap(store, request, maps, mount) {
            Err(error) if Fault::of(&error).kind == Kind::Unsupported => {
                mount.strategy = Strategy::None;
                mount.shown.clone_from(&mount.source);
                claim(store, request, maps, mount).map(drop)
            }
            done => done,
        },
    }
}

fn idmap(store: &Store, request: &Prepare, maps: &IdMaps, mount: &mut Mount) -> anyhow::Result<()> {
    // A container with the host's own ids needs no other view.
    if Translation::to_host(maps).is_nothing() {
        return claim(store, request, maps, mount).map(drop);
    }
    mount.strategy = Strategy::Idmap;
    let name = source::mark_name(&mount.key, maps, mount.recursive)?;
    mount.shown = store.marks().join(name);
    // The claim is held while the mark is made, so that nobody takes it away meanwhile.
    let _entry = claim(store, request, maps, mount)?;
    mark::ensure(&mount.shown, &mount.source, maps, mount.recursive)
}

fn claim(
    store: &Store,
    request: &Prepare,
    maps: &IdMaps,
    mount: &Mount,
) -> anyhow::Result<Entry<Source>> {
    let mut entry = source::open(store, &mount.key)?;
    let is_mark = mount.strategy == Strategy::Idmap;
    let mark = mount.shown.file_name().filter(|_| is_mark);
    let claim = Claim {
        container: request.id.clone(),
        destination: mount.destination.clone(),
        exclusive: mount.exclusive,
        strategy: mount.strategy,
        maps: maps.clone(),
        mark: mark.map(|name| name.to_string_lossy().into_owned()),
    };
    let mut source = entry.document.clone().unwrap_or_else(|| Source::new(&mount.source));
    source.claim(claim)?;
    entry.document = Some(source);
    entry.save()?;
    Ok(entry)
}

/// Gives up the mount at a destination; one that is not there is no error.
///
/// # Errors
/// The kernel's; the mount is then still on record.
pub(crate) fn release(
    store: &Store,
    id: &Handle,
    entry: &mut Entry<Record>,
    destination: &Path,
) -> anyhow::Result<bool> {
    let Some(record) = &entry.document else { return Ok(false) };
    let Some(mount) = record.mounts.iter().find(|one| one.destination == destination) else {
        return Ok(false);
    };
    source::release(store, &mount.key, id, destination)?;
    if let Some(record) = &mut entry.document {
        record.mounts.retain(|one| one.destination != destination);
    }
    entry.save()?;
    Ok(true)
}

/// Answers `mount release`, for one destination or for all.
pub(crate) fn release_some(
    store: &Store,
    id: &Handle,
    destinations: &[PathBuf],
) -> anyhow::Result<Value> {
    let (mut entry, record) = store.known(id)?;
    let all: Vec<PathBuf> = record.mounts.iter().map(|one| one.destination.clone()).collect();
    let mut released = Vec::new();
    for destination in if destinations.is_empty() { &all } else { destinations } {
        if release(store, id, &mut entry, destination)? {
            released.push(destination);
        }
    }
    Ok(json!({"released": released}))
}

/// What callers are told: the mount for the runtime, and how its owners become the container's.
pub(crate) fn shown(mount: &Mount) -> Value {
    let bind = if mount.recursive { "rbind" } else { "bind" };
    let access = if mount.read_only { "ro" } else { "rw" };
    json!({
        "destination": mount.destination,
        "source": mount.shown,
        "type": "bind",
        "options": [bind, access],
        "strategy": mount.strategy,
        "of": mount.source,
    })
}
