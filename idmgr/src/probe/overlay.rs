//! Which kinds of overlay work on a filesystem. A mount call that succeeds proves little (an
//! overlay can come up read-only without a word), so each overlay is written to as root of a
//! container would.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use anyhow::{Context, ensure};
use guardian_contract::ids::IdMaps;
use serde::Serialize;

use super::Outcome;
use crate::overlay::{Layers, Way, stack};
use crate::{inode, owner};

/// What works.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// Without id maps.
    pub(super) plain: Outcome,
    /// With an id-mapped lower layer, the upper one being owned by the container's root on disk.
    lower: Outcome,
    /// With all layers id-mapped: nothing is owned by the container's ids on disk.
    full: Outcome,
    /// With owners changed in the upper layer and content left in the lower ones.
    metacopy: Outcome,
}

/// Enough that a filesystem can't keep it in the inode.
const BIG: usize = 1 << 18;

/// Probes the filesystem of `directory`.
pub(super) fn probe(directory: &Path, userns: Option<&File>, maps: &IdMaps) -> Report {
    let attempt = |way: Option<Way>| -> Outcome { attempt(directory, way, userns, maps).into() };
    Report {
        plain: attempt(None),
        lower: attempt(Some(Way::Lower)),
        full: attempt(Some(Way::Full)),
        metacopy: attempt(Some(Way::Metacopy)),
    }
}

fn attempt(
    directory: &Path,
    way: Option<Way>,
    userns: Option<&File>,
    maps: &IdMaps,
) -> anyhow::Result<()> {
    let scratch = tempfile::Builder::new()
        .prefix(".idmgr-probe-")
        .tempdir_in(directory)
        .with_context(|| format!("make a directory in {}", directory.display()))?;
    let path = |name: &str| scratch.path().join(name);
    for name in ["lower/dir", "rw/upper", "rw/work"] {
        fs::create_dir_all(path(name)).context("make layers")?;
    }
    fs::write(path("lower/dir/file"), "x").context("make layers")?;
    fs::write(path("lower/dir/big"), vec![1; BIG]).context("make layers")?;
    let maps_layers = matches!(way, Some(Way::Full | Way::Lower));
    if maps_layers {
        userns.context("there is no user namespace to map by")?;
    }
    let root = if maps_layers { owner::root_of(maps)? } else { (0, 0) };
    // Who is root in the merged directory is who owns the upper one.
    if way == Some(Way::Lower) {
        chown(path("rw/upper"), Some(root.0), Some(root.1)).context("chown the upper layer")?;
    }
    let layers = Layers {
        lower: &[path("lower")],
        upper: &path("rw/upper"),
        work: &path("rw/work"),
        userns,
        maps,
    };
    let merged = stack(&layers, way.unwrap_or(Way::Chown))?;
    let merged = inode::path_of(merged.as_fd());
    owner::acting_as(root, || check(&merged, root.0))?;
    match way {
        Some(Way::Metacopy) => check_metacopy(&merged, &path("rw/upper")),
        _ => Ok(()),
    }
}

/// Writes to the overlay: a new file, and a change to one of the lower layer.
fn check(merged: &Path, owner: u32) -> anyhow::Result<()> {
    let lower = fs::metadata(merged.join("dir/file")).context("look at a lower file")?;
    ensure!(lower.uid() == owner, "a lower file shows owner {}", lower.uid());
    fs::write(merged.join("new"), "x").context("create a file")?;
    fs::rename(merged.join("new"), merged.join("renamed")).context("rename a file")?;
    let made = fs::metadata(merged.join("renamed")).context("look at a new file")?;
    ensure!(made.uid() == owner, "a new file shows owner {}", made.uid());
    chown(merged.join("renamed"), Some(1), Some(1)).context("chown a file")?;
    fs::write(merged.join("dir/file"), "y").context("change a lower file")?;
    fs::remove_file(merged.join("dir/file")).context("remove a lower file")
}

/// A changed owner must not have copied the content.
fn check_metacopy(merged: &Path, upper: &Path) -> anyhow::Result<()> {
    chown(merged.join("dir/big"), Some(1), Some(1)).context("chown a lower file")?;
    let copied = fs::metadata(upper.join("dir/big")).context("look at what was copied")?;
    ensure!(copied.blocks() * 512 < BIG as u64 / 2, "a change of owner copies the content");
    let read = fs::read(merged.join("dir/big")).context("read a lower file")?;
    ensure!(read == vec![1; BIG], "a lower file reads otherwise");
    Ok(())
}
