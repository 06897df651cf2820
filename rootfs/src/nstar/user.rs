//! Users of the container, from its /etc/passwd, which is as hostile as anything in there.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

use anyhow::{Context, bail};
use nix::unistd::{Gid, Uid, setresgid, setresuid};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::owner::Owner;

/// Larger than any real one; a sparse file of a terabyte must not keep us reading.
const MAX_FILE: u64 = 16 << 20;
/// What gdn allows for ids.
const MAX_ID: u32 = 0x7fff_ffff;

/// A user of the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    uid: u32,
    gid: u32,
    /// Where relative paths begin.
    pub(super) home: PathBuf,
}

impl User {
    pub(super) fn owner(&self) -> Owner {
        Owner { uid: self.uid, gid: self.gid }
    }

    /// Becomes this user for good.
    ///
    /// # Errors
    /// When the ids have no place in the container's user namespace.
    pub(super) fn become_it(&self) -> anyhow::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        setresgid(gid, gid, gid).with_context(|| format!("become group {gid}"))?;
        setresuid(uid, uid, uid).with_context(|| format!("become user {uid}"))
    }
}

/// Finds a user by name or number in the /etc/passwd of the current root. `uid:gid` needs no
/// looking up.
///
/// # Errors
/// When there is no such user or the file is not a plain file.
pub(super) fn find(name: &str) -> anyhow::Result<User> {
    if let Some((uid, gid)) = name.split_once(':')
        && let (Some(uid), Some(gid)) = (number(uid), number(gid))
    {
        return Ok(User { uid, gid, home: "/".into() });
    }
    let found = match open()? {
        Some(file) => search(BufReader::new(file.take(MAX_FILE)), name)?,
        None => None,
    };
    if let Some(user) = found {
        return Ok(user);
    }
    match number(name) {
        Some(uid) => Ok(User { uid, gid: 0, home: "/".into() }),
        None if name == "root" => Ok(User { uid: 0, gid: 0, home: "/".into() }),
        None => {
            bail!("getpwnam: unable to find user {name}: no matching entries in passwd file")
        }
    }
}

fn open() -> anyhow::Result<Option<File>> {
    // A pipe or a terminal in its place must neither keep us waiting nor become ours.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_MAGICLINKS;
    let file = match rustix::fs::openat2(CWD, "/etc/passwd", flags, Mode::empty(), resolve) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        file => file.context("open /etc/passwd of the container")?,
    };
    let stat = rustix::fs::fstat(&file).context("look at /etc/passwd of the container")?;
    if !FileType::from_raw_mode(stat.st_mode).is_file() {
        bail!("/etc/passwd of the container is not a regular file");
    }
    Ok(Some(file.into()))
}

/// Returns the first line that names the user or, if a number is asked for, has it as user id.
/// Lines that make no sense are passed over.
fn search(input: impl BufRead, name: &str) -> anyhow::Result<Option<User>> {
    let wanted = number(name);
    for line in input.split(b'\n') {
        let line = line.context("read /etc/passwd of the container")?;
        let Ok(line) = std::str::from_utf8(&line) else { continue };
        let fields: Vec<&str> = line.split(':').collect();
        let [login, _, uid, gid, _, home, ..] = fields[..] else { continue };
        let (Some(uid), Some(gid)) = (number(uid), number(gid)) else { continue };
        if !login.is_empty() && (login == name || Some(uid) == wanted) {
            let home = if home.is_empty() { "/" } else { home };
            return Ok(Some(User { uid, gid, home: home.into() }));
        }
    }
    Ok(None)
}

/// Parses an id: digits alone, no sign, no other base.
fn number(text: &str) -> Option<u32> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| is_plain && *id <= MAX_ID)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
broken
evil:x:4294967296:0::/:/bin/sh
minus:x:-1:0::/:/bin/sh
alice:x:1001:1010:Alice:/home/alice:/bin/sh
alice:x:0:0:again:/root:/bin/sh
nohome:x:7:7:::
:x:0:0::/:
";

    fn look(name: &str) -> Option<User> {
        search(PASSWD.as_bytes(), name).unwrap()
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        let alice = User { uid: 1001, gid: 1010, home: "/home/alice".into() };
        assert_eq!(look("alice"), Some(alice.clone()));
        assert_eq!(look("1001"), Some(alice));
        assert_eq!(look("nohome").unwrap().home, PathBuf::from("/"));
    }

    #[test]
    fn nonsense_names_nobody() {
        for name in ["", "evil", "minus", "broken", "batman", "+0", "0x0", "1000:", "4294967296"] {
            assert_eq!(look(name), None, "{name}");
        }
    }

    #[test]
    fn ids_are_digits_within_limits() {
        assert_eq!(number("2147483647"), Some(MAX_ID));
        for bad in ["", "-1", "+1", "0x1", "2147483648", "4294967296", " 1", "1 "] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }
}
