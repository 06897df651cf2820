//! Fills new files in a thread of its own, while the next ones are made: of what a small file costs the
//! kernel, making its name is one half, and its content, looks and closing are the other.
//!
//! No order is lost. A file is worked on through its descriptor, whatever becomes of its name meanwhile.

use std::fs::File;
use std::io::Write;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use anyhow::{Context, anyhow, bail};

use super::Rules;
use super::attributes::dress;
use crate::archive::Entry;

/// Waking the thread costs about as much as filling a file does, so they come by the dozen.
const FILES: usize = 24;
/// Content is kept in memory until its turn comes, so large files are not for this thread.
pub(super) const SMALL: u64 = 64 << 10;
/// Most content handed over at once, but for the last file.
const BYTES: usize = 512 << 10;
/// Dozens that may wait.
const WAITING: usize = 2;

/// A file that was just made and is empty.
#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) file: File,
    pub(super) entry: Entry,
    pub(super) content: Vec<u8>,
}

/// Where new files are handed over.
#[derive(Debug)]
pub(super) struct Filler<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    rules: Rules,
    files: Vec<Fresh>,
    bytes: usize,
    worker: Option<Worker<'scope>>,
    filled: anyhow::Result<()>,
}

#[derive(Debug)]
struct Worker<'scope> {
    files: SyncSender<Vec<Fresh>>,
    thread: ScopedJoinHandle<'scope, anyhow::Result<()>>,
}

impl<'scope, 'env> Filler<'scope, 'env> {
    pub(super) fn new(scope: &'scope Scope<'scope, 'env>, rules: Rules) -> Self {
        Self { scope, rules, files: Vec::new(), bytes: 0, worker: None, filled: Ok(()) }
    }

    /// Takes a file over.
    ///
    /// # Errors
    /// When an earlier one could not be filled; [`Self::finish`] tells why.
    pub(super) fn take(&mut self, fresh: Fresh) -> anyhow::Result<()> {
        self.bytes += fresh.content.len();
        self.files.push(fresh);
        if self.files.len() < FILES && self.bytes < BYTES {
            return Ok(());
        }
        self.bytes = 0;
        let (files, rules) = (std::mem::take(&mut self.files), self.rules);
        if self.worker.is_none() {
            self.worker = Worker::start(self.scope, rules);
        }
        let is_taken = match &self.worker {
            Some(worker) => worker.files.send(files).is_ok(),
            None => {
                self.filled = fill_all(files, rules);
                self.filled.is_ok()
            }
        };
        if is_taken { Ok(()) } else { bail!("an earlier file failed") }
    }

    /// Waits until all files are filled.
    ///
    /// # Errors
    /// Of the first that could not be.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        self.filled?;
        let Some(worker) = self.worker else { return fill_all(self.files, self.rules) };
        // Nobody takes them after a failure, which comes with the thread's end.
        let _ = worker.files.send(self.files);
        drop(worker.files);
        worker.thread.join().map_err(|_| anyhow!("the thread that fills files died"))?
    }
}

impl<'scope> Worker<'scope> {
    /// Returns nothing where no thread can be had: it counts as one of the user's processes, and of
    /// those there may be too many (RLIMIT_NPROC, setrlimit(2)).
    fn start(scope: &'scope Scope<'scope, '_>, rules: Rules) -> Option<Self> {
        let (files, input) = sync_channel::<Vec<Fresh>>(WAITING);
        let work = move || input.iter().try_for_each(|files| fill_all(files, rules));
        let thread = Builder::new().spawn_scoped(scope, work).ok()?;
        Some(Self { files, thread })
    }
}

fn fill_all(files: Vec<Fresh>, rules: Rules) -> anyhow::Result<()> {
    files.iter().try_for_each(|fresh| {
        fill(fresh, rules).with_context(|| format!("unpack {}", fresh.entry.path.escape_ascii()))
    })
}

fn fill(fresh: &Fresh, rules: Rules) -> anyhow::Result<()> {
    (&fresh.file).write_all(&fresh.content)?;
    dress(rules, &fresh.file, &fresh.entry, false)
}
