//! `rootfs clean`: unused layers go when the store has grown beyond a threshold.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context;
use guardian_contract::fault::Fault;
use guardian_contract::log;
use guardian_contract::run::Answer;

use crate::collect::collect;
use crate::inventory::Inventory;
use crate::registry::download;
use crate::store::Store;
use crate::trash;

/// A filesystem with less than one part in so many left is full.
const FULL: u64 = 10;

/// Removes what dead processes were downloading or removing, and unused layers if `threshold_bytes` are
/// reached; 0 is always reached.
///
/// # Errors
/// As [`collect`], or when something can't be removed; a missing store is none, as in grootfs.
pub(crate) fn clean(store: &Store, threshold_bytes: u64) -> anyhow::Result<Answer> {
    if !store.exists() {
        return Ok(Answer::Text(format!("no store found at {}", store.root().display())));
    }
    // What nobody can use needs no threshold.
    trash::sweep(store)?;
    download::sweep(store)?;
    if !is_reached(store, threshold_bytes)? {
        return Ok(Answer::Text("threshold not reached: skipping clean".into()));
    }
    collect(store)?;
    Ok(Answer::Text("clean completed".into()))
}

/// Cleans in the background, in a copy of ourselves, so that nobody waits for it. What it has to
/// say goes to `log_file`. That it can't be started is no reason to fail whatever came before.
pub(crate) fn in_background(store: &Store, threshold_bytes: u64, log_file: Option<&Path>) {
    if let Err(error) = spawn(store, threshold_bytes, log_file) {
        log::error("clean-not-started", &serde_json::json!({"error": format!("{error:#}")}));
    }
}

fn spawn(store: &Store, threshold_bytes: u64, log_file: Option<&Path>) -> anyhow::Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("--store").arg(store.root());
    let stderr = match log_file {
        Some(path) => {
            command.args(["--log-level", "info"]);
            let mut options = OpenOptions::new();
            let file = options.create(true).append(true).mode(0o644).open(path);
            file.with_context(|| format!("open {}", path.display()))?.into()
        }
        None => Stdio::null(),
    };
    command.args(["clean", "--threshold-bytes", &threshold_bytes.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).process_group(0);
    command.spawn().map(drop).context("start clean")
}

/// Tells whether layers and all that containers may yet write come to the threshold, which is how
/// grootfs counts; layers were measured on disk when they were unpacked. What the filesystem has
/// in use would count the data of others, too; but a full one is reason enough, whatever the
/// threshold, because a threshold beyond its size could never be reached.
fn is_reached(store: &Store, threshold_bytes: u64) -> anyhow::Result<bool> {
    if threshold_bytes == 0 {
        return Ok(true);
    }
    let inventory = Inventory::take(store)?;
    if inventory.layer_bytes().saturating_add(inventory.committed_bytes()) >= threshold_bytes {
        return Ok(true);
    }
    let filesystem = rustix::fs::statvfs(store.root()).context("look at the store's filesystem")?;
    Ok(filesystem.f_bavail < filesystem.f_blocks / FULL)
}

/// Takes a threshold as an operator gives it.
///
/// # Errors
/// In grootfs' words for a negative one.
pub(crate) fn threshold(bytes: i64) -> anyhow::Result<u64> {
    u64::try_from(bytes)
        .map_err(|_| Fault::invalid("invalid argument: clean threshold cannot be negative").into())
}
