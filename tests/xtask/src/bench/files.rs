//! How fast files go into and out of a container through the API: a large one, and many small ones.
//!
//! This comes first of all: an ext4 without a journal passes over each inode that was freed in the last
//! minute, one by one (`recently_deleted` in fs/ext4/ialloc.c), so after a removal of thousands of files
//! every new one costs up to a millisecond, whoever makes it.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::ensure;
use guardian_tests::daemon::Daemon;
use guardian_tests::host;
use serde::Serialize;

const LARGE: usize = 200 << 20;
const SMALL: usize = 4 << 10;
const MANY: usize = 4000;
/// The best of so many: the machine's other work only ever adds.
const TRIES: usize = 5;

/// Megabytes (10^6 bytes) of content per second.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Files {
    pub(crate) large_in: f64,
    pub(crate) large_out: f64,
    pub(crate) small_in: f64,
    pub(crate) small_out: f64,
    /// The small ones by tar(1) into a directory, which is what this host's filesystem takes.
    pub(crate) small_tar: f64,
}

/// Measures.
///
/// # Errors
/// When something fails.
pub(super) fn measure(daemon: &Daemon) -> anyhow::Result<Files> {
    let (large, small) = (daemon.path("large"), daemon.path("small"));
    std::fs::create_dir(&large)?;
    std::fs::write(large.join("file"), vec![7; LARGE])?;
    std::fs::create_dir(&small)?;
    for number in 0..MANY {
        std::fs::write(small.join(number.to_string()), vec![7; SMALL])?;
    }
    let (large, small) = (pack(&large)?, pack(&small)?);
    let handle = daemon.handle("files");
    daemon.ctl(&["create", "--handle", &handle])?;
    let into = |archive: &Path, size: usize| {
        best(size, |number| {
            let mut guardctl = daemon.guardctl();
            guardctl.args(["cp-in", "-", &format!("{handle}:/in-{size}-{number}")]);
            run(guardctl.stdin(File::open(archive)?))
        })
    };
    let small_tar = best(MANY * SMALL, |number| {
        let to = daemon.path(&format!("tar-{number}"));
        std::fs::create_dir(&to)?;
        run(Command::new("tar").arg("-xf").arg(&small).arg("-C").arg(&to))
    })?;
    let (small_in, large_in) = (into(&small, MANY * SMALL)?, into(&large, LARGE)?);
    let out = |size: usize| {
        best(size, |_| {
            let mut guardctl = daemon.guardctl();
            guardctl.args(["cp-out", &format!("{handle}:/in-{size}-0/"), "-"]);
            run(guardctl.stdout(Stdio::null()))
        })
    };
    let (large_out, small_out) = (out(LARGE)?, out(MANY * SMALL)?);
    daemon.ctl(&["rm", &handle])?;
    Ok(Files { large_in, large_out, small_in, small_out, small_tar })
}

fn pack(directory: &Path) -> anyhow::Result<std::path::PathBuf> {
    let archive = directory.with_extension("tar");
    host::output(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(directory).arg("."))?;
    Ok(archive)
}

fn best(bytes: usize, work: impl Fn(usize) -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let mut most: f64 = 0.0;
    for number in 0..TRIES {
        let start = Instant::now();
        work(number)?;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let speed = bytes as f64 / 1e6 / start.elapsed().as_secs_f64();
        most = most.max(speed);
    }
    Ok(most)
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status()?;
    ensure!(status.success(), "{} failed", host::shown(command));
    Ok(())
}
