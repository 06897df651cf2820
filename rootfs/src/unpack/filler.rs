//! Fills new files in a thread of its own, while the next ones are made: of what a small file costs the
//! kernel, making its name is one half, and its content, looks and closing are the other.
//!
//! No order is lost. A file is worked on through its descriptor, whatever becomes of its name meanwhile.

use std::fs::File;
use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use anyhow::{Context, bail};

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
pub(super) struct Filler<'scope> {
    files: Vec<Fresh>,
    bytes: usize,
    output: SyncSender<Vec<Fresh>>,
    thread: ScopedJoinHandle<'scope, anyhow::Result<()>>,
}

impl<'scope> Filler<'scope> {
    pub(super) fn start(scope: &'scope Scope<'scope, '_>, rules: Rules) -> Self {
        let (output, input) = sync_channel(WAITING);
        let thread = scope.spawn(move || fill_all(&input, rules));
        Self { files: Vec::new(), bytes: 0, output, thread }
    }

    /// Hands a file over.
    ///
    /// # Errors
    /// When an earlier one could not be filled; [`Self::finish`] tells why.
    pub(super) fn take(&mut self, fresh: Fresh) -> anyhow::Result<()> {
        self.bytes += fresh.content.len();
        self.files.push(fresh);
        match self.files.len() < FILES && self.bytes < BYTES {
            true => Ok(()),
            false => self.flush(),
        }
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        self.bytes = 0;
        self.output.send(std::mem::take(&mut self.files)).context("an earlier file failed")
    }

    /// Waits until all files are filled.
    ///
    /// # Errors
    /// Of the first that could not be.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        let sent = self.flush();
        drop(self.output);
        match self.thread.join() {
            Ok(filled) => filled.and(sent),
            Err(_) => bail!("the thread that fills files died"),
        }
    }
}

fn fill_all(input: &Receiver<Vec<Fresh>>, rules: Rules) -> anyhow::Result<()> {
    for fresh in input.iter().flatten() {
        fill(&fresh, rules)
            .with_context(|| format!("unpack {}", fresh.entry.path.escape_ascii()))?;
    }
    Ok(())
}

fn fill(fresh: &Fresh, rules: Rules) -> anyhow::Result<()> {
    (&fresh.file).write_all(&fresh.content)?;
    dress(rules, &fresh.file, &fresh.entry, false)
}
