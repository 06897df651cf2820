//! `init`: giving our owner a range in /etc/subuid and /etc/subgid (subuid(5)), with all that
//! others have in there left as it is.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use guardian_contract::fault::{Fault, Kind};
use guardian_contract::file;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::inode;
use crate::range::{self, Range};
use crate::store::Store;

/// Where distributions say which ids are for containers.
const LOGIN_DEFS: &str = "/etc/login.defs";

/// How often another's lock is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Makes sure that our owner has a range, the same one in both files.
pub(crate) fn init(store: &Store, size: u32, defs: Option<&Path>) -> anyhow::Result<Value> {
    let _locks = [lock(&store.subuid, store)?, lock(&store.subgid, store)?];
    let (uid, gid) = (read(&store.subuid)?, read(&store.subgid)?);
    let name = |path: &Path| path.display().to_string();
    let ours = range::common(
        &range::parse(&uid, &store.owner, &name(&store.subuid))?,
        &range::parse(&gid, &store.owner, &name(&store.subgid))?,
    );
    let is_enough = |range: &Range| range.end - range.start >= u64::from(size);
    if ours.iter().any(is_enough) {
        return Ok(answer(&ours, false));
    }
    let defs = read(defs.unwrap_or(Path::new(LOGIN_DEFS)))?;
    let limits = limits(&defs, "UID")?
        .and(limits(&defs, "GID")?)
        .ok_or_else(|| Fault::invalid("login.defs leaves no ids that are both users and groups"))?;
    let start = half_given(&uid, &gid, store, size).or_else(|| {
        let taken = range::all(&uid).into_iter().chain(range::all(&gid)).collect();
        place(taken, u64::from(size), limits)
    });
    let start = start.ok_or_else(|| {
        let message = format!("no {size} ids in a row left in {}", name(&store.subuid));
        Fault::new(Kind::Exhausted, message)
    })?;
    let line = format!("{}:{start}:{size}", store.owner);
    for (path, text) in [(&store.subuid, &uid), (&store.subgid, &gid)] {
        if !text.lines().any(|present| present == line) {
            replace(path, &appended(text, &line))?;
        }
    }
    let mut ranges = ours;
    ranges.push(Range { start, end: start + u64::from(size) });
    Ok(answer(&ranges, true))
}

fn answer(ranges: &[Range], changed: bool) -> Value {
    let ranges: Vec<Value> = ranges
        .iter()
        .map(|range| json!({"start": range.start, "size": range.end - range.start}))
        .collect();
    json!({"ranges": ranges, "changed": changed})
}

/// Returns the start of a range that was written into one file only, because we were killed then.
fn half_given(uid: &str, gid: &str, store: &Store, size: u32) -> Option<u64> {
    let find = |one: &str, other: &str| {
        let (prefix, suffix) = (format!("{}:", store.owner), format!(":{size}"));
        let mut starts = one.lines().filter_map(|line| {
            line.strip_prefix(&prefix)?.strip_suffix(&suffix)?.parse::<u64>().ok()
        });
        let is_free = |start: &u64| {
            let range = Range { start: *start, end: start + u64::from(size) };
            !range::all(other).iter().any(|taken| taken.and(range).is_some())
        };
        starts.find(is_free)
    };
    find(uid, gid).or_else(|| find(gid, uid))
}

/// Returns the first place of `size` ids within `limits` that nobody has.
fn place(mut taken: Vec<Range>, size: u64, limits: Range) -> Option<u64> {
    taken.sort();
    let mut start = limits.start;
    for range in taken {
        if range.start >= start + size {
            break;
        }
        start = start.max(range.end);
    }
    (start + size <= limits.end).then_some(start)
}

/// Reads `SUB_UID_MIN` and `_MAX` (login.defs(5)), or their like for groups. Without them all ids
/// from 100000 on are for containers.
fn limits(defs: &str, kind: &str) -> Result<Range, Fault> {
    let number = |key: String, default: u64| {
        let mut words = defs.lines().map(str::split_whitespace);
        let Some(mut line) = words.find(|line| line.clone().next() == Some(&key)) else {
            return Ok(default);
        };
        let value = line.nth(1).and_then(|value| value.parse().ok());
        value.ok_or_else(|| Fault::invalid(format!("login.defs: {key} is not a number")))
    };
    let start = number(format!("SUB_{kind}_MIN"), 100_000)?;
    let last = number(format!("SUB_{kind}_MAX"), 4_294_967_293)?;
    // The two highest ids are gdn's root and chown(2)'s "leave as it is".
    Ok(Range { start: start.max(1), end: last.min(4_294_967_293) + 1 })
}

fn appended(text: &str, line: &str) -> String {
    let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{newline}{line}\n")
}

fn read(path: &Path) -> anyhow::Result<String> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        text => text.with_context(|| format!("read {}", path.display())),
    }
}

fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let mode = std::fs::metadata(path).map_or(0o644, |stat| stat.mode() & 0o777);
    file::replace_mode(path, text.as_bytes(), mode)
}

/// The lock that useradd(8) and usermod(8) take: a file with the holder's pid in it.
struct ShadowLock(PathBuf);

impl Drop for ShadowLock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn lock(path: &Path, store: &Store) -> anyhow::Result<ShadowLock> {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    let lock = PathBuf::from(lock);
    let context = || format!("lock {}", path.display());
    // It has no name before it has the pid in it, so it can't stay behind without.
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let directory = path.parent().unwrap_or(Path::new("/"));
    let nameless =
        rustix::fs::openat(CWD, directory, flags, Mode::RUSR | Mode::WUSR).with_context(context)?;
    let mut nameless = File::from(nameless);
    write!(nameless, "{}", std::process::id()).with_context(context)?;
    let own = inode::path_of(nameless.as_fd());
    let until = Instant::now() + store.patience();
    loop {
        match rustix::fs::linkat(CWD, &own, CWD, &lock, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => return Ok(ShadowLock(lock)),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error).with_context(context),
        }
        let holder = std::fs::read_to_string(&lock).unwrap_or_default();
        let holder = holder.trim_matches(['\0', '\n', ' ']).to_owned();
        // As in shadow: who has died holds nothing.
        if !holder.is_empty() && !Path::new("/proc").join(&holder).exists() {
            let _ = std::fs::remove_file(&lock);
            continue;
        }
        if Instant::now() >= until {
            let message = format!("{} is held by process {holder}", lock.display());
            return Err(Fault::new(Kind::Unavailable, message).into());
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, size: u64) -> Range {
        Range { start, end: start + size }
    }

    #[test]
    fn a_range_goes_into_the_first_hole() {
        let limits = Range { start: 100, end: 1000 };
        for (taken, size, want) in [
            (vec![], 100, Some(100)),
            (vec![range(100, 50)], 100, Some(150)),
            (vec![range(200, 50)], 100, Some(100)),
            (vec![range(199, 50)], 100, Some(249)),
            (vec![range(300, 100), range(100, 100)], 100, Some(200)),
            (vec![range(100, 200), range(150, 50), range(290, 20)], 100, Some(310)),
            (vec![range(0, 50)], 100, Some(100)),
            (vec![range(0, 150)], 1, Some(150)),
            (vec![range(100, 800)], 100, Some(900)),
            (vec![range(100, 801)], 100, None),
            (vec![], 900, Some(100)),
            (vec![], 901, None),
            (vec![range(100, 899)], 1, Some(999)),
            (vec![range(100, 900)], 1, None),
        ] {
            assert_eq!(place(taken.clone(), size, limits), want, "{taken:?} {size}");
        }
    }

    #[test]
    fn login_defs_are_read() {
        for (text, want) in [
            ("", Some((100_000, 4_294_967_294))),
            ("SUB_UID_MIN 5\n  SUB_UID_MAX\t\t10\n", Some((5, 11))),
            ("# SUB_UID_MIN 5\nSUB_GID_MIN 7", Some((100_000, 4_294_967_294))),
            ("SUB_UID_MIN 0", Some((1, 4_294_967_294))),
            ("SUB_UID_MIN", None),
            ("SUB_UID_MAX x", None),
        ] {
            let made = limits(text, "UID").ok().map(|range| (range.start, range.end));
            assert_eq!(made, want, "{text}");
        }
    }

    #[test]
    fn a_line_is_appended_and_no_more() {
        assert_eq!(appended("", "a:1:2"), "a:1:2\n");
        assert_eq!(appended("# x\nb:1:2", "a:1:2"), "# x\nb:1:2\na:1:2\n");
        assert_eq!(appended("b:1:2\n\n", "a:1:2"), "b:1:2\n\na:1:2\n");
    }
}
