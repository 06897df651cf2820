//! A container's properties: a map of strings, on disk before a request that changes it returns.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use guardian_contract::file::{read_json, replace_json};

use super::lock;

/// Property: `created` once a container is complete.
pub(crate) const STATE: &str = "garden.state";
/// Property: nanoseconds of grace time.
pub(crate) const GRACE_TIME: &str = "garden.grace-time";
/// Property: `stopped` once it was stopped.
pub(crate) const STOPPED: &str = "rundmc.state";
/// Property: comma list of what happened.
pub(crate) const EVENTS: &str = "rundmc.events";

/// Names and values.
pub(crate) type Map = BTreeMap<String, String>;

/// The properties of one container.
#[derive(Debug)]
pub(crate) struct Properties {
    path: PathBuf,
    map: Mutex<Map>,
}

impl Properties {
    /// Returns new properties that will be kept at `path`.
    pub(crate) fn new(path: PathBuf, map: Map) -> Self {
        Self { path, map: Mutex::new(map) }
    }

    /// Reads the properties kept at `path`; `None` when there are none.
    ///
    /// # Errors
    /// When they can't be read.
    pub(crate) fn load(path: PathBuf) -> anyhow::Result<Option<Self>> {
        Ok(read_json(&path)?.map(|map| Self::new(path, map)))
    }

    /// Returns them all.
    pub(crate) fn all(&self) -> Map {
        lock(&self.map).clone()
    }

    /// Returns the value of one; a missing one is `None`.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        lock(&self.map).get(name).cloned()
    }

    /// Changes them, and keeps the change. Where it can't be kept, it is not made.
    ///
    /// # Errors
    /// With the path and the reason.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Map)) -> anyhow::Result<()> {
        let mut map = lock(&self.map);
        let mut changed = map.clone();
        change(&mut changed);
        replace_json(&self.path, &changed)?;
        *map = changed;
        Ok(())
    }

    /// Tells whether every pair of the filter is met; a missing property equals the empty one. A
    /// filter that does not name the state asks for complete containers.
    pub(crate) fn match_filter(&self, filter: &Map) -> bool {
        let map = lock(&self.map);
        let is_met = |name: &str, value: &str| map.get(name).map_or("", String::as_str) == value;
        let state = filter.get(STATE).map_or("created", String::as_str);
        (state == "all" || is_met(STATE, state))
            && filter.iter().all(|(name, value)| name == STATE || is_met(name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> Map {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn filters_match_as_gdn_s() {
        let made = |pairs| Properties::new(PathBuf::new(), map(pairs));
        let complete = made(&[("a", "b"), (STATE, "created")]);
        let half = made(&[("a", "b")]);
        for (properties, filter, want) in [
            (&complete, &[][..], true),
            (&complete, &[("a", "b")], true),
            (&complete, &[("a", "c")], false),
            (&complete, &[("missing", "")], true),
            (&complete, &[("missing", "x")], false),
            (&half, &[("a", "b")], false),
            (&half, &[("a", "b"), (STATE, "all")], true),
            (&complete, &[(STATE, "other")], false),
        ] {
            assert_eq!(properties.match_filter(&map(filter)), want, "{filter:?}");
        }
    }

    #[test]
    fn changes_are_on_disk_and_a_failed_one_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.json");
        let properties = Properties::new(path.clone(), Map::new());
        properties.change(|map| drop(map.insert("k".into(), "v".into()))).unwrap();
        let loaded = Properties::load(path).unwrap().unwrap();
        assert_eq!(loaded.get("k").as_deref(), Some("v"));
        let nowhere = Properties::new(dir.path().join("no/p.json"), Map::new());
        assert!(nowhere.change(|map| drop(map.insert("k".into(), "v".into()))).is_err());
        assert_eq!(nowhere.get("k"), None);
    }
}
