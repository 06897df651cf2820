//! `idmgr allocate`, `release` and `list`: the ledger's verbs.

use guardian_contract::depot::Handle;
use guardian_contract::ids::IdMaps;
use serde_json::{Value, json};

use crate::maximus;
use crate::request::{Allocate, Policy};
use crate::store::Store;

/// Returns the id maps of a container.
pub(crate) fn allocate(store: &Store, request: &Allocate) -> anyhow::Result<Value> {
    if request.policy == Policy::Maximus {
        return Ok(answer(&maximus::maps(&request.overrides)?, false));
    }
    let mut open = store.open()?;
    // No ranges are needed to repeat an answer, so a container outlives an edit of the files.
    let is_known = open.ledger.holders.contains_key(&request.id);
    let ranges = if is_known { Vec::new() } else { store.ranges()? };
    let holding = open.ledger.allocate(&ranges, request)?;
    if !is_known {
        open.save()?;
    }
    Ok(answer(&holding.maps(), holding.reused))
}

fn answer(maps: &IdMaps, reused: bool) -> Value {
    json!({"uid": maps.uid, "gid": maps.gid, "reused": reused})
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

/// Tells who holds what. A host without ranges has no blocks.
pub(crate) fn list(store: &Store) -> anyhow::Result<Value> {
    let ledger = store.open()?.ledger;
    let (total, free) = ledger.blocks(&store.ranges().unwrap_or_default()).count();
    Ok(json!({"holders": ledger.holders, "blocks": {"total": total, "free": free}}))
}
