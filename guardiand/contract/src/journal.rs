//! The record of what is being done to a handle: one JSON line before each step and one after.
//!
//! A journal whose last operation is not `done` was cut off; its handle is unwound (create) or
//! finished (destroy) at the next start. Lines are appended without fsync on purpose: they must
//! survive the death of the writer, which the page cache does; after a death of the machine all
//! containers are dead anyway and every handle is unwound.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::log::timestamp;

/// What is done to a container as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Making it; cut off, it is unwound.
    Create,
    /// Taking it away; cut off, it is finished.
    Destroy,
}

/// Where in a step a line was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// Before the step touched the world.
    Begin,
    /// After it succeeded.
    Done,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When, RFC 3339.
    pub at: String,
    /// Which operation.
    pub operation: Operation,
    /// Which step of it; empty for the operation as a whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub step: String,
    /// Begun or done.
    pub mark: Mark,
}

/// The journal kept in one file.
#[derive(Debug, Clone)]
pub struct Journal(PathBuf);

impl Journal {
    /// Returns the journal kept at `path`; nothing is read or written yet.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Appends a line. An empty `step` means the operation as a whole.
    ///
    /// # Errors
    /// With the path and the reason.
    pub fn mark(&self, operation: Operation, step: &str, mark: Mark) -> anyhow::Result<()> {
        let entry = Entry { at: timestamp(SystemTime::now()), operation, step: step.into(), mark };
        let mut line = serde_json::to_string(&entry)?;
        line.push('\n');
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.0)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .with_context(|| format!("append to {}", self.0.display()))
    }

    /// Reads all lines. A half-written last line is ignored: its step had not begun.
    ///
    /// # Errors
    /// With the path and the reason; a missing file is empty.
    pub fn entries(&self) -> anyhow::Result<Vec<Entry>> {
        match std::fs::read_to_string(&self.0) {
            Ok(text) => Ok(parse(&text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error).with_context(|| format!("read {}", self.0.display())),
        }
    }

    /// Returns the operation that was begun and not finished, if any.
    ///
    /// # Errors
    /// As [`Journal::entries`].
    pub fn unfinished(&self) -> anyhow::Result<Option<Operation>> {
        Ok(unfinished(&self.entries()?))
    }

    /// Returns where the journal is kept.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

fn parse(text: &str) -> Vec<Entry> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn unfinished(entries: &[Entry]) -> Option<Operation> {
    let whole = entries.iter().rev().find(|entry| entry.step.is_empty())?;
    (whole.mark == Mark::Begin).then_some(whole.operation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_tells_what_was_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::at(dir.path().join("journal"));
        assert_eq!(journal.unfinished().unwrap(), None);
        journal.mark(Operation::Create, "", Mark::Begin).unwrap();
        journal.mark(Operation::Create, "rootfs", Mark::Begin).unwrap();
        assert_eq!(journal.unfinished().unwrap(), Some(Operation::Create));
        journal.mark(Operation::Create, "", Mark::Done).unwrap();
        assert_eq!(journal.unfinished().unwrap(), None);
        journal.mark(Operation::Destroy, "", Mark::Begin).unwrap();
        assert_eq!(journal.unfinished().unwrap(), Some(Operation::Destroy));
    }

    #[test]
    fn a_half_written_line_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::at(dir.path().join("journal"));
        journal.mark(Operation::Create, "", Mark::Begin).unwrap();
        let mut text = std::fs::read_to_string(journal.path()).unwrap();
        text.push_str("{\"at\":\"2026");
        std::fs::write(journal.path(), text).unwrap();
        assert_eq!(journal.entries().unwrap().len(), 1);
    }
}
