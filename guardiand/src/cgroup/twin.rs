//! The two places of a throttled container: `PARENT/good/…`, where it is made, and `PARENT/bad/…`, where
//! its processes are while it has used more processor time than it is entitled to.

use std::path::{Component, Path, PathBuf};

use guardian_contract::depot::{BAD, GOOD};

/// Returns the other place of a group below a hierarchy's root; `None` for one that has no other.
pub(crate) fn of(group: &Path) -> Option<PathBuf> {
    let mut parts: Vec<Component<'_>> = group.components().collect();
    // The root, the installation's own group, good or bad, and at least the container's.
    let place = parts.get_mut(2)?;
    *place = Component::Normal(match place.as_os_str() {
        name if name == GOOD => BAD.as_ref(),
        name if name == BAD => GOOD.as_ref(),
        _ => return None,
    });
    (parts.len() > 3).then(|| parts.iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_below_good_or_bad_has_a_twin() {
        for (group, want) in [
            ("/garden/good/h", Some("/garden/bad/h")),
            ("/garden-a/bad/h/p", Some("/garden-a/good/h/p")),
            ("/garden/good", None),
            ("/garden/h", None),
            ("/garden/h/good", None),
            ("/", None),
        ] {
            assert_eq!(of(Path::new(group)).as_deref(), want.map(Path::new), "{group}");
        }
    }
}
