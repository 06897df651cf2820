//! Network namespaces, held by descriptor so that a recycled pid can't swap one under us.

use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

use anyhow::Context;
use guardian_contract::fault::Fault;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::getsockopt;
use nix::{getsockopt_impl, libc, sockopt_impl};

sockopt_impl!(
    /// The number of the socket's network namespace (SO_NETNS_COOKIE, asm-generic/socket.h).
    NetnsCookie,
    GetOnly,
    libc::SOL_SOCKET,
    SO_NETNS_COOKIE,
    u64
);
const SO_NETNS_COOKIE: i32 = 71;

/// A network namespace.
#[derive(Debug)]
pub(crate) struct Netns {
    file: File,
    inode: u64,
}

impl Netns {
    /// Opens the namespace of a container's init. The host's own is refused: what `up` does to a
    /// container's namespace, it must never do to ours.
    pub(crate) fn of_container(pid: i32) -> anyhow::Result<Self> {
        if pid <= 0 {
            return Err(Fault::invalid(format!("container init PID was {pid}")).into());
        }
        let netns = Self::open(&format!("/proc/{pid}/ns/net"))
            .with_context(|| format!("open the network namespace of process {pid}"))?;
        match netns.inode == Self::own()?.inode {
            true => {
                Err(Fault::invalid(format!("process {pid} is in the host's network namespace")))?
            }
            false => Ok(netns),
        }
    }

    /// Returns the number that tells it from all others that live.
    pub(crate) fn inode(&self) -> u64 {
        self.inode
    }

    /// Does `work` inside and comes back. Only the calling thread moves, and we have but one.
    pub(crate) fn inside<T>(&self, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let own = Self::own()?;
        setns(&self.file, CloneFlags::CLONE_NEWNET).context("enter the container's netns")?;
        let done = work();
        setns(&own.file, CloneFlags::CLONE_NEWNET).context("return to the host's netns")?;
        done
    }

    /// Returns a new one with nothing in it, which goes with the value.
    pub(crate) fn scratch() -> anyhow::Result<Self> {
        let own = Self::own()?;
        unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace")?;
        let new = Self::own();
        setns(&own.file, CloneFlags::CLONE_NEWNET).context("return to the host's netns")?;
        new
    }

    fn own() -> anyhow::Result<Self> {
        Self::open("/proc/thread-self/ns/net").context("open the host's network namespace")
    }

    fn open(path: &str) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let inode = file.metadata()?.ino();
        Ok(Self { file, inode })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Returns the number of the namespace we are in, never given to another one in this boot.
/// Before Linux 5.14 it is the inode number, which a later namespace may get again.
pub(crate) fn own_id() -> anyhow::Result<u64> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("open a socket")?;
    match getsockopt(&socket, NetnsCookie) {
        Ok(cookie) => Ok(cookie),
        Err(_) => Ok(Netns::own()?.inode),
    }
}
