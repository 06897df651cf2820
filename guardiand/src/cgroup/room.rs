//! Room for groups with controllers below a container's, on version 2.
//!
//! There a group that gives controllers to those below it has no processes of its own
//! (cgroup-v2.rst, No Internal Process Constraint). So the container's own processes move to a leaf
//! beneath it, once, when something else is to have a group there. Its limits stay where they are
//! and hold for all below, as does what was charged to it. Both runtimes start further processes
//! where init is.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::errno::Errno;

use super::migrate::migrate;

/// The leaf of the container's own processes: no handle is such a name.
const OWN: &str = "@init";

/// How often the group is emptied: a runtime may just be starting a process in it.
const ROUNDS: usize = 16;

/// Makes room below a group. One of version 1 has it, and so has one without controllers.
///
/// # Errors
/// With the path and the reason.
pub(crate) fn make(group: &Path) -> anyhow::Result<()> {
    let names = |file| std::fs::read_to_string(group.join(file)).unwrap_or_default();
    let (all, given) = (names("cgroup.controllers"), names("cgroup.subtree_control"));
    let is_given = |name: &&str| given.split_whitespace().any(|one| one == *name);
    let missing = all.split_whitespace().filter(|name| !is_given(name));
    let missing: Vec<String> = missing.map(|name| format!("+{name}")).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let own = group.join(OWN);
    match std::fs::create_dir(&own) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("make cgroup {}", own.display()));
        }
        _ => {}
    }
    for _ in 0..ROUNDS {
        migrate(group, &own)?;
        match std::fs::write(group.join("cgroup.subtree_control"), missing.join(" ")) {
            Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => {}
            given => {
                return given
                    .with_context(|| format!("give controllers below {}", group.display()));
            }
        }
    }
    bail!("cgroup {} is never without processes of its own", group.display())
}

/// Returns the container's group for the leaf of its own processes, and every other group as it is.
pub(super) fn home(group: PathBuf) -> PathBuf {
    match group.parent() {
        Some(home) if group.file_name() == Some(OWN.as_ref()) => home.to_owned(),
        _ => group,
    }
}

#[cfg(test)]
mod tests {
    use guardian_contract::depot::Handle;

    use super::*;

    #[test]
    fn the_container_s_own_processes_count_as_in_its_group() {
        assert_eq!(home("/garden/h/@init".into()), Path::new("/garden/h"));
        for other in ["/garden/h", "/garden/h/init", "/garden/h/@init/below", "/"] {
            assert_eq!(home(other.into()), Path::new(other));
        }
        assert!(OWN.parse::<Handle>().is_err(), "a process of that name would be in its place");
    }
}
