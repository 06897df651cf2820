//! What the virtual machine needs: qemu, virtme-ng and Debian's kernel. The kernel is downloaded
//! and unpacked beside our builds, and installed nowhere.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use guardian_tests::host;

use crate::{need, say};

/// The version that was tried (<https://pypi.org/project/virtme-ng/>).
const VIRTME: &str = "virtme-ng==1.42";

/// The package that depends on the distribution's newest kernel.
const PACKAGE: &str = "linux-image-amd64";

/// What is there to boot, and how.
#[derive(Debug)]
pub(crate) struct Tools {
    /// The program `vng`.
    pub(crate) vng: PathBuf,
    /// The kernel's image.
    pub(crate) kernel: PathBuf,
}

/// Finds everything, or fetches it.
///
/// # Errors
/// With what is missing and can't be fetched.
pub(crate) fn prepare(kernel: Option<&Path>) -> anyhow::Result<Tools> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("the virtual machine is an x86_64 one, and this host is not");
    }
    need::ensure(&need::VM)?;
    let directory = host::target_dir().join("vm");
    std::fs::create_dir_all(&directory)?;
    let vng = match host::program("vng") {
        Some(vng) => vng,
        None => install(&directory.join("venv")).context("install virtme-ng")?,
    };
    let kernel = match kernel {
        Some(kernel) => kernel.canonicalize().with_context(|| kernel.display().to_string())?,
        None => download(&directory).context("fetch Debian's kernel")?,
    };
    Ok(Tools { vng, kernel })
}

/// Installs virtme-ng into a directory of Python's own kind.
fn install(venv: &Path) -> anyhow::Result<PathBuf> {
    let vng = venv.join("bin/vng");
    if !vng.is_file() {
        say(&format!("installing {VIRTME} in {}", venv.display()));
        let path = venv.display().to_string();
        host::run(&["python3", "-m", "venv", "--clear", &path])?;
        let pip = venv.join("bin/pip");
        host::output(Command::new(pip).args(["install", "--quiet", VIRTME]))?;
    }
    Ok(vng)
}

/// Returns the image of the newest kernel of the distribution, unpacked with its modules.
fn download(directory: &Path) -> anyhow::Result<PathBuf> {
    let newest = newest()?;
    let version = newest.trim_start_matches("linux-image-");
    let place = directory.join(version);
    let image = place.join(format!("boot/vmlinuz-{version}"));
    if image.is_file() {
        return Ok(image);
    }
    say(&format!("downloading {newest} to {}", place.display()));
    let stage = tempfile::tempdir_in(directory)?;
    let download = || {
        let mut command = Command::new("apt-get");
        host::output(command.args(["download", "-qq", &newest]).current_dir(stage.path()))
    };
    if download().is_err() {
        // A fresh machine has no package lists.
        host::run(&["apt-get", "update", "-qq"])?;
        download()?;
    }
    let entries = std::fs::read_dir(stage.path())?.collect::<Result<Vec<_>, _>>()?;
    let package = entries.first().context("apt-get downloaded nothing")?.path();
    let files = stage.path().join("files");
    let words = [package.display().to_string(), files.display().to_string()];
    host::run(&["dpkg-deb", "--extract", &words[0], &words[1]])?;
    // What a package's installation would do; modprobe(8) finds nothing without.
    host::run(&["depmod", "--basedir", &words[1], version])?;
    std::fs::rename(files, &place)?;
    Ok(image)
}

fn newest() -> anyhow::Result<String> {
    let text = host::run(&["apt-cache", "depends", PACKAGE])?;
    let names = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    let name = names.into_iter().find(|name| name.starts_with("linux-image-"));
    Ok(name.with_context(|| format!("{PACKAGE} depends on no kernel"))?.to_owned())
}
