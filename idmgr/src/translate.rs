//! Which id stands for which: owners, POSIX ACLs and file capabilities from the ids on disk to
//! those of the host, and back. Pure; [`crate::shift`] and [`crate::copy`] apply it.

use guardian_contract::fault::Fault;
use guardian_contract::ids::{IdMapping, IdMaps};

/// `size` ids from `from` on become those from `to` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    from: u32,
    to: u32,
    size: u32,
}

/// What becomes of ids. Those of no extent stay what they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Translation {
    uid: Vec<Extent>,
    gid: Vec<Extent>,
}

/// An entry of an ACL (linux/posix_acl_xattr.h): tag, permissions, id; all little-endian.
const ACL_ENTRY: usize = 8;
const ACL_HEADER: usize = 4;
const ACL_USER: u16 = 0x02;
const ACL_GROUP: u16 = 0x08;

/// `struct vfs_cap_data` and `vfs_ns_cap_data` of linux/capability.h: the second ends in the user
/// who is root where the capabilities count.
const CAP_V2: u32 = 0x0200_0000;
const CAP_V3: u32 = 0x0300_0000;
const CAP_VERSION: u32 = 0xff00_0000;
const CAP_V2_BYTES: usize = 20;
const CAP_V3_BYTES: usize = 24;

impl Translation {
    /// Returns what shows the container's ids on disk as the ids of the host behind them.
    pub(crate) fn to_host(maps: &IdMaps) -> Self {
        let extents = |map: &[IdMapping]| {
            map.iter()
                .map(|one| Extent { from: one.container_id, to: one.host_id, size: one.size })
                .filter(|extent| extent.from != extent.to)
                .collect()
        };
        Self { uid: extents(&maps.uid), gid: extents(&maps.gid) }
    }

    /// Tells whether every id stays what it is.
    pub(crate) fn is_nothing(&self) -> bool {
        self.uid.is_empty() && self.gid.is_empty()
    }

    /// Returns the way back.
    pub(crate) fn reversed(&self) -> Self {
        let turn = |extents: &[Extent]| {
            extents
                .iter()
                .map(|one| Extent { from: one.to, to: one.from, size: one.size })
                .collect()
        };
        Self { uid: turn(&self.uid), gid: turn(&self.gid) }
    }

    /// Refuses a translation that can't be told from having been done: ids that are both moved and
    /// moved to.
    ///
    /// # Errors
    /// `Invalid`, with the ids.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        for (kind, extents) in [("user", &self.uid), ("group", &self.gid)] {
            for one in extents {
                let overlaps = |other: &&Extent| {
                    let (a, b) = (u64::from(one.from), u64::from(other.to));
                    a < b + u64::from(other.size) && b < a + u64::from(one.size)
                };
                if let Some(other) = extents.iter().find(overlaps) {
                    let message = format!(
                        "{kind} ids from {} on would become ids from {} on, some of which move themselves",
                        other.from, other.to
                    );
                    return Err(Fault::invalid(message));
                }
            }
        }
        Ok(())
    }

    /// Returns what becomes of a user.
    pub(crate) fn uid(&self, id: u32) -> u32 {
        moved(&self.uid, id)
    }

    /// Returns what becomes of a group.
    pub(crate) fn gid(&self, id: u32) -> u32 {
        moved(&self.gid, id)
    }

    /// Tells whether this user and group are both among those that ids are moved to.
    pub(crate) fn is_target(&self, (uid, gid): (u32, u32)) -> bool {
        moved_back(&self.uid, uid).is_some() && moved_back(&self.gid, gid).is_some()
    }

    /// Returns what becomes of the value of `system.posix_acl_access` or `_default`.
    pub(crate) fn acl(&self, value: &[u8]) -> Vec<u8> {
        let mut made = value.to_vec();
        for entry in
            made.iter_mut().skip(ACL_HEADER).collect::<Vec<_>>().chunks_exact_mut(ACL_ENTRY)
        {
            let tag = u16::from_le_bytes([*entry[0], *entry[1]]);
            let id = u32::from_le_bytes([*entry[4], *entry[5], *entry[6], *entry[7]]);
            let id = match tag {
                ACL_USER => self.uid(id),
                ACL_GROUP => self.gid(id),
                _ => continue,
            };
            for (byte, new) in entry[4..].iter_mut().zip(id.to_le_bytes()) {
                **byte = new;
            }
        }
        made
    }

    /// Returns what becomes of the value of `security.capability`: root of the translated ids is
    /// who it counts for.
    pub(crate) fn capability(&self, value: &[u8]) -> Vec<u8> {
        let Some(root) = capability_root(value) else { return value.to_vec() };
        let root = self.uid(root);
        let flags = word(value, 0) & !CAP_VERSION;
        let mut made = value[..CAP_V2_BYTES].to_vec();
        let version = if root == 0 { CAP_V2 } else { CAP_V3 };
        made[..4].copy_from_slice(&(version | flags).to_le_bytes());
        if root != 0 {
            made.extend(root.to_le_bytes());
        }
        made
    }

    /// Returns the ids of an inode that this translation moves something to: whose they were could
    /// not be told later.
    pub(crate) fn strangers(&self, ids: &Ids<'_>) -> Vec<String> {
        let back = self.reversed();
        let mut found = Vec::new();
        let mut look = |what: &str, id: u32, moved: u32| {
            if id != moved {
                found.push(format!("{what} {id}"));
            }
        };
        look("owner", ids.uid, back.uid(ids.uid));
        look("group", ids.gid, back.gid(ids.gid));
        for acl in ids.acls {
            for entry in acl.get(ACL_HEADER..).unwrap_or_default().chunks_exact(ACL_ENTRY) {
                let id = word(entry, 4);
                match u16::from_le_bytes([entry[0], entry[1]]) {
                    ACL_USER => look("ACL of user", id, back.uid(id)),
                    ACL_GROUP => look("ACL of group", id, back.gid(id)),
                    _ => {}
                }
            }
        }
        if let Some(root) = ids.capability.and_then(capability_root) {
            look("capabilities of user", root, back.uid(root));
        }
        found
    }
}

/// All ids of an inode.
#[derive(Debug)]
pub(crate) struct Ids<'a> {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) acls: &'a [&'a [u8]],
    pub(crate) capability: Option<&'a [u8]>,
}

/// Returns the maps of a directory whose owner `base` on disk is to be root of the container.
///
/// # Errors
/// `Invalid` when nothing is left of a map.
pub(crate) fn based(maps: &IdMaps, (uid, gid): (u32, u32)) -> Result<IdMaps, Fault> {
    let map = |map: &[IdMapping], base: u32| -> Result<Vec<IdMapping>, Fault> {
        let based: Vec<IdMapping> = map.iter().filter_map(|one| raised(*one, base)).collect();
        match based.first() {
            Some(first) if first.container_id == base => Ok(based),
            _ => Err(Fault::invalid(format!("id {base} has no place in the container's map"))),
        }
    };
    Ok(IdMaps { uid: map(&maps.uid, uid)?, gid: map(&maps.gid, gid)? })
}

/// The last id is chown(2)'s "leave as it is".
fn raised(one: IdMapping, base: u32) -> Option<IdMapping> {
    let container_id = one.container_id.checked_add(base)?;
    let size = one.size.min(u32::MAX - container_id);
    (size > 0).then_some(IdMapping { container_id, size, ..one })
}

fn moved(extents: &[Extent], id: u32) -> u32 {
    let place =
        |one: &Extent| id.checked_sub(one.from).filter(|at| *at < one.size).map(|at| one.to + at);
    extents.iter().find_map(place).unwrap_or(id)
}

fn moved_back(extents: &[Extent], id: u32) -> Option<u32> {
    extents.iter().find_map(|one| id.checked_sub(one.to).filter(|at| *at < one.size))
}

fn capability_root(value: &[u8]) -> Option<u32> {
    match (value.len(), value.len() >= 4 && word(value, 0) & CAP_VERSION == CAP_V3) {
        (CAP_V2_BYTES, false) => Some(0),
        (CAP_V3_BYTES, true) => Some(word(value, CAP_V2_BYTES)),
        _ => None,
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

#[cfg(test)]
mod tests;
