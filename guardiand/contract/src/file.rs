//! Replacing a file so that no reader ever sees half of it, and holding a lock that a dead
//! holder can't keep.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Replaces `path` by `content`, mode 0600, in one step (rename(2)).
///
/// # Errors
/// With the path and the reason; the old content then still stands.
pub fn replace(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    replace_mode(path, content, 0o600)
}

/// Like [`replace`], with the mode chosen by the caller.
///
/// # Errors
/// With the path and the reason; the old content then still stands.
pub fn replace_mode(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    let temporary = temporary_beside(path);
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written.with_context(|| format!("write {}", path.display()))
}

/// Replaces `path` by `value` as JSON.
///
/// # Errors
/// With the path and the reason; the old content then still stands.
pub fn replace_json(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_vec(value)?;
    text.push(b'\n');
    replace(path, &text)
}

/// Reads JSON from `path`; a missing file is `None`.
///
/// # Errors
/// With the path and the reason.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    serde_json::from_slice(&text).map(Some).with_context(|| format!("parse {}", path.display()))
}

/// Makes a directory and its parents, mode 0700.
///
/// # Errors
/// With the path and the reason; an existing directory is no error.
pub fn private_dir(path: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("make directory {}", path.display()))
}

/// Takes the exclusive lock kept in the file `path` (flock(2)), waiting for it. It is held until
/// the returned file is dropped, and the kernel drops it when the holder dies.
///
/// # Errors
/// With the path and the reason.
pub fn lock(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("open lock {}", path.display()))?;
    file.lock().with_context(|| format!("lock {}", path.display()))?;
    Ok(file)
}

/// A dot-name in the same directory, so that the rename stays on one filesystem; with our pid, so
/// that two writers don't share it.
fn temporary_beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let thread = format!("{:?}", std::thread::current().id());
    let thread: String = thread.chars().filter(char::is_ascii_digit).collect();
    path.with_file_name(format!(".{name}.{}.{thread}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_reads_back_and_leaves_no_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        replace_json(&path, &vec![1, 2]).unwrap();
        replace_json(&path, &vec![3]).unwrap();
        assert_eq!(read_json::<Vec<u32>>(&path).unwrap(), Some(vec![3]));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_file_is_none_and_a_broken_one_names_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        assert_eq!(read_json::<u32>(&path).unwrap(), None);
        std::fs::write(&path, "{").unwrap();
        let message = format!("{:#}", read_json::<u32>(&path).unwrap_err());
        assert!(message.contains("x.json"), "{message}");
    }
}
