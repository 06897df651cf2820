//! Network namespaces, held by descriptor so that a recycled pid can't swap one under us.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use guardian_contract::fault::Fault;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::getsockopt;
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
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

/// Where ip(8) keeps namespaces that have a name.
const NAMED: &str = "/run/netns";
const NO_NETNS: &str = "this is no network namespace";

/// A network namespace.
#[derive(Debug)]
pub(crate) struct Netns {
    file: File,
    /// Device and inode number.
    identity: (u64, u64),
}

impl Netns {
    /// Opens the namespace of a container's init. The host's own is refused: what `up` does to a
    /// container's namespace, it must never do to ours.
    pub(crate) fn of_container(pid: i32) -> anyhow::Result<Self> {
        if pid <= 0 {
            return Err(Fault::invalid(format!("container init PID was {pid}")).into());
        }
        let netns = Self::open(Path::new(&format!("/proc/{pid}/ns/net")))
            .with_context(|| format!("open the network namespace of process {pid}"))?;
        netns.not_the_host_s(|| format!("process {pid} is in"))
    }

    /// Opens a namespace somebody else has prepared, by name below /run/netns or by path. It is
    /// only ever borrowed: nothing here makes or deletes such a file.
    pub(crate) fn prepared(name: &str) -> anyhow::Result<Self> {
        let is_name = !name.contains('/') && name != "." && name != "..";
        let path = if is_name { Path::new(NAMED).join(name) } else { PathBuf::from(name) };
        let shown = path.display();
        let netns = match Self::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(Fault::not_found(format!("there is no network namespace {shown}")))?
            }
            opened => opened.with_context(|| format!("open the network namespace {shown}"))?,
        };
        let netns = netns.not_the_host_s(|| format!("{shown} is"))?;
        // Of a namespace's kind only setns(2) knows.
        let entered = netns.inside(|| Ok(()));
        entered.with_context(|| format!("open the network namespace {shown}: {NO_NETNS}"))?;
        Ok(netns)
    }

    /// The host is where we are; what pid 1 is in, is nobody's container either.
    fn not_the_host_s(self, what: impl Fn() -> String) -> anyhow::Result<Self> {
        let first = Self::open(Path::new("/proc/1/ns/net")).ok().map(|netns| netns.identity);
        match self.identity == Self::own()?.identity || Some(self.identity) == first {
            true => Err(Fault::invalid(format!("{} the host's network namespace", what())))?,
            false => Ok(self),
        }
    }

    /// Returns the number that tells it from all others that live.
    pub(crate) fn inode(&self) -> u64 {
        self.identity.1
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
        Self::open(Path::new("/proc/thread-self/ns/net"))
            .context("open the host's network namespace")
    }

    /// A path may be anything a person types, so it is not waited for (a FIFO would make us).
    fn open(path: &Path) -> std::io::Result<Self> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        if fstatfs(&file)?.filesystem_type() != NSFS_MAGIC {
            return Err(std::io::Error::other(NO_NETNS));
        }
        let metadata = file.metadata()?;
        Ok(Self { file, identity: (metadata.dev(), metadata.ino()) })
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
        Err(_) => Ok(Netns::own()?.inode()),
    }
}
