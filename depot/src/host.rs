//! What this host has, as far as a bundle depends on it. Read once per bundle; the rules are then
//! pure.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::apparmor;
use anyhow::Context;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

/// Settings of TCP that a container is given, in gdn's order.
pub(crate) const TCP_SYSCTLS: [&str; 5] = [
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_retries1",
    "net.ipv4.tcp_retries2",
];

/// Facts about this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// Bit n is capability n: what this process could give to a container at all.
    pub(crate) bounding: u64,
    /// How cgroups are mounted.
    pub(crate) cgroup: Cgroup,
    /// Whether memory and swap can be limited together.
    pub(crate) can_limit_swap: bool,
    /// Whether AppArmor is there and enabled.
    pub(crate) has_apparmor: bool,
    /// Current values of those [`TCP_SYSCTLS`] that exist here.
    pub(crate) sysctl: BTreeMap<&'static str, String>,
    /// The devices that traffic is limited with.
    pub(crate) block_devices: Vec<BlockDevice>,
    /// How gladly the kernel would kill this process for want of memory (proc_pid_oom_score_adj(5)).
    pub(crate) oom_score_adj: i32,
    /// The processor, in Rust's words (`x86_64`, `aarch64`).
    pub(crate) arch: &'static str,
}

/// A block device's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockDevice {
    pub(crate) major: i64,
    pub(crate) minor: i64,
}

/// Which cgroup interface the controllers are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cgroup {
    /// One hierarchy per controller (v1 and hybrid).
    V1,
    /// One hierarchy.
    V2,
}

impl Host {
    /// Reads the facts.
    pub(crate) fn read() -> anyhow::Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status").context("read own status")?;
        let cgroup = cgroup_version();
        Ok(Self {
            bounding: bounding(&status).context("read CapBnd of /proc/self/status")?,
            cgroup,
            can_limit_swap: can_limit_swap(cgroup),
            has_apparmor: apparmor::is_enabled(),
            sysctl: TCP_SYSCTLS.iter().filter_map(|name| Some((*name, sysctl(name)?))).collect(),
            block_devices: block_devices(),
            oom_score_adj: oom_score_adj(),
            arch: std::env::consts::ARCH,
        })
    }
}

fn oom_score_adj() -> i32 {
    let text = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

fn bounding(status: &str) -> Option<u64> {
    let set = status.lines().find_map(|line| line.strip_prefix("CapBnd:"))?;
    u64::from_str_radix(set.trim(), 16).ok()
}

fn cgroup_version() -> Cgroup {
    match statfs("/sys/fs/cgroup") {
        Ok(fs) if fs.filesystem_type() == CGROUP2_SUPER_MAGIC => Cgroup::V2,
        _ => Cgroup::V1,
    }
}

/// v1 has the file only with swap accounting on. v2 shows its file in no root cgroup, but has it
/// exactly where the kernel knows swap.
fn can_limit_swap(cgroup: Cgroup) -> bool {
    Path::new(match cgroup {
        Cgroup::V1 => "/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes",
        Cgroup::V2 => "/proc/swaps",
    })
    .exists()
}

/// All but those that pass on what others do, as gdn: loop devices, memory, device mappers.
fn block_devices() -> Vec<BlockDevice> {
    let entries = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let of = |entry: std::fs::DirEntry| {
        let name = entry.file_name();
        let is_other = ["loop", "ram", "zram", "dm-"]
            .iter()
            .any(|p| name.as_bytes().starts_with(p.as_bytes()));
        let text = std::fs::read_to_string(entry.path().join("dev")).ok().filter(|_| !is_other)?;
        let (major, minor) = text.trim().split_once(':')?;
        Some(BlockDevice { major: major.parse().ok()?, minor: minor.parse().ok()? })
    };
    entries.filter_map(of).collect()
}

fn sysctl(name: &str) -> Option<String> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounding_set_is_hexadecimal() {
        assert_eq!(bounding("Name:\tx\nCapBnd:\t00000000a80425fb\n"), Some(0xa804_25fb));
        assert_eq!(bounding("Name:\tx\n"), None);
    }

    #[test]
    fn this_host_can_be_read() {
        assert!(Host::read().is_ok());
    }
}
