//! gdn's mapping: root of the container is the host's highest id, every other id is itself.
//!
//! Nothing is kept of it: the host's own id maps are the whole input.

use anyhow::Context;
use guardian_contract::fault::Fault;
use guardian_contract::ids::{IdMapping, IdMaps, maximus, maximus_map};

use crate::request::Overrides;

/// Returns the maps of every unprivileged container on this host.
pub(crate) fn maps(overrides: &Overrides) -> anyhow::Result<IdMaps> {
    let read = |path: &str| std::fs::read_to_string(path).with_context(|| format!("read {path}"));
    let (uid, gid) = (read("/proc/self/uid_map")?, read("/proc/self/gid_map")?);
    Ok(IdMaps {
        uid: map(&uid, overrides.uid_map_start, overrides.uid_map_length).context("user ids")?,
        gid: map(&gid, overrides.gid_map_start, overrides.gid_map_length).context("group ids")?,
    })
}

/// Returns the maps of a container whose ids are the host's own: a user namespace only in name.
pub(crate) fn identity() -> anyhow::Result<IdMaps> {
    let map = |path: &str| -> anyhow::Result<Vec<IdMapping>> {
        let host = std::fs::read_to_string(path).with_context(|| format!("read {path}"))?;
        let last = maximus(&host).context("this process has no ids")?;
        let size = last.checked_add(1).context("the host has too many ids")?;
        Ok(vec![IdMapping { container_id: 0, host_id: 0, size }])
    };
    Ok(IdMaps { uid: map("/proc/self/uid_map")?, gid: map("/proc/self/gid_map")? })
}

/// `host` is the text of a /proc/PID/uid_map. A length of 0 means all ids from `start` to below
/// the highest one.
fn map(host: &str, start: u32, length: u32) -> Result<Vec<IdMapping>, Fault> {
    let maximus = maximus(host).ok_or_else(|| Fault::unsupported("this process has no ids"))?;
    let most = maximus.checked_sub(start).filter(|most| *most > 0).ok_or_else(|| {
        Fault::invalid(format!("map start {start} is not below the highest id, {maximus}"))
    })?;
    // A longer map would give root's id to a second id of the container.
    if length > most {
        let message = format!("map length {length} from {start} reaches the highest id, {maximus}");
        return Err(Fault::invalid(message));
    }
    Ok(maximus_map(maximus, start, if length == 0 { most } else { length }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_gdn_s() {
        let host = "         0          0 4294967295\n";
        for (text, start, length, want) in [
            (host, 1, 0, "0:4294967294:1 1:1:4294967293"),
            (host, 1, 4_294_967_293, "0:4294967294:1 1:1:4294967293"),
            (host, 70_000, 65_536, "0:4294967294:1 1:70000:65536"),
            ("0 100000 65536\n", 1, 0, "0:65535:1 1:1:65534"),
        ] {
            let map = map(text, start, length).unwrap();
            let shown: Vec<String> = map.iter().map(ToString::to_string).collect();
            assert_eq!(shown.join(" "), want);
        }
    }

    #[test]
    fn impossible_maps_are_refused() {
        for (text, start, length) in
            [("", 1, 0), ("0 0 10", 9, 0), ("0 0 10", 10, 0), ("0 0 10", 1, 9), ("0 0 1", 1, 0)]
        {
            assert!(map(text, start, length).is_err(), "{text} {start} {length}");
        }
    }
}
