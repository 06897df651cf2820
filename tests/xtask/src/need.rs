//! Programs of the distribution that we need: installed where that is safe, named elsewhere.

use std::process::Command;

use anyhow::bail;
use guardian_tests::{elf, host};

use crate::say;

/// A program and the Debian package that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Need {
    program: &'static str,
    package: &'static str,
}

const fn need(program: &'static str, package: &'static str) -> Need {
    Need { program, package }
}

/// What a container needs.
pub(crate) const CONTAINER: [Need; 5] = [
    need("crun", "crun"),
    need("nft", "nftables"),
    need("busybox", "busybox-static"),
    need("ip", "iproute2"),
    need("nsenter", "util-linux"),
];

/// What the tests need beyond that.
pub(crate) const TESTS: [Need; 10] = [
    need("runc", "runc"),
    need("skopeo", "skopeo"),
    need("umoci", "umoci"),
    need("docker-registry", "docker-registry"),
    need("openssl", "openssl"),
    need("ss", "iproute2"),
    need("ping", "iputils-ping"),
    need("mkfs.ext4", "e2fsprogs"),
    need("chattr", "e2fsprogs"),
    need("script", "bsdutils"),
];

/// What a virtual machine with another kernel needs beside virtme-ng, which pip has.
pub(crate) const VM: [Need; 6] = [
    need("qemu-system-x86_64", "qemu-system-x86"),
    need("python3", "python3-venv"),
    need("mkfs.xfs", "xfsprogs"),
    need("depmod", "kmod"),
    need("dpkg-deb", "dpkg"),
    need("apparmor_parser", "apparmor"),
];

/// Installs what is missing with apt-get, as root on Debian and its kin.
///
/// # Errors
/// With everything that is missing, where it can't be installed.
pub(crate) fn ensure(needs: &[Need]) -> anyhow::Result<()> {
    let missing: Vec<&Need> = needs.iter().filter(|need| !is_there(need)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    packages.dedup();
    let programs: Vec<&str> = missing.iter().map(|need| need.program).collect();
    let Some(apt) = host::program("apt-get").filter(|_| host::is_root()) else {
        bail!(
            "missing: {} (in Debian the packages {}); install them and try again",
            programs.join(", "),
            packages.join(" ")
        );
    };
    say(&format!("installing from the distribution: {}", packages.join(" ")));
    let install = || {
        let mut command = Command::new(&apt);
        command.args(["install", "-y", "-qq", "--no-install-recommends"]).args(&packages);
        host::output(command.env("DEBIAN_FRONTEND", "noninteractive"))
    };
    if install().is_err() {
        // A fresh machine has no package lists.
        host::output(Command::new(&apt).args(["update", "-qq"]))?;
        install()?;
    }
    match needs.iter().find(|need| !is_there(need)) {
        Some(need) => bail!("{} is still missing after installing {}", need.program, need.package),
        None => Ok(()),
    }
}

/// A dynamic busybox does not count: it can't run in an otherwise empty image. Nor does a python
/// that can't make environments, which is a package of its own.
fn is_there(need: &Need) -> bool {
    let path = host::program(need.program);
    match need.program {
        "busybox" => path.is_some_and(|path| elf::is_static(&path).unwrap_or(false)),
        "python3" => path.is_some_and(|path| {
            host::output(Command::new(path).args(["-c", "import ensurepip, venv"])).is_ok()
        }),
        _ => path.is_some(),
    }
}
