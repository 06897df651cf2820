//! The FIFOs of a process directory: making them, and opening the ends that keep it alive.

use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, bail};
use guardian_contract::file;
use guardian_contract::process::ProcessDir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{alarm, mkfifo};

/// A server opens its ends within milliseconds. One that died before has left nobody who will.
const SERVER_PATIENCE_S: u32 = 60;

/// The ends that dadoo holds while it starts a process.
#[derive(Debug)]
pub(crate) struct Fifos {
    /// Held for life: that it is open means that the process runs.
    pub(crate) exit: OwnedFd,
    /// Those of the standard streams, unless they are passed.
    pub(crate) streams: Option<Streams>,
}

/// The FIFOs of the standard streams.
#[derive(Debug)]
pub(crate) struct Streams {
    /// Held for life: the process blocks, and is not killed by SIGPIPE, while no server reads.
    pub(crate) keep_alive: [OwnedFd; 2],
    /// The process's own ends.
    pub(crate) stdio: [OwnedFd; 3],
}

/// Makes the directory and the FIFOs that are missing in it, for somebody who starts a process by
/// hand; `has_streams` says whether its standard streams are among them.
///
/// # Errors
/// When a process has already run there, and when one can't be made.
pub(crate) fn make(dir: &ProcessDir, has_streams: bool) -> anyhow::Result<()> {
    file::private_dir(dir.path())?;
    if dir.pidfile().exists() || dir.exitcode().exists() {
        bail!("{} has been used by a process before", dir.path().display());
    }
    let streams = has_streams.then(|| dir.streams());
    for path in streams.into_iter().flatten().chain(dir.signals()) {
        match mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error).with_context(|| format!("make {}", path.display())),
        }
    }
    Ok(())
}

/// Opens dadoo's ends.
///
/// # Errors
/// With the path and the reason.
pub(crate) fn open_all(
    dir: &ProcessDir,
    has_streams: bool,
    has_server: bool,
) -> anyhow::Result<Fifos> {
    // Opened first, unlike gdn's order, so that whoever waits finds it held at any time.
    let exit = open_end(&dir.exit(), OFlag::O_RDWR)?;
    let streams = has_streams.then(|| open_streams(dir, has_server)).transpose()?;
    Ok(Fifos { exit, streams })
}

/// Waits for somebody to open the other ends. With `has_server` the wait is bounded: SIGALRM ends
/// a dadoo whose server has died.
fn open_streams(dir: &ProcessDir, has_server: bool) -> anyhow::Result<Streams> {
    if has_server {
        alarm::set(SERVER_PATIENCE_S);
    }
    let stdin = open_end(&dir.stdin(), OFlag::O_RDONLY)?;
    let stdout = open_end(&dir.stdout(), OFlag::O_WRONLY)?;
    let stderr = open_end(&dir.stderr(), OFlag::O_WRONLY)?;
    alarm::cancel();
    let keep_alive =
        [open_end(&dir.stdout(), OFlag::O_RDONLY)?, open_end(&dir.stderr(), OFlag::O_RDONLY)?];
    Ok(Streams { keep_alive, stdio: [stdin, stdout, stderr] })
}

/// Opens one end of a FIFO; it is closed on exec.
///
/// # Errors
/// With the path and the reason.
pub(crate) fn open_end(path: &Path, flags: OFlag) -> anyhow::Result<OwnedFd> {
    open(path, flags | OFlag::O_CLOEXEC | OFlag::O_NOCTTY, Mode::empty())
        .with_context(|| format!("open {}", path.display()))
}
