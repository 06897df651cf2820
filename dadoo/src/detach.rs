//! `dadoo --detach`: starts another dadoo in the background, ready to be attached to.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};

use anyhow::Context;
use guardian_contract::process::ProcessDir;
use nix::fcntl::OFlag;

use crate::fifo;

/// What a dadoo in the background has to say.
const LOG: &str = "dadoo.log";

/// Starts a dadoo with the arguments `args` less `--detach`, and returns at once.
///
/// # Errors
/// When the process directory can't be made, or dadoo can't be started.
pub(crate) fn detach(dir: &ProcessDir, args: Vec<OsString>) -> anyhow::Result<()> {
    fifo::make(dir, true)?;
    // dadoo prints nothing on stdout. Holding `exit` there from before it lives, it is never taken
    // for dead by somebody who attaches right now.
    let exit = fifo::open_end(&dir.exit(), OFlag::O_RDWR)?;
    let path = dir.path().join(LOG);
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
    let log = log.with_context(|| format!("open {}", path.display()))?;
    let is_kept = |arg: &OsString| arg != "--detach";
    Command::new(std::env::current_exe().context("find dadoo")?)
        .args(args.into_iter().skip(1).filter(is_kept))
        .stdin(Stdio::inherit())
        .stdout(exit)
        .stderr(log)
        .spawn()
        .context("start dadoo")?;
    Ok(())
}
