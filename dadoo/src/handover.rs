//! Becoming `dadoo-hold`, the small program that keeps a process which runs.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use guardian_contract::process::ProcessDir;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::unistd::{Pid, execve};

use crate::terminal::Terminal;

/// The program, which lies beside dadoo.
const PROGRAM: &str = "dadoo-hold";

/// A process that runs, with all that is kept for it.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) pid: Pid,
    pub(crate) dir: ProcessDir,
    pub(crate) exit: OwnedFd,
    pub(crate) tree: Option<OwnedFd>,
    pub(crate) keep_alive: Option<[OwnedFd; 2]>,
    pub(crate) terminal: Option<Terminal>,
}

/// Finds dadoo-hold, before there is a process that needs it.
///
/// # Errors
/// When it is not there.
pub(crate) fn find_program() -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe().context("find dadoo")?.with_file_name(PROGRAM);
    ensure!(path.is_file(), "{} is missing; it belongs beside dadoo", path.display());
    Ok(path)
}

/// Executes dadoo-hold in our place. It inherits the children, that we are their subreaper, the
/// blocked signals, and the descriptors of `kept`.
///
/// # Errors
/// When it can't be executed; `kept` is as before.
pub(crate) fn hand_over(program: &Path, kept: &Kept) -> anyhow::Result<Infallible> {
    let mut argv = vec![c_string(program)?, c_string(kept.dir.path())?];
    argv.push(CString::new(kept.pid.to_string())?);
    let terminal = kept.terminal.as_ref();
    let terminal = terminal.map(|t| [&t.master, &t.stdin, &t.stdout, &t.winsz].map(Some));
    let always = [Some(&kept.exit), kept.tree.as_ref()];
    for descriptor in always.into_iter().chain(terminal.into_iter().flatten()) {
        // 0, which is never one of these, says that there is none.
        let number = descriptor.map_or(0, AsRawFd::as_raw_fd);
        argv.push(CString::new(number.to_string())?);
        descriptor.map_or(Ok(()), inherit)?;
    }
    kept.keep_alive.iter().flatten().try_for_each(inherit)?;
    std::env::set_current_dir(kept.dir.path()).context("enter the process directory")?;
    let no_environment: [CString; 0] = [];
    let program = c_string(program)?;
    execve(&program, &argv, &no_environment).context("execute dadoo-hold")
}

fn inherit(descriptor: &OwnedFd) -> anyhow::Result<()> {
    fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty())).context("hand a descriptor over")?;
    Ok(())
}

fn c_string(path: &Path) -> anyhow::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).context("path with a NUL")
}
