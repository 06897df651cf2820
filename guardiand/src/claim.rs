//! One server for a depot: a second one would take what the first is just making for what a dead one
//! has left, and take it away.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};

/// How often it is tried: a server that was killed has its lock a moment longer, by a program that it
/// was about to start.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// Locks a depot for as long as what is returned lives (flock(2)).
///
/// # Errors
/// When another server has it, with its process id, or it can't be opened.
pub(crate) async fn claim(depot: &Path) -> anyhow::Result<File> {
    let file = File::open(depot).with_context(|| format!("open {}", depot.display()))?;
    for _ in 0..TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(PAUSE).await,
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("lock {}", depot.display()));
            }
        }
    }
    let owner = owner(&file).map(|pid| format!(", process {pid}")).unwrap_or_default();
    bail!("depot {} is in use by another server{owner}", depot.display())
}

/// Finds who has locked a file (proc_locks(5)): `1: FLOCK ADVISORY WRITE 812 fe:00:3241 0 EOF`.
fn owner(file: &File) -> Option<String> {
    let inode = file.metadata().ok()?.ino().to_string();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_it = words.get(1) == Some(&"FLOCK")
            && words.get(5)?.rsplit(':').next() == Some(inode.as_str());
        is_it.then(|| words.get(4).map(|&pid| pid.to_owned())).flatten()
    })
}

/// Tells whether somebody listens at a path: what a dead server left there refuses.
pub(crate) async fn is_answered(socket: &Path) -> bool {
    match tokio::net::UnixStream::connect(socket).await {
        Ok(_) => true,
        // Too many wait to be accepted.
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}
