//! Files of a container, opened beneath its root: no link inside leads out, no FIFO hangs us.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use anyhow::Context;
use guardian_contract::ids::{IdMapping, host_id};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, fstat};
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
        let path = format!("/proc/{pid}/root");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&path, flags, Mode::empty());
        root.map(Self).with_context(|| format!("open {path}"))
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

    /// Makes a directory and its parents. New ones are 0755 and the user's; others stay as they
    /// are.
    ///
    /// # Errors
    /// With the path and the reason.
    pub(crate) fn make_dirs(&self, path: &Path, owner: Owner<'_>) -> anyhow::Result<()> {
        let mut so_far = PathBuf::from("/");
        for component in path.components() {
            let parent = so_far.clone();
            match component {
                Component::Normal(name) => so_far.push(name),
                Component::ParentDir => so_far.push(".."),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
            }
            match self.open(&so_far, OFlags::PATH | OFlags::DIRECTORY) {
                Ok(_) => {}
                Err(Errno::NOENT) => self
                    .make_dir(&parent, component.as_os_str(), owner)
                    .with_context(|| format!("mkdir {} in container", so_far.display()))?,
                Err(error) => {
                    return Err(error).with_context(|| format!("open {}", so_far.display()));
                }
            }
        }
        Ok(())
    }

    fn make_dir(
        &self,
        parent: &Path,
        name: &std::ffi::OsStr,
        owner: Owner<'_>,
    ) -> Result<(), Errno> {
        let parent = self.open(parent, OFlags::RDONLY | OFlags::DIRECTORY)?;
        rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
        let (uid, gid) = (host_id(owner.uid_map, owner.uid), host_id(owner.gid_map, owner.gid));
        let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        rustix::fs::chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
    }

    fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    }
}

/// Who new directories belong to, in the container's ids.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner<'a> {
    /// User id inside.
    pub(crate) uid: u32,
    /// Group id inside.
    pub(crate) gid: u32,
    /// The container's user id map.
    pub(crate) uid_map: &'a [IdMapping],
    /// The container's group id map.
    pub(crate) gid_map: &'a [IdMapping],
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
    }

    #[test]
    fn directories_are_made_inside_even_behind_hostile_links() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("out")).unwrap();
        std::fs::create_dir_all(dir.path().join(outside.path().strip_prefix("/").unwrap()))
            .unwrap();
        let owner = Owner { uid: 0, gid: 0, uid_map: &[], gid_map: &[] };
        if !rustix::process::geteuid().is_root() {
            return;
        }
        jail(dir.path()).make_dirs(Path::new("/out/../../../x"), owner).unwrap();
        jail(dir.path()).make_dirs(Path::new("/out/y"), owner).unwrap();
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
