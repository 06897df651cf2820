//! Enters the namespaces of a process.

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use anyhow::Context;
use nix::sched::{CloneFlags, setns};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::fs::{Mode, OFlags};

/// Enters the user and mount namespace of `pid` as root of that user namespace.
///
/// # Errors
/// When the process is gone or a namespace can't be entered. A privileged container has no user
/// namespace of its own; that is no failure.
pub(super) fn namespaces_of(pid: i32) -> anyhow::Result<()> {
    // Both are opened through one descriptor, so they belong to one process, even if its pid is
    // given away meanwhile.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let process = rustix::fs::open(format!("/proc/{pid}"), flags, Mode::empty())
        .with_context(|| format!("find process {pid}"))?;
    let open = |name: &str| -> anyhow::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&process, name, flags, Mode::empty());
        Ok(file.with_context(|| format!("open {name} of process {pid}"))?.into())
    };
    let (mount, user) = (open("ns/mnt")?, open("ns/user")?);
    let own = std::fs::metadata("/proc/self/ns/user").context("look at our user namespace")?.ino();
    // Joining must not fail in silence: we would go on in the container with the host's rights.
    let is_other = user.metadata().context("look at user namespace")?.ino() != own;
    if is_other {
        setns(&user, CloneFlags::CLONE_NEWUSER).context("setns: user namespace")?;
    }
    setns(&mount, CloneFlags::CLONE_NEWNS).context("setns: mount namespace")?;
    // The server's groups are nothing to the container. A namespace may forbid this call
    // (/proc/PID/setgroups), and then its users could not use the groups either.
    let _ = setgroups(&[]);
    if is_other {
        let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
        setresgid(gid, gid, gid).context("become group 0 of the container")?;
        setresuid(uid, uid, uid).context("become user 0 of the container")?;
    }
    Ok(())
}
