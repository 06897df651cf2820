//! `depot destroy`: takes a bundle away, whole or not at all.
//!
//! The directory is renamed to a dot-name first, so that a half-removed bundle never looks like a
//! container. What a killed destroy left under such a name is removed by the next one.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::Context;
use guardian_contract::depot::{Depot, Handle};
use guardian_contract::run::Answer;
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

/// Begins the name of a bundle that is being removed; its remover's pid follows.
const TRASH: &str = ".destroyed-";

/// Removes the bundle of `handle`; one that is not there is no error.
pub(crate) fn destroy(depot: &Depot, handle: &Handle) -> anyhow::Result<Answer> {
    let bundle = depot.bundle(handle);
    let trash = depot.path().join(format!("{TRASH}{}", std::process::id()));
    sweep(depot.path());
    match std::fs::rename(bundle.path(), &trash) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Answer::Silent),
        Err(error) => {
            return Err(error).with_context(|| format!("remove {}", bundle.path().display()));
        }
    }
    remove(&trash)
        .with_context(|| format!("remove {}, now {}", bundle.path().display(), trash.display()))?;
    Ok(Answer::Silent)
}

/// Removes what dead removers left; what can't be removed now is left to the next sweep.
fn sweep(depot: &Path) {
    let Ok(entries) = std::fs::read_dir(depot) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(is_abandoned) {
            let _ = remove(&entry.path());
        }
    }
}

fn is_abandoned(name: &str) -> bool {
    let Some(pid) = name.strip_prefix(TRASH) else { return false };
    pid == std::process::id().to_string() || !Path::new("/proc").join(pid).exists()
}

fn remove(directory: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            thaw(directory);
            std::fs::remove_dir_all(directory)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// A privileged container can make the files it sees immutable (`chattr +i /etc/hosts`), which
/// even root can't remove.
fn thaw(directory: &Path) {
    let frozen: [PathBuf; 2] = [directory.join("hosts"), directory.join("resolv.conf")];
    for file in frozen.iter().filter_map(|path| File::open(path).ok()) {
        if let Ok(flags) = ioctl_getflags(&file) {
            let _ = ioctl_setflags(&file, flags - (IFlags::IMMUTABLE | IFlags::APPEND));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_removes_is_abandoned() {
        let own = format!("{TRASH}{}", std::process::id());
        for (name, want) in [
            (own.as_str(), true),
            (".destroyed-1", false),
            (".destroyed-9999999", true),
            ("a", false),
        ] {
            assert_eq!(is_abandoned(name), want, "{name}");
        }
    }

    #[test]
    fn what_a_killed_destroy_left_goes_with_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let depot = Depot::at(dir.path());
        for name in [".destroyed-9999999/processes/p", "a/processes/p"] {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        for _ in 0..2 {
            destroy(&depot, &"a".parse().unwrap()).unwrap();
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_missing_depot_has_no_bundle_to_destroy() {
        assert!(destroy(&Depot::at("/no/such/depot"), &"a".parse().unwrap()).is_ok());
    }
}
