//! What this host has.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::Context;
use rustix::fs::{Access, access};

/// Returns how many processors there are for us. Finding out takes longer than it may, when it is
/// asked for each container; so it is done once.
pub(crate) fn processors() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Returns all memory in bytes.
pub(crate) fn memory_bytes() -> Option<u64> {
    static BYTES: OnceLock<Option<u64>> = OnceLock::new();
    *BYTES.get_or_init(read_memory_bytes)
}

/// Reads a file as proc_meminfo(5) describes it.
fn read_memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Returns where a program is: a path, or a name on PATH, as execvp(3) takes it.
///
/// # Errors
/// When there is none.
pub(crate) fn program(path: &Path) -> anyhow::Result<PathBuf> {
    let mut candidates: Vec<PathBuf> = match path.components().count() {
        1 => {
            let search = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&search).map(|dir| dir.join(path)).collect()
        }
        _ => vec![path.to_owned()],
    };
    candidates.retain(|path| path.is_file() && access(path, Access::EXEC_OK).is_ok());
    candidates.into_iter().next().with_context(|| format!("no program {}", path.display()))
}

/// Returns how many descriptors we have open, and how many we may have (getrlimit(2)).
pub(crate) fn descriptors() -> (u64, u64) {
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    (open as u64, most.unwrap_or(u64::MAX))
}

/// Returns the size in bytes of the filesystem that holds `path`.
pub(crate) fn disk_bytes(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(stat.f_blocks * stat.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_exec_finds_them() {
        assert!(program(Path::new("sh")).is_ok());
        assert!(program(Path::new("/bin/sh")).is_ok());
        for missing in ["no-such-program-4711", "/bin", "/etc/passwd"] {
            assert!(program(Path::new(missing)).is_err(), "{missing}");
        }
    }
}
