//! What is mounted where, as far as this process sees (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Returns the mount points at and beneath a directory, each as often as something is mounted there.
///
/// # Errors
/// When they can't be read.
pub(crate) fn beneath(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let table = std::fs::read("/proc/self/mountinfo").context("read the mounts")?;
    let points = table.split(|byte| *byte == b'\n').filter_map(point);
    Ok(points.filter(|point| point.starts_with(directory)).collect())
}

/// The fifth field; space, tab, line feed and backslash are written as octal numbers.
fn point(line: &[u8]) -> Option<PathBuf> {
    let field = line.split(|byte| *byte == b' ').nth(4)?;
    let (mut path, mut rest) = (Vec::with_capacity(field.len()), field);
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = after.get(..3).filter(|_| byte == b'\\');
        let number = escaped.and_then(|digits| std::str::from_utf8(digits).ok());
        match number.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(number) => {
                path.push(number);
                rest = &after[3..];
            }
            None => {
                path.push(byte);
                rest = after;
            }
        }
    }
    Some(OsString::from_vec(path).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_found_under_any_name() {
        let of = |line: &str| point(line.as_bytes());
        let line = r"36 35 98:0 /mnt1 /mnt\040a\134b rw,noatime master:1 - ext3 /dev/root rw";
        assert_eq!(of(line), Some(PathBuf::from(r"/mnt a\b")));
        assert_eq!(of(""), None);
        assert!(beneath(Path::new("/proc")).unwrap().contains(&PathBuf::from("/proc")));
    }
}
