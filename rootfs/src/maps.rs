//! The id maps of a store: what its images are shown through when no flag says otherwise.
//!
//! gdn hands no maps to its image plugin; it relies on those that `init-store` was given once.

use guardian_contract::fault::Fault;
use guardian_contract::file::{read_json, replace_json};
use guardian_contract::ids::IdMaps;

use crate::owner::Owner;
use crate::store::Store;

/// Writes down the maps of a store; without any, those that it has stand.
///
/// # Errors
/// When the maps leave root out, or the store has others: its images were made for those.
pub(crate) fn record(store: &Store, maps: &IdMaps) -> anyhow::Result<()> {
    if is_none(maps) {
        return Ok(());
    }
    Owner::root_of(maps)?;
    let maps = sorted(maps.clone());
    let Some(present) = read(store)? else { return replace_json(&store.maps(), &maps) };
    // The texts are grootfs'.
    let kind = match (present.uid == maps.uid, present.gid == maps.gid) {
        (true, true) => return Ok(()),
        (false, _) => "UID",
        (true, false) => "GID",
    };
    let text =
        format!("provided {kind} mappings do not match those already configured in the store");
    Err(Fault::invalid(text).into())
}

/// Returns the maps to use: those of the flags, or else those of the store.
///
/// # Errors
/// When the store's can't be read.
pub(crate) fn choose(store: &Store, flags: IdMaps) -> anyhow::Result<IdMaps> {
    if is_none(&flags) { Ok(read(store)?.unwrap_or_default()) } else { Ok(flags) }
}

fn read(store: &Store) -> anyhow::Result<Option<IdMaps>> {
    read_json(&store.maps())
}

fn is_none(maps: &IdMaps) -> bool {
    maps.uid.is_empty() && maps.gid.is_empty()
}

/// The order in which extents are given means nothing.
fn sorted(mut maps: IdMaps) -> IdMaps {
    for map in [&mut maps.uid, &mut maps.gid] {
        map.sort_by_key(|extent| extent.container_id);
    }
    maps
}
