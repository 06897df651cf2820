//! How much memory a process takes (proc_pid_smaps_rollup(5)), in KiB.

use anyhow::Context;
use serde::Serialize;

/// Numbers of one process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Resident.
    pub rss_kib: u64,
    /// Resident, pages shared with others counted in part.
    pub pss_kib: u64,
    /// Resident, pages shared with nobody.
    pub private_kib: u64,
}

/// Returns a process's numbers.
///
/// # Errors
/// When the process is gone.
pub fn of(pid: u32) -> anyhow::Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    Ok(parse(&text))
}

fn parse(text: &str) -> Memory {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    Memory {
        rss_kib: field("Rss"),
        pss_kib: field("Pss"),
        private_kib: field("Private_Clean") + field("Private_Dirty"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_by_name() {
        let text = "0-1 ---p 0 00:00 0 [rollup]\nRss:  10 kB\nPss:   7 kB\nPss_Dirty: 1 kB\nPrivate_Clean: 2 kB\nPrivate_Dirty: 3 kB\n";
        assert_eq!(parse(text), Memory { rss_kib: 10, pss_kib: 7, private_kib: 5 });
        assert!(of(std::process::id()).unwrap().rss_kib > 0);
    }
}
