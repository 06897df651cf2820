//! What is mounted inside, in gdn's order: the image's mounts, the kernel's filesystems with init
//! among them, the client's bind mounts, hosts and resolv.conf.

use anyhow::Context;
use guardian_contract::fault::Fault;
use oci_spec::runtime::{Mount, MountBuilder, Spec};

use crate::bind::Bind;
use crate::wanted::Wanted;

/// Destination, type, options; the source is the type's name. Before init's bind.
const FIRST: [(&str, &str, &str); 5] = [
    ("/sys", "sysfs", "noexec,nosuid,nodev,ro"),
    ("/dev", "tmpfs", "noexec,strictatime,mode=755"),
    ("/dev/shm", "tmpfs", "noexec,nosuid,nodev,mode=1777"),
    ("/dev/mqueue", "mqueue", "noexec,nosuid,nodev"),
    ("/dev/pts", "devpts", "nosuid,noexec,newinstance,gid=5,ptmxmode=0666,mode=0620"),
];
const PROC: (&str, &str, &str) = ("/proc", "proc", "nosuid,noexec,nodev");
/// The container's own cgroup in each hierarchy, or on version 2 in the only one, for programs that read their limits there.
const CGROUP: (&str, &str, &str) = ("/sys/fs/cgroup", "cgroup", "ro,nosuid,noexec,nodev");

/// Sets `mounts`.
pub(super) fn apply(mut spec: Spec, wanted: &Wanted) -> anyhow::Result<Spec> {
    let mut mounts = image_mounts(wanted)?;
    for mount in FIRST {
        mounts.push(filesystem(mount)?);
    }
    // Read-only: a container that could write init would own every later container's pid 1.
    mounts.push(wanted.init.mount()?);
    mounts.push(filesystem(PROC)?);
    if !wanted.spec.privileged {
        mounts.push(filesystem(CGROUP)?);
    }
    for mount in wanted.binds.iter().map(Bind::mount) {
        mounts.push(mount?);
    }
    spec.set_mounts(Some(mounts));
    Ok(spec)
}

fn image_mounts(wanted: &Wanted) -> anyhow::Result<Vec<Mount>> {
    wanted
        .spec
        .mounts
        .iter()
        .map(|mount| {
            serde_json::from_value(mount.clone())
                .with_context(|| Fault::invalid(format!("image mount {mount}")))
        })
        .collect()
}

fn filesystem((destination, kind, options): (&str, &str, &str)) -> anyhow::Result<Mount> {
    let options: Vec<String> = options.split(',').map(str::to_owned).collect();
    Ok(MountBuilder::default()
        .destination(destination)
        .typ(kind)
        .source(kind)
        .options(options)
        .build()?)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::*;
    use crate::rules::fixture::{made_by, privileged, wanted};

    fn destinations(made: &Value) -> Vec<&str> {
        let list = made["mounts"].as_array().unwrap();
        list.iter().map(|mount| mount["destination"].as_str().unwrap()).collect()
    }

    #[test]
    fn mounts_are_in_gdn_s_order() {
        let mut wanted = wanted();
        wanted.spec.mounts = vec![json!({"destination": "/image"})];
        wanted.binds = vec![Bind::new(Path::new("/proc"), Path::new("/client"), true).unwrap()];
        assert_eq!(
            destinations(&made_by(apply, &wanted)),
            [
                "/image",
                "/sys",
                "/dev",
                "/dev/shm",
                "/dev/mqueue",
                "/dev/pts",
                "/tmp/garden-init",
                "/proc",
                "/sys/fs/cgroup",
                "/client",
            ]
        );
    }

    #[test]
    fn only_unprivileged_containers_see_cgroups() {
        for (wanted, want) in [(wanted(), true), (privileged(), false)] {
            let made = made_by(apply, &wanted);
            assert_eq!(destinations(&made).contains(&"/sys/fs/cgroup"), want);
        }
    }

    #[test]
    fn a_bad_image_mount_is_shown() {
        let mut wanted = wanted();
        wanted.spec.mounts = vec![json!({"destination": 1})];
        let message = apply(Spec::default(), &wanted).unwrap_err().to_string();
        assert_eq!(message, r#"image mount {"destination":1}"#);
    }
}
