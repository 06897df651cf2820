//! Which groups there are, living and dying.

use std::collections::BTreeSet;
use std::path::Path;

use guardian_contract::depot::{BAD, GOOD};

use super::{ROOT, children, parents};

/// Returns the names of all groups in our containers' parent group, of all hierarchies.
pub(crate) fn names(tag: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for parent in parents(tag) {
        for child in children(&parent) {
            match child.file_name().and_then(|name| name.to_str()) {
                Some(GOOD | BAD) => {
                    names.extend(children(&child).iter().filter_map(|group| name(group)));
                }
                other => names.extend(other.map(str::to_owned)),
            }
        }
    }
    names
}

/// Returns how many groups of the whole host were removed, and are held in the kernel by memory that
/// was charged to them. They cost memory, and time whenever statistics are read.
pub(crate) fn dying() -> Option<u64> {
    let root = Path::new(ROOT);
    let unified = [root.to_owned(), root.join("unified")];
    let stat = unified.iter().find_map(|dir| std::fs::read_to_string(dir.join("cgroup.stat")).ok());
    let version_2 = stat.as_deref().and_then(dying_in_stat);
    let groups = std::fs::read_to_string("/proc/cgroups").ok();
    let version_1 = groups.as_deref().and_then(memory_groups);
    match version_1 {
        // Version 1 does not count them: it counts all groups, and those that live have a directory.
        Some(all) => {
            let living = count(&root.join("memory"));
            Some(all.saturating_sub(living) + version_2.unwrap_or(0))
        }
        None => version_2,
    }
}

/// Finds the number in a cgroup.stat (cgroup-v2.rst).
fn dying_in_stat(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("nr_dying_descendants "))?.parse().ok()
}

/// Returns how many groups the memory controller has on version 1, from a /proc/cgroups (cgroups(7));
/// hierarchy 0 is version 2.
fn memory_groups(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("memory\t"))?;
    let mut fields = line.split('\t');
    let (hierarchy, groups) = (fields.next()?, fields.next()?);
    (hierarchy != "0").then(|| groups.parse().ok())?
}

fn count(group: &Path) -> u64 {
    1 + children(group).iter().map(|child| count(child)).sum::<u64>()
}

fn name(group: &Path) -> Option<String> {
    Some(group.file_name()?.to_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dying_groups_are_counted_as_each_version_tells() {
        let stat = "nr_descendants 2\nnr_subsys_memory 1\nnr_dying_descendants 7\n";
        assert_eq!(dying_in_stat(stat), Some(7));
        let header = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n";
        assert_eq!(memory_groups(&format!("{header}memory\t4\t60\t1\n")), Some(60));
        assert_eq!(memory_groups(&format!("{header}memory\t0\t60\t1\n")), None);
    }
}
