//! Bind mounts: their sources on the host, and the flags they must keep.

use std::path::{Component, Path, PathBuf};

use guardian_contract::fault::{Fault, Kind};
use guardian_contract::garden::BindMount;
use nix::sys::statvfs::{FsFlags, statvfs};
use oci_spec::runtime::{Mount, MountBuilder};

/// A host path shown inside the container, with all its options known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bind {
    source: PathBuf,
    destination: PathBuf,
    options: Vec<&'static str>,
}

/// Flags of a filesystem that a mount of it in another user namespace may not clear
/// (mount_namespaces(7), "locked"), so the bind has to ask for them.
/// How access times are kept is locked too, but stays as it is when nothing is said of it; any word
/// of it would be completed by the kernel, and be refused where that makes another mode.
const KEPT: [(FsFlags, &str); 3] =
    [(FsFlags::ST_NODEV, "nodev"), (FsFlags::ST_NOEXEC, "noexec"), (FsFlags::ST_NOSUID, "nosuid")];

impl Bind {
    /// Returns the bind of `source` on `destination`, with the flags of its filesystem.
    pub(crate) fn new(source: &Path, destination: &Path, writable: bool) -> anyhow::Result<Self> {
        if !source.is_absolute() {
            let message = format!("bind mount source '{}' is not absolute", source.display());
            return Err(Fault::invalid(message).into());
        }
        let flags = statvfs(source).map_err(|errno| {
            Fault::new(Kind::Invalid, format!("bind mount source '{}': {errno}", source.display()))
        })?;
        Ok(Self {
            source: source.into(),
            destination: Path::new("/").join(destination),
            options: options(flags.flags(), writable),
        })
    }

    /// Returns the bind mount a client asked for. Its origin is ignored, as gdn does: sources are
    /// always paths of the host.
    pub(crate) fn wanted(mount: &BindMount) -> anyhow::Result<Self> {
        if mount.dst_path.is_empty() {
            let message = format!("bind mount of '{}' has no dst_path", mount.src_path);
            return Err(Fault::invalid(message).into());
        }
        let destination = Path::new(&mount.dst_path);
        if hides_proc(destination) {
            let message = format!(
                "bind mount on '{}': nothing may hide /proc, by which a runtime confines processes",
                destination.display()
            );
            return Err(Fault::invalid(message).into());
        }
        Self::new(Path::new(&mount.src_path), Path::new(&mount.dst_path), mount.mode == 1)
    }

    /// Returns what is shown.
    pub(crate) fn source(&self) -> &Path {
        &self.source
    }

    /// Returns the mount as the runtime wants it.
    pub(crate) fn mount(&self) -> anyhow::Result<Mount> {
        let options: Vec<String> = self.options.iter().map(|&option| option.into()).collect();
        Ok(MountBuilder::default()
            .destination(self.destination.clone())
            .typ("bind")
            .source(self.source.clone())
            .options(options)
            .build()?)
    }
}

/// Tells whether a mount would be on /proc or in it. Labels and the like are written to files there
/// (CVE-2019-19921), so runc refuses that, and crun 1.8 does not. Like runc, we let those files be
/// replaced that only tell numbers (lxcfs does so).
fn hides_proc(destination: &Path) -> bool {
    const NUMBERS: [&str; 11] = [
        "cpuinfo",
        "diskstats",
        "loadavg",
        "meminfo",
        "net/dev",
        "slabinfo",
        "stat",
        "swaps",
        "sys/crypto/fips_enabled",
        "sys/kernel/ns_last_pid",
        "uptime",
    ];
    let mut path = PathBuf::from("/");
    for part in destination.components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    let below = path.strip_prefix("/proc");
    below.is_ok_and(|below| !NUMBERS.iter().any(|name| Path::new(name) == below))
}

/// A filesystem that is mounted read-only can't be written through a bind of it, and asking for
/// `rw` would ask to clear a locked flag.
fn options(flags: FsFlags, writable: bool) -> Vec<&'static str> {
    let read_only = !writable || flags.contains(FsFlags::ST_RDONLY);
    let kept = KEPT.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, option)| *option);
    ["bind", if read_only { "ro" } else { "rw" }].into_iter().chain(kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_follow_the_filesystem() {
        let none = FsFlags::empty();
        for (flags, writable, want) in [
            (none, true, "bind rw"),
            (none, false, "bind ro"),
            (FsFlags::ST_RDONLY, true, "bind ro"),
            (FsFlags::ST_NOSUID | FsFlags::ST_NODEV, true, "bind rw nodev nosuid"),
            (FsFlags::ST_NOEXEC | FsFlags::ST_NOATIME, false, "bind ro noexec"),
        ] {
            assert_eq!(options(flags, writable).join(" "), want);
        }
    }

    #[test]
    fn proc_can_t_be_hidden() {
        for hidden in
            ["/proc", "proc/", "/proc/self/attr", "/x/../proc", "//proc/./sys", "/proc/net"]
        {
            assert!(hides_proc(Path::new(hidden)), "{hidden}");
        }
        for shown in ["/proc/meminfo", "/proc/net/dev", "/process", "/srv/proc", "/sys/fs/cgroup"] {
            assert!(!hides_proc(Path::new(shown)), "{shown}");
        }
    }

    #[test]
    fn a_missing_source_is_named() {
        for (source, want) in [
            ("/no/such/path", "bind mount source '/no/such/path': ENOENT"),
            ("relative", "bind mount source 'relative' is not absolute"),
        ] {
            let mount = BindMount {
                src_path: source.into(),
                dst_path: "/x".into(),
                ..BindMount::default()
            };
            let message = Bind::wanted(&mount).unwrap_err().to_string();
            assert!(message.starts_with(want), "{message}");
        }
    }

    #[test]
    fn a_relative_destination_is_beneath_the_root() {
        let bind = Bind::new(Path::new("/proc"), Path::new("mnt/x"), false).unwrap();
        assert_eq!(bind.destination, Path::new("/mnt/x"));
    }
}
