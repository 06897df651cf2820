//! `idmgr allocate`, `release`, `list` and `verify`: the ledger's verbs.

use guardian_contract::depot::Handle;
use guardian_contract::ids::IdMaps;
use serde_json::{Value, json};

use crate::request::{Allocate, Policy};
use crate::store::Store;
use crate::{live, maximus};

/// Returns the id maps of a container.
pub(crate) fn allocate(store: &Store, request: &Allocate) -> anyhow::Result<Value> {
    let (maps, reused) = given(store, request)?;
    Ok(json!({"uid": maps.uid, "gid": maps.gid, "reused": reused}))
}

/// The same for ourselves.
pub(crate) fn maps(store: &Store, request: &Allocate) -> anyhow::Result<IdMaps> {
    given(store, request).map(|(maps, _)| maps)
}

fn given(store: &Store, request: &Allocate) -> anyhow::Result<(IdMaps, bool)> {
    match request.policy {
        Policy::Maximus => return Ok((maximus::maps(&request.overrides)?, false)),
        Policy::Identity => return Ok((maximus::identity()?, false)),
        Policy::Exclusive | Policy::Shared => {}
    }
    let mut open = store.open()?;
    // No ranges are needed to repeat an answer, so a container outlives an edit of the files.
    let is_known = open.ledger.holders.contains_key(&request.id);
    let ranges = if is_known { Vec::new() } else { store.ranges()? };
    if request.verify && !is_known {
        open.ledger.foreign = live::maps()?.into_iter().map(|(range, _)| range).collect();
    }
    let holding = open.ledger.allocate(&ranges, request)?;
    if !is_known {
        open.save()?;
    }
    Ok((holding.maps(), holding.reused))
}

/// Gives a container's ids back.
pub(crate) fn release(store: &Store, id: &Handle) -> anyhow::Result<Value> {
    let mut open = store.open()?;
    let freed = open.ledger.release(id);
    if freed {
        open.save()?;
    }
    Ok(json!({"freed": freed}))
}

/// Lets a container have the ids of another one, which are free when both are released.
pub(crate) fn join(store: &Store, id: &Handle, other: &Handle) -> anyhow::Result<()> {
    let mut open = store.open()?;
    open.ledger.join(id, other);
    open.save()
}

/// Tells who holds what. A host without ranges has no blocks.
pub(crate) fn list(store: &Store) -> anyhow::Result<Value> {
    let ledger = store.open()?.ledger;
    let (total, free) = ledger.blocks(&store.ranges().unwrap_or_default()).count();
    Ok(json!({
        "holders": ledger.holders,
        "blocks": {"total": total, "free": free},
        "containers": crate::show::states(store)?,
    }))
}

/// Tells who on this host uses ids that are ours to give and given to nobody.
pub(crate) fn verify(store: &Store) -> anyhow::Result<Value> {
    let ranges = store.ranges()?;
    let ledger = store.open()?.ledger;
    let mut conflicts = Vec::new();
    for (range, pid) in live::maps()? {
        let is_held = ledger.holders.values().any(|held| held.range().and(range).is_some());
        if !is_held && ranges.iter().any(|ours| ours.and(range).is_some()) {
            conflicts.push(json!({"start": range.start, "end": range.end, "pid": pid}));
        }
    }
    Ok(json!({"conflicts": conflicts}))
}
