//! A process's terminal before it is relayed: the master made ready, the FIFOs opened.

use std::os::fd::OwnedFd;

use anyhow::Context;
use guardian_contract::process::ProcessDir;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::termios::{OutputFlags, SetArg, tcgetattr, tcsetattr};

use crate::fifo::open_end;

/// The master and what it is connected to, all non-blocking.
#[derive(Debug)]
pub(crate) struct Terminal {
    pub(crate) master: OwnedFd,
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) winsz: OwnedFd,
}

impl Terminal {
    /// Makes the master ready, and opens the FIFOs that only a terminal needs.
    ///
    /// # Errors
    /// When `master` is no terminal, or a FIFO can't be opened.
    pub(crate) fn open(dir: &ProcessDir, master: OwnedFd, stdout: OwnedFd) -> anyhow::Result<Self> {
        let mut modes = tcgetattr(&master).context("read the terminal's modes")?;
        modes.output_flags.insert(OutputFlags::ONLCR);
        tcsetattr(&master, SetArg::TCSANOW, &modes).context("set the terminal's modes")?;
        for end in [&master, &stdout] {
            fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("set non-blocking")?;
        }
        // Open for writing too, `stdin` does not hang up between two servers. A terminal's input
        // has no end of file (that is a character typed), so nobody misses it.
        let both = OFlag::O_RDWR | OFlag::O_NONBLOCK;
        let stdin = open_end(&dir.stdin(), both)?;
        let winsz = open_end(&dir.winsz(), both)?;
        Ok(Self { master, stdin, stdout, winsz })
    }
}
