//! Files of a container, opened beneath its root: no link inside leads out, no FIFO hangs us.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::Context;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat};
use rustix::io::Errno;

/// The largest passwd or group file read, in bytes.
const LIMIT_BYTES: u64 = 16 << 20;

/// The root directory of a running container.
#[derive(Debug)]
pub(crate) struct Jail(OwnedFd);

impl Jail {
    /// Opens the root of the container whose init is `pid`.
    ///
    /// # Errors
    /// When the process is gone.
    pub(crate) fn of(pid: i32) -> anyhow::Result<Self> {
        Self::at(Path::new(&format!("/proc/{pid}/root")))
    }

    /// Opens a root filesystem that is not a container's yet.
    ///
    /// # Errors
    /// When it is not there.
    pub(crate) fn at(root: &Path) -> anyhow::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(root, flags, Mode::empty());
        opened.map(Self).with_context(|| format!("open {}", root.display()))
    }

    /// Reads a small text file; anything but a regular file, and a missing one, is empty.
    ///
    /// # Errors
    /// When it is there and can't be read, or is too large.
    pub(crate) fn text(&self, path: &str) -> anyhow::Result<String> {
        let file = match self.open(Path::new(path), OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => {
                return Ok(String::new());
            }
            Err(error) => return Err(error).with_context(|| format!("open {path} of container")),
        };
        let stat = fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(String::new());
        }
        let mut bytes = Vec::new();
        std::fs::File::from(file).take(LIMIT_BYTES + 1).read_to_end(&mut bytes)?;
        anyhow::ensure!(bytes.len() as u64 <= LIMIT_BYTES, "{path} of container is too large");
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Tells whether nothing is at `path`.
    pub(crate) fn lacks(&self, path: &str) -> bool {
        self.open(Path::new(path), OFlags::PATH).err() == Some(Errno::NOENT)
    }

    fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jail(dir: &Path) -> Jail {
        Jail(rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap())
    }

    #[test]
    fn links_stay_inside_and_odd_files_are_empty() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("etc")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", at("etc/passwd")).unwrap();
        std::fs::write(at("etc/hostname"), "inside").unwrap();
        nix::unistd::mkfifo(&at("etc/group"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink("/proc/self/exe", at("etc/magic")).unwrap();
        let jail = jail(dir.path());
        assert_eq!(jail.text("/etc/passwd").unwrap(), "inside");
        for empty in ["/etc/group", "/etc/nothing", "/etc", "/etc/magic", "/etc/hostname/x"] {
            assert_eq!(jail.text(empty).unwrap(), "", "{empty}");
        }
        for (path, lacks) in [("/etc", false), ("/etc/nothing/x", true), ("/etc/../..", false)] {
            assert_eq!(jail.lacks(path), lacks, "{path}");
        }
    }
}
