//! The life of a container as far as ids and mounts go: `register`, `update`, `pause`, `resume`,
//! `unregister`, `remove`.

use guardian_contract::depot::{Handle, boot_id};
use guardian_contract::fault::{Fault, Kind};
use guardian_contract::ids::IdMaps;
use serde_json::{Value, json};

use crate::entry::Entry;
use crate::record::{Namespace, Record, State, Unfinished};
use crate::store::Store;
use crate::{allocate, entry, mounts, owner, rootfs, volume};

mod request;

pub(crate) use request::{Maps, References, Register};

/// Makes a container known, or a stopped one live again: it then has the ids and volumes it had.
pub(crate) fn register(store: &Store, request: &Register) -> anyhow::Result<Value> {
    let id = &request.allocate.id;
    let mut entry = store.container(id)?;
    let result = try_register(store, request, &mut entry);
    if result.is_err() && entry.document.is_none() {
        entry.delete()?;
    }
    result
}

fn try_register(
    store: &Store,
    request: &Register,
    entry: &mut Entry<Record>,
) -> anyhow::Result<Value> {
    let id = &request.allocate.id;
    let given = request.maps.given()?;
    if entry.document.as_ref().is_some_and(Record::has_died) {
        stop(store, id, entry, false)?;
    }
    let known = entry.document.clone();
    if known.as_ref().is_some_and(|record| record.state != State::Stopped) {
        return Err(Fault::exists(format!("container '{id}' is registered already")).into());
    }
    let mut record = known.clone().unwrap_or_else(|| Record {
        state: State::Live,
        unfinished: Some(Unfinished::Register),
        boot_id: String::new(),
        process: None,
        rootfs: None,
        userns: None,
        netns: None,
        maps: IdMaps::default(),
        shares_with: None,
        auto_remove: false,
        mounts: Vec::new(),
        volumes: Vec::new(),
        overlay: None,
    });
    record.state = State::Live;
    record.boot_id = boot_id();
    record.auto_remove = request.auto_remove;
    record.rootfs = request.rootfs.clone().or(record.rootfs);
    request.refs.apply(&mut record)?;
    let sharer = sharer(store, id, &record)?;
    // Ids without a record would be nobody's after a crash, so there is a record first.
    entry.document = Some(record.clone());
    entry.save()?;
    let chosen = choose(store, request, given, sharer, &mut record);
    if let Err(error) = chosen {
        match known {
            Some(_) => entry.document = known,
            None => forget(store, id, entry)?,
        }
        if entry.document.is_some() {
            entry.save()?;
        }
        return Err(error);
    }
    record.unfinished = None;
    entry.document = Some(record.clone());
    entry.save()?;
    Ok(shown(&record))
}

/// Chooses the maps: those of the container whose network namespace it shares, those given, those
/// it had, or new ones.
fn choose(
    store: &Store,
    request: &Register,
    given: Option<IdMaps>,
    sharer: Option<(Handle, Record)>,
    record: &mut Record,
) -> anyhow::Result<()> {
    let id = &request.allocate.id;
    if let Some((other, its)) = sharer {
        let is_other =
            |ours: &Namespace| its.userns.as_ref().is_some_and(|theirs| !ours.is(theirs));
        if given.is_some_and(|maps| maps != its.maps)
            || record.userns.as_ref().is_some_and(is_other)
        {
            let message = format!(
                "'{id}' shares the network namespace of '{other}' and so needs its user namespace"
            );
            return Err(Fault::invalid(message).into());
        }
        record.userns = record.userns.take().or(its.userns);
        record.maps = its.maps;
        allocate::join(store, id, &other)?;
        record.shares_with = Some(other);
        return Ok(());
    }
    if let Some(maps) = given {
        record.maps = maps;
    } else if record.maps == IdMaps::default() {
        record.maps = allocate::maps(store, &request.allocate)?;
    }
    owner::root_of(&record.maps)?;
    Ok(())
}

/// Finds a live container in the same network namespace.
fn sharer(store: &Store, id: &Handle, record: &Record) -> anyhow::Result<Option<(Handle, Record)>> {
    let Some(netns) = &record.netns else { return Ok(None) };
    for name in entry::names(&store.containers())? {
        let Ok(other) = name.parse::<Handle>() else { continue };
        let Ok(Some(its)) = Entry::<Record>::peek(&store.containers().join(&name)) else {
            continue;
        };
        let is_same = its.netns.as_ref().is_some_and(|theirs| theirs.is(netns));
        if other != *id && is_same && its.state != State::Stopped && !its.has_died() {
            return Ok(Some((other, its)));
        }
    }
    Ok(None)
}

/// Fills in what was not known at `register`.
pub(crate) fn update(store: &Store, id: &Handle, refs: &References) -> anyhow::Result<Value> {
    let (mut entry, mut record) = store.known(id)?;
    expect_live(id, &record)?;
    refs.apply(&mut record)?;
    if let Some((other, its)) =
        sharer(store, id, &record)?.filter(|(_, its)| its.maps != record.maps)
    {
        let message = format!(
            "'{id}' shares the network namespace of '{other}' but has other id maps ({} and {})",
            text(&record.maps),
            text(&its.maps)
        );
        return Err(Fault::invalid(message).into());
    }
    entry.document = Some(record.clone());
    entry.save()?;
    Ok(shown(&record))
}

/// Brings what a container wrote in order on disk, for a copy of it to be taken.
pub(crate) fn pause(store: &Store, id: &Handle) -> anyhow::Result<Value> {
    let (mut entry, mut record) = store.known(id)?;
    if record.state != State::Paused {
        expect_live(id, &record)?;
        record.state = State::Paused;
        entry.document = Some(record.clone());
        entry.save()?;
    }
    let synced = volume::sync_out(store, id, &record)?;
    rootfs::rest(store, &record)?;
    Ok(json!({"state": record.state, "synced": synced}))
}

/// Undoes [`pause`].
pub(crate) fn resume(store: &Store, id: &Handle) -> anyhow::Result<Value> {
    let (mut entry, mut record) = store.known(id)?;
    if record.state == State::Stopped {
        expect_live(id, &record)?;
    }
    rootfs::wake(store, &record)?;
    record.state = State::Live;
    entry.document = Some(record.clone());
    entry.save()?;
    Ok(json!({"state": record.state}))
}

/// Gives up all mounts of a container that has ended; its ids and volumes are kept.
pub(crate) fn unregister(store: &Store, id: &Handle, no_sync: bool) -> anyhow::Result<Value> {
    let (mut entry, record) = store.known(id)?;
    if record.state == State::Stopped && record.unfinished.is_none() {
        return Ok(json!({"state": record.state}));
    }
    let synced = stop(store, id, &mut entry, !no_sync && !record.is_of_another_boot())?;
    Ok(json!({"state": State::Stopped, "synced": synced}))
}

/// The same, with the container's entry in hand.
pub(crate) fn stop(
    store: &Store,
    id: &Handle,
    entry: &mut Entry<Record>,
    with_sync: bool,
) -> anyhow::Result<Value> {
    let Some(mut record) = entry.document.clone() else { return Ok(Value::Null) };
    record.unfinished = Some(Unfinished::Unregister);
    entry.document = Some(record.clone());
    entry.save()?;
    let synced = match with_sync && !record.auto_remove {
        true => volume::sync_out(store, id, &record)?,
        false => Value::Null,
    };
    release_all(store, id, entry)?;
    let Some(mut record) = entry.document.clone() else { return Ok(synced) };
    record.state = State::Stopped;
    record.unfinished = None;
    (record.process, record.userns, record.netns) = (None, None, None);
    entry.document = Some(record);
    entry.save()?;
    Ok(synced)
}

fn release_all(store: &Store, id: &Handle, entry: &mut Entry<Record>) -> anyhow::Result<()> {
    let rootfs = rootfs::release(store, id, entry).err();
    let mounts = entry.document.iter().flat_map(|record| record.mounts.clone()).collect::<Vec<_>>();
    // Everything is tried, whatever becomes of the others.
    let failures: Vec<String> = mounts
        .iter()
        .filter_map(|mount| mounts::release(store, id, entry, &mount.destination).err())
        .chain(rootfs)
        .map(|error| format!("{error:#}"))
        .collect();
    match failures.is_empty() {
        true => Ok(()),
        false => Err(Fault::new(Kind::Failed, failures.join("; ")).into()),
    }
}

/// Takes away all there is of a container; one that is not known is no error.
pub(crate) fn remove(store: &Store, id: &Handle) -> anyhow::Result<Value> {
    let mut entry = store.container(id)?;
    let was_known = entry.document.is_some();
    forget(store, id, &mut entry)?;
    entry.delete()?;
    Ok(json!({"removed": was_known}))
}

/// Leaves an entry without a document, which is still to be deleted.
fn forget(store: &Store, id: &Handle, entry: &mut Entry<Record>) -> anyhow::Result<()> {
    if let Some(record) = &mut entry.document {
        record.unfinished = Some(Unfinished::Remove);
        entry.save()?;
    }
    release_all(store, id, entry)?;
    volume::remove_all(store, id)?;
    allocate::release(store, id)?;
    entry.document = None;
    Ok(())
}

/// Refuses what only a live container can be asked.
///
/// # Errors
/// `Exists`: the container is in another state.
pub(crate) fn expect_live(id: &Handle, record: &Record) -> anyhow::Result<()> {
    if record.state == State::Live && !record.is_of_another_boot() {
        return Ok(());
    }
    let state = if record.state == State::Paused { "paused" } else { "stopped" };
    Err(Fault::exists(format!("container '{id}' is {state}; register or resume it first")).into())
}

fn text(maps: &IdMaps) -> String {
    maps.uid.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// What callers are told of a container.
pub(crate) fn shown(record: &Record) -> Value {
    json!({
        "state": record.state,
        "uid": record.maps.uid,
        "gid": record.maps.gid,
        "userns": record.userns.as_ref().map(|one| &one.path),
        "shares_with": record.shares_with,
        "mounts": record.mounts.iter().map(mounts::shown).collect::<Vec<_>>(),
        "volumes": record.volumes.iter().map(|one| &one.destination).collect::<Vec<_>>(),
    })
}
