//! What the process directory says of a process: its pid, its exit code, whether it is kept.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, bail};
use guardian_contract::process::ProcessDir;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags};
use nix::unistd::{Pid, read};

use crate::fifo::open_end;

/// Reads the process's pid. Runtimes write it without a newline; one is allowed.
///
/// # Errors
/// With the path and the reason.
pub(crate) fn pid(dir: &ProcessDir) -> anyhow::Result<Pid> {
    let pid = number(&dir.pidfile())?;
    // 0 and below mean process groups to kill(2).
    if pid < 1 {
        bail!("{}: {pid} is no pid", dir.pidfile().display());
    }
    Ok(Pid::from_raw(pid))
}

/// Reads the exit code of a process that has ended.
///
/// # Errors
/// With the path and the reason.
pub(crate) fn exitcode(dir: &ProcessDir) -> anyhow::Result<u8> {
    let code = number(&dir.exitcode()).with_context(|| {
        let dir = dir.path().display();
        format!(
            "no process runs or has ended in {dir}, where dadoo.log and runtime.log may say why"
        )
    })?;
    u8::try_from(code).with_context(|| format!("{}: {code}", dir.exitcode().display()))
}

/// Sees to it that what is wrong with a mistyped directory is not called the lack of a file in it.
///
/// # Errors
/// When there is no such process.
pub(crate) fn expect(dir: &ProcessDir) -> anyhow::Result<()> {
    match dir.path().exists() {
        true => Ok(()),
        false => bail!("there is no process {}", dir.path().display()),
    }
}

/// A look at `exit`, which dadoo holds open for writing as long as it keeps the process. While it
/// does, the pid in the pidfile belongs to the process.
#[derive(Debug)]
pub(crate) struct Watch(OwnedFd);

impl Watch {
    /// Opens `exit`.
    ///
    /// # Errors
    /// When there is no such process; otherwise with the path and the reason.
    pub(crate) fn open(dir: &ProcessDir) -> anyhow::Result<Self> {
        expect(dir)?;
        open_end(&dir.exit(), OFlag::O_RDONLY | OFlag::O_NONBLOCK).map(Self)
    }

    /// Tells whether a dadoo keeps the process now.
    pub(crate) fn is_kept(&self) -> bool {
        // "Try again" as long as there is a writer, end of file when there is none (fifo(7)).
        read(&self.0, &mut [0]) == Err(Errno::EAGAIN)
    }

    /// Returns what to poll for: it hangs up when dadoo lets go.
    pub(crate) fn hang_up(&self) -> PollFd<'_> {
        PollFd::new(self.0.as_fd(), PollFlags::empty())
    }
}

fn number(path: &Path) -> anyhow::Result<i32> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    text.trim_end().parse().with_context(|| format!("parse {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pidfile_names_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let process = ProcessDir::at(dir.path());
        for (text, want) in [("12", Some(12)), ("12\n", Some(12)), ("0", None), ("-1", None)] {
            fs::write(process.pidfile(), text).unwrap();
            assert_eq!(pid(&process).ok().map(Pid::as_raw), want, "{text:?}");
        }
        assert!(exitcode(&process).is_err());
        fs::write(process.exitcode(), "42").unwrap();
        assert_eq!(exitcode(&process).unwrap(), 42);
    }
}
