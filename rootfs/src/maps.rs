//! The id maps of a store: what its images are shown through when no flag says otherwise.
//!
//! gdn hands no maps to its image plugin; it relies on those that `init-store` was given once.

use guardian_contract::fault::Fault;
use guardian_contract::file::{read_json, replace_json};
use guardian_contract::ids::IdMaps;

use crate::create::Show;
use crate::overlay::Way;
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

/// Returns how an image is to be shown: as the flags say, or else through the store's maps.
///
/// Who relies on those is gdn, which makes working directories in a container as the host's root.
/// It has no id in the maps, so where what it writes is mapped the kernel lets it make nothing
/// (`EOVERFLOW`).
///
/// # Errors
/// When the store's can't be read.
pub(crate) fn choose(store: &Store, flags: Show) -> anyhow::Result<Show> {
    if !is_none(&flags.maps) {
        return Ok(flags);
    }
    Ok(match read(store)? {
        Some(maps) => Show { maps, way: flags.way.or(Some(Way::LowerOnly)) },
        None => flags,
    })
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
