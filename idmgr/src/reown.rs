//! `shift`: the owners of a tree changed for good, or back, by hand.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use guardian_contract::fault::Fault;
use guardian_contract::ids::{IdMapping, IdMaps};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::container::Maps;
use crate::request::absolute;
use crate::source::{self, Source};
use crate::store::Store;

/// `shift`
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
pub(crate) struct Shift {
    /// The tree
    #[arg(value_parser = absolute)]
    path: PathBuf,
    /// From the ids in the container to those on the host
    #[command(flatten)]
    maps: Maps,
    /// From the ids on the host to those in the container
    #[arg(long)]
    back: bool,
}

/// Changes owners. Cut off, it is done again by the same call, or undone by `recover`.
pub(crate) fn shift(store: &Store, request: &Shift) -> anyhow::Result<Value> {
    let missing = || Fault::invalid("--uid-map and --gid-map are needed");
    let maps = request.maps.given()?.with_context(missing)?;
    let maps = if request.back { turned(maps) } else { maps };
    let path = std::fs::canonicalize(&request.path)
        .with_context(|| format!("find {}", request.path.display()))?;
    let mut entry = source::open(store, &source::key(&path)?)?;
    let user = entry.document.as_ref().and_then(|source| source.claims.first());
    if let Some(claim) = user {
        let message = format!("{} is in use by '{}'", path.display(), claim.container);
        return Err(Fault::exists(message).into());
    }
    if entry.document.is_none() {
        entry.document = Some(Source::new(&path));
    }
    // To undo one that was cut off is to go back.
    let opposite = turned(maps.clone());
    let cut_off = entry.document.as_ref().and_then(|source| source.shifted.as_ref());
    let result = match cut_off.is_some_and(|shifted| shifted.maps == opposite) {
        true => source::restore_owners(&mut entry),
        false => source::change_owners(&mut entry, &path, &maps),
    };
    let is_undone = entry.document.as_ref().is_some_and(|source| source.shifted.is_none());
    if result.is_ok() || is_undone {
        entry.delete()?;
    }
    Ok(serde_json::to_value(result?)?)
}

fn turned(maps: IdMaps) -> IdMaps {
    let turn = |map: Vec<IdMapping>| {
        map.into_iter()
            .map(|one| IdMapping { container_id: one.host_id, host_id: one.container_id, ..one })
            .collect()
    };
    IdMaps { uid: turn(maps.uid), gid: turn(maps.gid) }
}
