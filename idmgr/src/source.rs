//! Who uses a source, and what was done to it: the claims of containers, and the change of owners
//! on disk if there is one. One entry for each file or directory that is mounted from.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use guardian_contract::depot::Handle;
use guardian_contract::fault::{Fault, Kind};
use guardian_contract::ids::{IdMapping, IdMaps};
use serde::{Deserialize, Serialize};

use crate::entry::Entry;
use crate::mark;
use crate::record::Strategy;
use crate::shift;
use crate::store::Store;
use crate::translate::Translation;

/// The document.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    #[serde(default)]
    pub(crate) claims: Vec<Claim>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) shifted: Option<Shifted>,
}

/// One container's use of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claim {
    pub(crate) container: Handle,
    pub(crate) destination: PathBuf,
    pub(crate) exclusive: bool,
    pub(crate) strategy: Strategy,
    /// The maps through which it is shown, or by which its owners were changed.
    pub(crate) maps: IdMaps,
    /// The name of its mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mark: Option<String>,
}

/// A change of owners on disk: begun, and not undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shifted {
    pub(crate) maps: IdMaps,
    /// Whether the last run went back.
    pub(crate) is_going_back: bool,
    /// Whether that run was finished.
    pub(crate) is_done: bool,
}

/// The name of a source's entry: its device and inode, whatever path leads there.
///
/// # Errors
/// With the path and the reason.
pub(crate) fn key(path: &Path) -> anyhow::Result<String> {
    let stat = std::fs::metadata(path).with_context(|| format!("look at {}", path.display()))?;
    Ok(format!("{:x}-{:x}", stat.dev(), stat.ino()))
}

/// Locks and reads the entry of a source.
///
/// # Errors
/// As [`Entry::open`].
pub(crate) fn open(store: &Store, key: &str) -> anyhow::Result<Entry<Source>> {
    Entry::open(&store.sources().join(key), store.patience())
}

impl Source {
    /// Returns a source that nobody uses.
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.into(), claims: Vec::new(), shifted: None }
    }

    /// Adds a claim, unless it contradicts another container's.
    ///
    /// # Errors
    /// `Exists`, with the container that has the source.
    pub(crate) fn claim(&mut self, claim: Claim) -> Result<(), Fault> {
        let path = self.path.display();
        let is_same = |other: &&Claim| other.is_of(&claim.container, &claim.destination);
        for other in self.claims.iter().filter(|other| !is_same(other)) {
            let is_alone =
                other.container != claim.container && (claim.exclusive || other.exclusive);
            let changes = [&claim, other].iter().any(|one| one.strategy == Strategy::Chown);
            let differs = (claim.strategy, &claim.maps) != (other.strategy, &other.maps);
            if is_alone {
                let message = format!("{path} is in use by '{}'", other.container);
                return Err(Fault::new(Kind::Exists, message));
            }
            if changes && differs {
                let message =
                    format!("{path} is in use by '{}' with other owners", other.container);
                return Err(Fault::new(Kind::Exists, message));
            }
        }
        self.claims.retain(|other| !other.is_of(&claim.container, &claim.destination));
        self.claims.push(claim);
        Ok(())
    }
}

impl Claim {
    /// Tells whether this is the claim of a container for one destination.
    pub(crate) fn is_of(&self, container: &Handle, destination: &Path) -> bool {
        self.container == *container && self.destination == destination
    }
}

/// Changes the owners of a source, or takes an unfinished change back first.
///
/// `through` is where the tree is walked: the source, or an overlay over it.
///
/// # Errors
/// `Invalid` when the tree could not be changed back; the kernel's, and then all is taken back.
pub(crate) fn change_owners(
    entry: &mut Entry<Source>,
    through: &Path,
    maps: &IdMaps,
) -> anyhow::Result<shift::Report> {
    let there = Translation::to_host(maps);
    match entry.document.as_ref().and_then(|source| source.shifted.clone()) {
        Some(shifted) if shifted.maps == *maps && shifted.is_done => {
            return Ok(shift::Report::default());
        }
        Some(_) => {
            restore_owners(entry)?;
        }
        None => {}
    }
    shift::survey(through, &there)?;
    set_shifted(entry, Some(Shifted { maps: maps.clone(), is_going_back: false, is_done: false }))?;
    match shift::shift(through, &there, &entry.path("journal")) {
        Ok(report) => {
            let done = Shifted { maps: maps.clone(), is_going_back: false, is_done: true };
            set_shifted(entry, Some(done))?;
            Ok(report)
        }
        Err(error) => {
            restore_owners(entry).with_context(|| format!("{error:#}; and to undo that"))?;
            Err(error)
        }
    }
}

/// Gives a source its own owners back, if they were changed.
///
/// # Errors
/// The kernel's; it can be done again.
pub(crate) fn restore_owners(entry: &mut Entry<Source>) -> anyhow::Result<shift::Report> {
    let Some(source) = &entry.document else { return Ok(shift::Report::default()) };
    let Some(shifted) = source.shifted.clone() else { return Ok(shift::Report::default()) };
    let path = source.path.clone();
    if is_gone(&path, &entry.name())? {
        set_shifted(entry, None)?;
        return Ok(shift::Report::default());
    }
    let there = Translation::to_host(&shifted.maps);
    let back = there.reversed();
    let journal = entry.path("journal");
    let last = if shifted.is_going_back { &back } else { &there };
    shift::replay(&path, &journal, last)?;
    set_shifted(entry, Some(Shifted { is_going_back: true, is_done: false, ..shifted }))?;
    let report = shift::shift(&path, &back, &journal)?;
    set_shifted(entry, None)?;
    Ok(report)
}

/// Tells whether a source was removed, by somebody who then took its owners along.
///
/// # Errors
/// `Unavailable` when it may come back: its filesystem is not mounted.
fn is_gone(path: &Path, name: &str) -> anyhow::Result<bool> {
    if key(path).is_ok_and(|now| now == name) {
        return Ok(false);
    }
    let parent = path.parent().unwrap_or(path);
    let device = std::fs::metadata(parent).map(|stat| format!("{:x}-", stat.dev()));
    if device.is_ok_and(|device| name.starts_with(&device)) {
        return Ok(true);
    }
    let message = format!("{} is not mounted; its owners can't be restored", path.display());
    Err(Fault::new(Kind::Unavailable, message).into())
}

fn set_shifted(entry: &mut Entry<Source>, shifted: Option<Shifted>) -> anyhow::Result<()> {
    if let Some(source) = &mut entry.document {
        source.shifted = shifted;
    }
    entry.save()
}

/// Gives up a container's claim: its mark goes with the last one that has it, owners are changed
/// back with the last claim of all. What was done already is no error.
///
/// # Errors
/// The kernel's; it can be done again.
pub(crate) fn release(
    store: &Store,
    key: &str,
    container: &Handle,
    destination: &Path,
) -> anyhow::Result<()> {
    let mut entry = open(store, key)?;
    let Some(source) = entry.document.clone() else { return entry.delete() };
    let (gone, left): (Vec<Claim>, Vec<Claim>) =
        source.claims.into_iter().partition(|claim| claim.is_of(container, destination));
    for mark in gone.iter().filter_map(|claim| claim.mark.as_ref()) {
        if !left.iter().any(|claim| claim.mark.as_ref() == Some(mark)) {
            mark::remove(&store.marks().join(mark))?;
        }
    }
    let is_changed_for = |claim: &Claim| claim.strategy == Strategy::Chown;
    if !left.iter().any(is_changed_for) {
        restore_owners(&mut entry)?;
    }
    if left.is_empty() {
        return entry.delete();
    }
    if let Some(source) = &mut entry.document {
        source.claims = left;
    }
    entry.save()
}

/// Returns the name of the mark of a source with these maps. Equal ones are shared.
///
/// # Errors
/// `Invalid` when the maps have more extents than a name can hold.
pub(crate) fn mark_name(key: &str, maps: &IdMaps, recursive: bool) -> Result<String, Fault> {
    let depth = if recursive { "r" } else { "" };
    let (uid, gid) = (extents(&maps.uid), extents(&maps.gid));
    let maps = if uid == gid { uid } else { format!("{uid}+{gid}") };
    let name = format!("{key}{depth}@{maps}");
    match name.len() <= 255 {
        true => Ok(name),
        false => Err(Fault::invalid("the id maps have too many extents")),
    }
}

fn extents(map: &[IdMapping]) -> String {
    let texts =
        map.iter().map(|one| format!("{:x}.{:x}.{:x}", one.container_id, one.host_id, one.size));
    texts.collect::<Vec<_>>().join("_")
}

/// Returns the part of a mark's name that is its source's key.
pub(crate) fn key_of_mark(name: &str) -> &str {
    name.split('@').next().unwrap_or(name).trim_end_matches('r')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(container: &str, exclusive: bool, strategy: Strategy, host_id: u32) -> Claim {
        let map = vec![IdMapping { container_id: 0, host_id, size: 65_536 }];
        Claim {
            container: container.parse().unwrap(),
            destination: "/d".into(),
            exclusive,
            strategy,
            maps: IdMaps { uid: map.clone(), gid: map },
            mark: None,
        }
    }

    #[test]
    fn claims_conflict_when_they_must() {
        use Strategy::{Chown, Idmap, None};
        for (first, second, is_fine) in [
            (claim("a", false, Idmap, 1), claim("b", false, Idmap, 2), true),
            (claim("a", false, Idmap, 1), claim("b", false, None, 2), true),
            (claim("a", true, Idmap, 1), claim("b", false, Idmap, 1), false),
            (claim("a", false, Idmap, 1), claim("b", true, Idmap, 1), false),
            (claim("a", true, Idmap, 1), claim("a", true, Idmap, 1), true),
            (claim("a", false, Chown, 1), claim("b", false, Chown, 1), true),
            (claim("a", false, Chown, 1), claim("b", false, Chown, 2), false),
            (claim("a", false, Chown, 1), claim("b", false, Idmap, 1), false),
            (claim("a", false, Idmap, 1), claim("b", false, Chown, 1), false),
        ] {
            let mut source = Source::new(Path::new("/s"));
            source.claim(first.clone()).unwrap();
            let outcome = source.claim(second.clone());
            assert_eq!(outcome.is_ok(), is_fine, "{first:?} {second:?} {outcome:?}");
        }
    }

    #[test]
    fn a_claim_made_twice_is_one() {
        let mut source = Source::new(Path::new("/s"));
        source.claim(claim("a", false, Strategy::Idmap, 1)).unwrap();
        source.claim(claim("a", false, Strategy::Idmap, 1)).unwrap();
        assert_eq!(source.claims.len(), 1);
    }

    #[test]
    fn a_mark_s_name_leads_to_its_source() {
        let maps = claim("a", false, Strategy::Idmap, 100_000).maps;
        assert_eq!(mark_name("801-2a", &maps, false).unwrap(), "801-2a@0.186a0.10000");
        for recursive in [false, true] {
            assert_eq!(key_of_mark(&mark_name("801-2a", &maps, recursive).unwrap()), "801-2a");
        }
    }
}
