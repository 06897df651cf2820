//! `recover` and `gc`: after a crash of ours or of the host, everything begun is finished or taken
//! back, and everything mounted for nobody goes. What containers wrote is never touched by it.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use guardian_contract::depot::Handle;
use guardian_contract::file;
use serde_json::{Value, json};

use crate::entry::{self, Entry};
use crate::record::{Record, State, Unfinished};
use crate::source::{self, Source};
use crate::store::Store;
use crate::{container, copy, mark, mounts, removal, volume, walk};

/// Puts everything in order. What fails is told, and stops nothing.
pub(crate) fn recover(store: &Store) -> anyhow::Result<Value> {
    file::private_dir(&store.state_dir)?;
    // One at a time: two would only do everything twice.
    let _lock = file::lock(&store.state_dir.join("recover.lock"))?;
    let mut done = Vec::new();
    for name in entry::names(&store.containers())? {
        note(&mut done, &name, container(store, &name));
    }
    for key in entry::names(&store.sources())? {
        note(&mut done, &key, source(store, &key));
    }
    for name in entry::names(&store.marks())? {
        note(&mut done, &name, unwanted_mark(store, &name));
    }
    let failed = done.iter().any(|one| one.get("error").is_some());
    Ok(json!({"done": done, "complete": !failed}))
}

fn note(done: &mut Vec<Value>, of: &str, result: anyhow::Result<Option<&'static str>>) {
    match result {
        Ok(None) => {}
        Ok(Some(action)) => done.push(json!({"of": of, "action": action})),
        Err(error) => done.push(json!({"of": of, "error": format!("{error:#}")})),
    }
}

fn container(store: &Store, name: &str) -> anyhow::Result<Option<&'static str>> {
    let directory = store.containers().join(name);
    let Ok(id) = name.parse::<Handle>() else { return Ok(None) };
    if Entry::<Record>::peek(&directory).is_err() {
        // Its ids stay taken: somebody may still run with them.
        entry::quarantine(&directory)?;
        return Ok(Some("unreadable, put aside"));
    }
    let mut entry = store.container(&id)?;
    let Some(record) = entry.document.clone() else {
        entry.delete()?;
        return Ok(None);
    };
    if matches!(record.unfinished, Some(Unfinished::Register | Unfinished::Remove)) {
        drop(entry);
        container::remove(store, &id)?;
        return Ok(Some("removed"));
    }
    if record.has_died() || record.unfinished.is_some() {
        // After a reboot the root filesystem is not mounted, and nothing can be written back.
        container::stop(store, &id, &mut entry, !record.is_of_another_boot())?;
        return Ok(Some("stopped"));
    }
    live(store, &id, &record, &mut entry)
}

/// A container that lives on: what was half prepared for it goes.
fn live(
    store: &Store,
    id: &Handle,
    record: &Record,
    entry: &mut Entry<Record>,
) -> anyhow::Result<Option<&'static str>> {
    let mut action = None;
    for mount in record.mounts.iter().filter(|mount| !mount.ready) {
        mounts::release(store, id, entry, &mount.destination)?;
        action = Some("released a mount");
    }
    if record.overlay.as_ref().is_some_and(|overlay| !overlay.ready) {
        crate::rootfs::release(store, id, entry)?;
    }
    if record.state == State::Paused {
        volume::sync_out(store, id, record)?;
        crate::rootfs::rest(store, record)?;
    }
    let is_there = |place: &Path| volume::exists(store, id, place);
    if let Some(record) = &mut entry.document {
        record.volumes.retain(|one| is_there(&one.destination));
    }
    entry.save()?;
    Ok(action)
}

/// A source: claims of those who know nothing of them are given up.
fn source(store: &Store, key: &str) -> anyhow::Result<Option<&'static str>> {
    let directory = store.sources().join(key);
    let Some(document) = Entry::<Source>::peek(&directory)? else {
        let entry = source::open(store, key)?;
        return if entry.document.is_none() { entry.delete().map(|()| None) } else { Ok(None) };
    };
    let mut action = None;
    for claim in &document.claims {
        // Held meanwhile, so that nobody is just about to prepare this mount.
        let entry = store.container(&claim.container)?;
        let is_wanted = entry.document.as_ref().is_some_and(|record| wants(record, claim, key));
        if !is_wanted {
            source::release(store, key, &claim.container, &claim.destination)?;
            action = Some("released");
        }
        if entry.document.is_none() {
            entry.delete()?;
        }
    }
    let mut entry = source::open(store, key)?;
    if entry.document.as_ref().is_some_and(|source| source.claims.is_empty()) {
        source::restore_owners(&mut entry)?;
        entry.delete()?;
        action = Some("restored");
    }
    Ok(action)
}

fn wants(record: &Record, claim: &source::Claim, key: &str) -> bool {
    let is_mount =
        record.mounts.iter().any(|one| one.key == key && one.destination == claim.destination);
    let is_upper = |one: &crate::record::Overlay| one.key == key && one.ready;
    is_mount || record.overlay.as_ref().is_some_and(is_upper)
}

/// A mark that no claim has.
fn unwanted_mark(store: &Store, name: &str) -> anyhow::Result<Option<&'static str>> {
    let key = source::key_of_mark(name);
    let entry = source::open(store, key)?;
    let has = |claim: &source::Claim| claim.mark.as_deref() == Some(name);
    let is_wanted = entry.document.as_ref().is_some_and(|one| one.claims.iter().any(has));
    if !is_wanted {
        mark::remove(&store.marks().join(name))?;
    }
    if entry.document.is_none() {
        entry.delete()?;
    }
    Ok((!is_wanted).then_some("unmounted"))
}

/// Removes what belongs to nobody and is older than `age`: volumes of unknown containers, and
/// entries that were put aside.
pub(crate) fn gc(store: &Store, age: Duration) -> anyhow::Result<Value> {
    let mut removed = Vec::new();
    for directory in [store.volumes(), store.containers()] {
        if !directory.is_dir() {
            continue;
        }
        let parent = walk::open_top(&directory)?;
        let entries = std::fs::read_dir(&directory)
            .with_context(|| format!("read {}", directory.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("read {}", directory.display()))?;
            let name = entry.file_name();
            if is_orphan(store, &directory, &name.to_string_lossy())? && is_old(&entry.path(), age)
            {
                let c_name = copy::c_name(&name)?;
                use std::os::fd::AsFd;
                removal::remove(parent.as_fd(), &c_name)
                    .with_context(|| format!("remove {}", entry.path().display()))?;
                removed.push(entry.path());
            }
        }
    }
    Ok(json!({"removed": removed}))
}

fn is_orphan(store: &Store, directory: &Path, name: &str) -> anyhow::Result<bool> {
    if directory == store.containers() {
        let id = name.strip_prefix('.').and_then(|name| name.rsplit_once(".bad-"));
        return Ok(id.is_some_and(|(id, _)| !store.volumes().join(id).exists()));
    }
    // Whose record can't be read may still want them.
    let prefix = format!(".{name}.bad-");
    let has_record = |other: &str| other == name || other.starts_with(&prefix);
    let entries = std::fs::read_dir(store.containers()).into_iter().flatten().flatten();
    let mut names = entries.map(|entry| entry.file_name());
    Ok(!names.any(|other| other.to_str().is_some_and(has_record)))
}

fn is_old(path: &Path, age: Duration) -> bool {
    let changed = std::fs::symlink_metadata(path).and_then(|stat| stat.modified());
    changed.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|since| since >= age))
}
