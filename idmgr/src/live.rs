//! Which ids are in use on this host right now: the maps of living user namespaces, whoever made
//! them (user_namespaces(7)).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::range::Range;

/// Returns the host ids that some user namespace gives another meaning, each with a process in it.
///
/// An id that is itself inside has the same owner there, so it takes nothing from anybody; gdn's
/// containers have nearly all ids in that way.
///
/// # Errors
/// When /proc can't be read.
pub(crate) fn maps() -> anyhow::Result<Vec<(Range, u32)>> {
    let own = std::fs::read_link("/proc/self/ns/user").context("look at own user namespace")?;
    let mut seen = BTreeSet::from([own]);
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").context("read /proc")? {
        let name = entry.context("read /proc")?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let process = PathBuf::from("/proc").join(&name);
        // A process that ends meanwhile has no ids any more.
        let Ok(namespace) = std::fs::read_link(process.join("ns/user")) else { continue };
        if seen.contains(&namespace) || is_dead(&process) {
            continue;
        }
        seen.insert(namespace);
        for map in ["uid_map", "gid_map"] {
            let text = std::fs::read_to_string(process.join(map)).unwrap_or_default();
            found.extend(text.lines().filter_map(extent).map(|range| (range, pid)));
        }
    }
    found.sort();
    found.dedup_by_key(|(range, _)| *range);
    Ok(found)
}

/// Tells whether a process is only waited for (proc_pid_stat(5)): it can't use ids any more.
fn is_dead(process: &Path) -> bool {
    let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    matches!(state, None | Some('Z' | 'X'))
}

/// One line of a map: inside, outside, size.
fn extent(line: &str) -> Option<Range> {
    let mut numbers = line.split_whitespace().map(str::parse::<u64>);
    let (inside, start, size) =
        (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    (inside != start).then_some(Range { start, end: start + size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_stay_themselves_are_nobody_s() {
        assert_eq!(extent("0 100000 65536"), Some(Range { start: 100_000, end: 165_536 }));
        assert_eq!(extent("         1          1 4294967293"), None);
        assert_eq!(extent(""), None);
    }
}
