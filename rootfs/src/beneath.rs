//! Resolving paths beneath an open directory, so that no name in an archive and no symbolic link
//! on the way leads out of it (openat2(2)).

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// A directory, and how far paths beneath it may lead.
#[derive(Debug)]
pub(crate) struct Beneath {
    directory: OwnedFd,
    resolve: ResolveFlags,
}

impl Beneath {
    /// The directory is `/` to every path and every symbolic link beneath it.
    pub(crate) fn in_root(directory: OwnedFd) -> Self {
        Self { directory, resolve: ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS }
    }

    /// Symbolic links lead where they lead; for a caller that is confined already.
    pub(crate) fn confined(directory: OwnedFd) -> Self {
        Self { directory, resolve: ResolveFlags::NO_MAGICLINKS }
    }

    /// No symbolic link is followed at all.
    pub(crate) fn without_links(directory: OwnedFd) -> Self {
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        Self { directory, resolve }
    }

    /// Opens an existing directory.
    pub(crate) fn dir(&self, path: &Path) -> Result<OwnedFd, Errno> {
        self.open(path, OFlags::PATH | OFlags::DIRECTORY)
    }

    /// Opens what exists at `path`.
    pub(crate) fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        loop {
            let flags = flags | OFlags::CLOEXEC;
            // openat2(2) answers EAGAIN when a rename elsewhere kept it from being sure.
            match rustix::fs::openat2(&self.directory, path, flags, Mode::empty(), self.resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                answer => return answer,
            }
        }
    }
}

/// Returns a name of an archive as a path relative to the root: no leading slash, no `.`, and
/// `..` goes up no further than the root. The root itself is the empty path. `None` when it can't
/// be a path.
pub(crate) fn contained(name: &[u8]) -> Option<PathBuf> {
    if name.contains(&0) {
        return None;
    }
    let mut path = PathBuf::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                path.pop();
            }
            part => path.push(OsStr::from_bytes(part)),
        }
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_stay_inside() {
        for (name, want) in [
            ("a/b", "a/b"),
            ("/etc/passwd", "etc/passwd"),
            ("../../etc/passwd", "etc/passwd"),
            ("a/../../b", "b"),
            ("./", ""),
            ("//a//./b/", "a/b"),
            ("..", ""),
        ] {
            assert_eq!(contained(name.as_bytes()), Some(want.into()), "{name}");
        }
        assert_eq!(contained(b"a\0b"), None);
    }

    #[test]
    fn links_do_not_lead_out_of_the_root() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("top")).unwrap();
        std::os::unix::fs::symlink("/proc/self/root", dir.path().join("magic")).unwrap();
        std::fs::create_dir(dir.path().join("inside")).unwrap();
        let open = || std::fs::File::open(dir.path()).unwrap().into();
        let root = Beneath::in_root(open());
        assert!(root.dir(Path::new("top/inside")).is_ok());
        assert_eq!(root.dir(Path::new("top/proc")).unwrap_err(), Errno::NOENT);
        assert_eq!(root.dir(Path::new("magic")).unwrap_err(), Errno::NOENT);
        let strict = Beneath::without_links(open());
        assert_eq!(strict.dir(Path::new("top/inside")).unwrap_err(), Errno::LOOP);
    }

    proptest! {
        #[test]
        fn no_name_is_absolute_or_climbs(name in "[./a]{0,40}") {
            let path = contained(name.as_bytes()).unwrap();
            prop_assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))));
        }
    }
}
