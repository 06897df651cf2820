//! Directories that are held by a lock on themselves: no file is needed for it, and nobody can
//! hold one after death.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Context;

/// Opens a directory to lock it; `None` when there is none.
///
/// # Errors
/// When it can't be opened.
pub(crate) fn open(path: &Path) -> anyhow::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("open {}", path.display())),
    }
}

/// Tells whether `path` still names what we have open: it may have been removed, and made again,
/// while we waited for its lock.
pub(crate) fn is_still(held: &File, path: &Path) -> bool {
    match (held.metadata(), std::fs::metadata(path)) {
        (Ok(held), Ok(named)) => (held.dev(), held.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}
