//! A directory with one JSON document in it, held under a lock: what is known of one container, or
//! of one mounted source. The lock dies with its holder, the document is replaced in one step.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use guardian_contract::fault::{Fault, Kind};
use guardian_contract::file;
use serde::Serialize;
use serde::de::DeserializeOwned;

const DOCUMENT: &str = "state.json";
const LOCK: &str = "lock";

/// How often a lock held by another is tried for.
const TRY: Duration = Duration::from_millis(5);

/// An entry, locked until it is dropped.
#[derive(Debug)]
pub(crate) struct Entry<T> {
    directory: PathBuf,
    _lock: File,
    /// What was read; nothing when the entry is new.
    pub(crate) document: Option<T>,
}

impl<T: Serialize + DeserializeOwned> Entry<T> {
    /// Locks and reads the entry kept in `directory`, which is made if need be.
    ///
    /// # Errors
    /// `Unavailable` when another holds it longer than `patience`, with its pid.
    pub(crate) fn open(directory: &Path, patience: Duration) -> anyhow::Result<Self> {
        let lock = lock(directory, patience)?;
        let document = file::read_json(&directory.join(DOCUMENT))?;
        Ok(Self { directory: directory.into(), _lock: lock, document })
    }

    /// Reads an entry as it is now, without its lock.
    ///
    /// # Errors
    /// When it can't be read.
    pub(crate) fn peek(directory: &Path) -> anyhow::Result<Option<T>> {
        file::read_json(&directory.join(DOCUMENT))
    }

    /// Replaces the document by what is now in [`Entry::document`].
    ///
    /// # Errors
    /// With the path and the reason.
    pub(crate) fn save(&self) -> anyhow::Result<()> {
        file::replace_json(&self.directory.join(DOCUMENT), &self.document)
    }

    /// Returns the entry's name.
    pub(crate) fn name(&self) -> String {
        self.directory.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Returns the path of another file of this entry.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Removes the entry, all its files with it.
    ///
    /// # Errors
    /// With the path and the reason.
    pub(crate) fn delete(self) -> anyhow::Result<()> {
        let name = self.directory.display();
        // Without a document there is no entry; what a crash leaves behind after this is empty.
        match std::fs::remove_file(self.directory.join(DOCUMENT)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {name}"));
            }
            _ => {}
        }
        match std::fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {name}"))
            }
            _ => Ok(()),
        }
    }
}

/// Puts a document that can't be read out of the way, for a person to look at.
///
/// # Errors
/// With the path and the reason.
pub(crate) fn quarantine(directory: &Path) -> anyhow::Result<PathBuf> {
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    let bad = directory.with_file_name(format!(".{name}.bad-{seconds}"));
    std::fs::rename(directory, &bad).with_context(|| format!("rename {}", directory.display()))?;
    Ok(bad)
}

/// Lists the entries in a directory by name; a missing directory has none.
///
/// # Errors
/// When it can't be read.
pub(crate) fn names(directory: &Path) -> anyhow::Result<Vec<String>> {
    let context = || format!("read {}", directory.display());
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(context)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.with_context(context)?.file_name();
        names.extend(name.to_str().filter(|name| !name.starts_with('.')).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// Takes the lock of an entry. One whose entry was removed meanwhile is nobody's lock any more.
fn lock(directory: &Path, patience: Duration) -> anyhow::Result<File> {
    let path = directory.join(LOCK);
    let until = Instant::now() + patience;
    loop {
        file::private_dir(directory)?;
        let mut options = OpenOptions::new();
        let opened = options.create(true).read(true).append(true).mode(0o600).open(&path);
        let mut lock = match opened {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            opened => opened.with_context(|| format!("open lock {}", path.display()))?,
        };
        while lock.try_lock().is_err() {
            if Instant::now() >= until {
                return Err(busy(&path).into());
            }
            std::thread::sleep(TRY);
        }
        let ours = lock.metadata().context("look at own lock")?.ino();
        if std::fs::metadata(&path).is_ok_and(|there| there.ino() == ours) {
            // For whoever waits in vain.
            let _ = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
            return Ok(lock);
        }
    }
}

fn busy(lock: &Path) -> Fault {
    let holder = std::fs::read_to_string(lock).unwrap_or_default();
    let message = format!("{} is held by process {}", lock.display(), holder.trim());
    Fault::new(Kind::Unavailable, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_there_until_it_is_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let short = Duration::from_millis(20);
        let mut entry = Entry::<u32>::open(&path, short).unwrap();
        assert_eq!(entry.document, None);
        entry.document = Some(7);
        entry.save().unwrap();
        let said = Entry::<u32>::open(&path, short).unwrap_err().to_string();
        let pid = std::process::id();
        assert_eq!(said, format!("{}/lock is held by process {pid}", path.display()));
        drop(entry);
        let entry = Entry::<u32>::open(&path, short).unwrap();
        assert_eq!(entry.document, Some(7));
        assert_eq!(names(directory.path()).unwrap(), ["x"]);
        entry.delete().unwrap();
        assert_eq!(names(directory.path()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn the_lock_of_a_deleted_entry_is_no_lock() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let entry = Entry::<u32>::open(&path, Duration::ZERO).unwrap();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| Entry::<u32>::open(&path, Duration::from_secs(5)).unwrap());
            std::thread::sleep(Duration::from_millis(30));
            entry.delete().unwrap();
            let mut other = other.join().unwrap();
            other.document = Some(1);
            other.save().unwrap();
        });
        assert_eq!(Entry::<u32>::peek(&path).unwrap(), Some(1));
    }
}
