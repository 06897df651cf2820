//! Id maps: which host id stands behind an id seen inside a container (user_namespaces(7)).

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::fault::Fault;

/// Whose ids an unprivileged container gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum IdPolicy {
    /// gdn's: root is the host's highest id, all others are themselves
    Maximus,
    /// A block of subordinate ids of its own
    Exclusive,
}

/// One extent of an id map, with the OCI runtime spec's JSON names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// First id inside the container.
    #[serde(rename = "containerID")]
    pub container_id: u32,
    /// First id on the host.
    #[serde(rename = "hostID")]
    pub host_id: u32,
    /// How many ids.
    pub size: u32,
}

impl FromStr for IdMapping {
    type Err = Fault;

    /// Parses `container:host:size`, as on the command lines of grootfs and of our tools.
    fn from_str(text: &str) -> Result<Self, Fault> {
        let numbers: Vec<u32> = text.split(':').map_while(|part| part.parse().ok()).collect();
        match numbers[..] {
            [container_id, host_id, size] if size > 0 => Ok(Self { container_id, host_id, size }),
            _ => Err(Fault::invalid(format!("id mapping '{text}' is not CONTAINER:HOST:SIZE"))),
        }
    }
}

impl std::fmt::Display for IdMapping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.container_id, self.host_id, self.size)
    }
}

/// The two maps of a user namespace; both empty when there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMaps {
    /// User ids.
    #[serde(default)]
    pub uid: Vec<IdMapping>,
    /// Group ids.
    #[serde(default)]
    pub gid: Vec<IdMapping>,
}

/// Returns the host id behind a container id. Ids outside all extents stand for themselves, as
/// they do where there is no map at all.
pub fn host_id(map: &[IdMapping], id: u32) -> u32 {
    map.iter()
        .find(|extent| id.checked_sub(extent.container_id).is_some_and(|at| at < extent.size))
        .map_or(id, |extent| extent.host_id + (id - extent.container_id))
}

/// Returns gdn's mapping for unprivileged containers: root is the highest id of the host, every
/// other id is itself.
pub fn maximus_map(maximus: u32, start: u32, length: u32) -> Vec<IdMapping> {
    vec![
        IdMapping { container_id: 0, host_id: maximus, size: 1 },
        IdMapping { container_id: 1, host_id: start, size: length },
    ]
}

/// Returns the highest id that a `/proc/self/{uid,gid}_map` text maps, as seen inside.
pub fn maximus(proc_map: &str) -> Option<u32> {
    proc_map.lines().filter_map(extent_end).max()
}

/// The last id of one `inside outside size` line.
fn extent_end(line: &str) -> Option<u32> {
    let mut numbers = line.split_whitespace().map(str::parse::<u64>);
    let (inside, _outside, size) =
        (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    u32::try_from((inside + size).checked_sub(1)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_s_own_map_gives_the_highest_id() {
        assert_eq!(maximus("         0          0 4294967295\n"), Some(4_294_967_294));
        assert_eq!(maximus("0 100000 1000\n1000 5 10\n"), Some(1009));
        assert_eq!(maximus(""), None);
    }

    #[test]
    fn mappings_parse_and_print() {
        let mapping: IdMapping = "0:4294967294:1".parse().unwrap();
        assert_eq!(mapping.to_string(), "0:4294967294:1");
        for bad in ["", "0:1", "0:1:0", "0:1:2:3", "a:1:2", "0:1:4294967296", "-1:2:3"] {
            assert!(bad.parse::<IdMapping>().is_err(), "{bad}");
        }
    }

    #[test]
    fn host_ids_follow_the_map() {
        let map = maximus_map(4_294_967_294, 1, 4_294_967_293);
        for (id, host) in [(0, 4_294_967_294), (1, 1), (1000, 1000)] {
            assert_eq!(host_id(&map, id), host);
        }
        assert_eq!(host_id(&[], 7), 7);
    }
}
