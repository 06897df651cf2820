//! What a tree takes on disk, as du(1) counts: blocks and inodes, each file once.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::Context;
use rustix::fs::{AtFlags, Dir, FileType, OFlags, Stat};
use rustix::io::Errno;

use crate::beneath::Beneath;

/// A path that is longer is cut off by opening a directory on the way (PATH_MAX is 4096, a name
/// at most 255). So neither a deep nor a wide tree makes us keep many descriptors open.
const MAX_PATH: usize = 3000;

/// What a tree takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

/// Returns what lies below `directory`, not counting the directory itself. What vanishes while we
/// look is not counted.
///
/// # Errors
/// When something can't be read.
pub(crate) fn of(directory: &OwnedFd) -> anyhow::Result<Usage> {
    let mut linked = HashSet::new();
    let mut total = Usage::default();
    let top = directory.try_clone().context("look at directory")?;
    let mut waiting = vec![(Rc::new(Beneath::without_links(top)), PathBuf::new())];
    while let Some((mut base, mut path)) = waiting.pop() {
        let directory = match base.open(&path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            directory => directory.context("open directory")?,
        };
        if path.as_os_str().len() > MAX_PATH {
            let cut = directory.try_clone().context("look at directory")?;
            (base, path) = (Rc::new(Beneath::without_links(cut)), PathBuf::new());
        }
        for entry in Dir::read_from(&directory).context("read directory")? {
            let entry = entry.context("read directory")?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let stat = match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                stat => stat.context("look at file")?,
            };
            if is_new(&stat, &mut linked) {
                total.bytes += u64::try_from(stat.st_blocks).unwrap_or_default() * 512;
                total.inodes += 1;
            }
            if FileType::from_raw_mode(stat.st_mode).is_dir() {
                waiting.push((base.clone(), path.join(OsStr::from_bytes(name.to_bytes()))));
            }
        }
    }
    Ok(total)
}

/// A file with several names is counted under the first.
fn is_new(stat: &Stat, linked: &mut HashSet<u64>) -> bool {
    let is_directory = FileType::from_raw_mode(stat.st_mode).is_dir();
    stat.st_nlink < 2 || is_directory || linked.insert(stat.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_count_once_and_depth_does_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, vec![1; 1 << 20]).unwrap();
        std::fs::hard_link(&file, dir.path().join("again")).unwrap();
        let fd: OwnedFd = std::fs::File::open(dir.path()).unwrap().into();
        assert_eq!(of(&fd).unwrap(), Usage { bytes: 1 << 20, inodes: 1 });
        let name = "d".repeat(200);
        let mut at = fd.try_clone().unwrap();
        for _ in 0..50 {
            rustix::fs::mkdirat(&at, &name, rustix::fs::Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, &name, OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        }
        assert_eq!(of(&fd).unwrap(), Usage { bytes: (1 << 20) + 50 * 4096, inodes: 51 });
        crate::remove::tree(&fd, name.as_ref()).unwrap();
    }
}
