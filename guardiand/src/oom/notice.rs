//! The kernel's notice that a group is out of memory.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::event::{EventfdFlags, eventfd};
use tokio::net::unix::pipe;

/// More than either file ever has.
const COUNTS_BYTES: usize = 1024;

/// Where a group's notice comes from. tokio's type is for pipes, but can wait for any descriptor that
/// poll(2) can.
#[derive(Debug)]
pub(super) enum Notice {
    /// An eventfd that is told of memory.oom_control (cgroup-v1/memory.rst, sections 9 and 10).
    Version1 {
        /// Is readable after a notice, and when the group is removed.
        event: pipe::Receiver,
        /// memory.oom_control. Not kept open: a server with many containers has few descriptors to spare.
        counts: PathBuf,
    },
    /// memory.events, which wakes whoever polls it when a number in it grows (cgroup-v2.rst).
    Version2(pipe::Receiver),
}

impl Notice {
    /// Asks for notice of the group in `dir`.
    ///
    /// # Errors
    /// With the path and the reason.
    pub(super) fn of(dir: &Path) -> anyhow::Result<Self> {
        let open = |name: &str| {
            let path = dir.join(name);
            File::open(&path).with_context(|| format!("open {}", path.display()))
        };
        if dir.join("memory.events").exists() {
            let counts = open("memory.events")?;
            return Ok(Self::Version2(pipe::Receiver::from_file_unchecked(counts)?));
        }
        let counts = open("memory.oom_control")?;
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let control = dir.join("cgroup.event_control");
        let order = format!("{} {}", event.as_raw_fd(), counts.as_raw_fd());
        std::fs::write(&control, order).with_context(|| format!("write {}", control.display()))?;
        let event = pipe::Receiver::from_owned_fd_unchecked(event)?;
        Ok(Self::Version1 { event, counts: dir.join("memory.oom_control") })
    }

    /// Waits for the next notice: on version 2, until there are not only so many kills any more.
    ///
    /// # Errors
    /// When the server stops.
    pub(super) async fn next(&self, seen: u64) -> io::Result<()> {
        let (Self::Version1 { event: receiver, .. } | Self::Version2(receiver)) = self;
        let look = || match self {
            Self::Version1 { event, .. } => Ok(rustix::io::read(event, &mut [0; 8]).map(drop)?),
            // It is always readable. Reading it is what makes the kernel give notice of the next
            // change, and this error what makes tokio wait for that.
            Self::Version2(counts) => match kills(counts.as_fd()) {
                Some(kills) if kills == seen => Err(ErrorKind::WouldBlock.into()),
                _ => Ok(()),
            },
        };
        loop {
            receiver.readable().await?;
            match receiver.try_io(look) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                noticed => return noticed,
            }
        }
    }

    /// Returns how many processes the kernel killed, on version 2 also in groups below; `None` when
    /// the group is gone.
    pub(super) fn kills(&self) -> Option<u64> {
        match self {
            Self::Version1 { counts, .. } => kills(File::open(counts).ok()?.as_fd()),
            Self::Version2(counts) => kills(counts.as_fd()),
        }
    }

    /// Tells whether notice is given before a process is killed, and of nothing but that.
    pub(super) fn comes_before_the_kill(&self) -> bool {
        matches!(self, Self::Version1 { .. })
    }
}

fn kills(counts: BorrowedFd<'_>) -> Option<u64> {
    let mut bytes = [0; COUNTS_BYTES];
    let length = rustix::io::pread(counts, &mut bytes, 0).ok()?;
    let text = std::str::from_utf8(&bytes[..length]).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.parse().ok()
}
