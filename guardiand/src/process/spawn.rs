//! Starting a child with chosen descriptors, by posix_spawn(3).
//!
//! std's and tokio's commands take other descriptors than 0, 1 and 2 only by fork(2), which copies
//! the page tables of a server that may have grown, and stops its threads at each page they write
//! next.

use std::ffi::{CString, OsString};
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use anyhow::Context;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::SigSet;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use tokio::net::unix::pipe;

/// Descriptors are moved above this number first, or one could be written over before its turn.
const HIGHEST_TARGET: i32 = 16;

/// A child, which must be waited for.
#[derive(Debug)]
pub(crate) struct Child {
    /// tokio's type is for pipes, but can wait for any descriptor that poll(2) can.
    pidfd: pipe::Receiver,
}

/// Starts `program` in a process group of its own, with the given descriptors at the given numbers,
/// and no others.
///
/// # Errors
/// With the program and the reason.
pub(crate) fn spawn(
    program: &Path,
    args: &[OsString],
    descriptors: Vec<(OwnedFd, i32)>,
) -> anyhow::Result<Child> {
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF
            | PosixSpawnFlags::POSIX_SPAWN_SETPGROUP,
    )?;
    attributes.set_sigmask(&SigSet::empty())?;
    attributes.set_sigdefault(&SigSet::all())?;
    attributes.set_pgroup(nix::unistd::Pid::from_raw(0))?;
    let mut actions = PosixSpawnFileActions::init()?;
    let mut moved = Vec::new();
    for (descriptor, number) in descriptors {
        let descriptor = rustix::io::fcntl_dupfd_cloexec(descriptor, HIGHEST_TARGET)?;
        actions.add_dup2(descriptor.as_raw_fd(), number)?;
        moved.push(descriptor);
    }
    let path = CString::new(program.as_os_str().as_bytes()).context("path with a NUL")?;
    let args = args.iter().map(|arg| CString::new(arg.as_bytes()));
    let args: Vec<CString> = args.collect::<Result<_, _>>().context("argument with a NUL")?;
    let argv: Vec<&CString> = std::iter::once(&path).chain(&args).collect();
    let pid = posix_spawn(path.as_c_str(), &actions, &attributes, &argv, &environment())
        .with_context(|| format!("exec {}", program.display()))?;
    let pid = Pid::from_raw(pid.as_raw()).context("child without a pid")?;
    let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK).context("open the child")?;
    Ok(Child { pidfd: pipe::Receiver::from_owned_fd_unchecked(pidfd)? })
}

impl Child {
    /// Waits until it has ended, and collects it.
    pub(crate) async fn ended(&self) {
        let collect = || {
            let id = WaitId::PidFd(self.pidfd.as_fd());
            match waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOHANG)? {
                Some(_) => Ok(()),
                None => Err(ErrorKind::WouldBlock.into()),
            }
        };
        loop {
            let ready = self.pidfd.readable().await;
            match ready.and_then(|()| self.pidfd.try_io(collect)) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                _ => return,
            }
        }
    }

    /// Kills it; it must still be waited for.
    pub(crate) fn kill(&self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

fn environment() -> Vec<CString> {
    let entry = |(name, value): (OsString, OsString)| {
        CString::new([name.into_vec(), value.into_vec()].join(&b'=')).ok()
    };
    std::env::vars_os().filter_map(entry).collect()
}
