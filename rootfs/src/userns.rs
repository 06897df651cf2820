//! A user namespace that exists only to carry an id map for `mount_setattr(2)`.
//!
//! We start ourselves again with a hidden verb; that process unshares and waits, we write its
//! maps and keep a descriptor of its namespace. The descriptor keeps the namespace after the
//! process is gone.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, anyhow};
use guardian_contract::ids::{IdMapping, IdMaps};
use nix::sched::{CloneFlags, unshare};

/// The hidden verb.
pub(crate) const VERB: &str = "hold-user-namespace";

/// Makes a user namespace with these maps and returns a descriptor of it.
///
/// # Errors
/// When the kernel makes no user namespace or refuses the maps.
pub(crate) fn with_maps(maps: &IdMaps) -> anyhow::Result<OwnedFd> {
    let mut child = Command::new("/proc/self/exe")
        .arg(VERB)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("start the holder of a user namespace")?;
    let namespace = take(&mut child, maps);
    // Closing its stdin ends it.
    drop(child.stdin.take());
    let status = child.wait().context("wait for the holder of a user namespace")?;
    let namespace = namespace?;
    if status.success() { Ok(namespace) } else { Err(anyhow!("user namespace holder: {status}")) }
}

fn take(child: &mut Child, maps: &IdMaps) -> anyhow::Result<OwnedFd> {
    let mut ready = [0];
    let stdout = child.stdout.as_mut().context("holder without stdout")?;
    stdout.read_exact(&mut ready).context("make a user namespace")?;
    let process = format!("/proc/{}", child.id());
    for (file, map) in [("uid_map", &maps.uid), ("gid_map", &maps.gid)] {
        std::fs::write(format!("{process}/{file}"), text(map))
            .with_context(|| format!("write {file} {}", text(map).trim_end()))?;
    }
    let file = std::fs::File::open(format!("{process}/ns/user")).context("open user namespace")?;
    Ok(file.into())
}

/// The hidden verb's body: unshares, says so, waits for the end of stdin.
///
/// # Errors
/// When the kernel makes no user namespace.
pub(crate) fn hold() -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER).context("unshare user namespace")?;
    std::io::stdout().write_all(b"!\n")?;
    let _ = std::io::stdin().read(&mut [0])?;
    Ok(())
}

/// A map as `/proc/PID/uid_map` takes it. On disk are the ids of the container, so the container's
/// own map is also the mount's.
fn text(map: &[IdMapping]) -> String {
    map.iter()
        .map(|extent| format!("{} {} {}\n", extent.container_id, extent.host_id, extent.size))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_has_one_line_per_extent() {
        let map = guardian_contract::ids::maximus_map(4_294_967_294, 1, 4_294_967_293);
        assert_eq!(text(&map), "0 4294967294 1\n1 1 4294967293\n");
    }
}
