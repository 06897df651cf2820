//! A limit by the project quota of the store's filesystem (quotactl(2), "project quotas" in
//! xfs_quota(8)): what is made beneath a directory is charged to the directory's project.
//!
//! Nothing is concluded from the filesystem's name or its mount options: a small limit is set, and
//! a filesystem that enforces it tells of it in its own size.
//!
//! Projects are numbers that all users of a filesystem share. Ours have a name each in the store,
//! made by one call that fails if it is there, and a number that anything is charged to is nobody's
//! to take. The name goes after the last file; one that a crash has left is found by [`sweep`].

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use guardian_contract::fault::Fault;
use guardian_contract::file::private_dir;

use super::{Overhead, Room};
use crate::image::Image;
use crate::inventory::names;
use crate::layer;
use crate::store::Store;
use crate::sys::{self, Quota};
use crate::usage::{self, Usage};

/// The first number we take: far from those of who counts from 1 (grootfs, docker) or from 2^20
/// (kubelet).
const FIRST: u32 = 1 << 24;
/// grootfs raises smaller limits to this.
const MINIMUM: u64 = 256 * 1024;
/// The limit that is set to see whether it is enforced.
const TRIAL: u64 = 1 << 20;
/// Charges all that will be made in the image's directory for writes to a new project.
///
/// # Errors
/// `Unsupported` where the filesystem enforces no project quota.
pub(super) fn create(store: &Store, image: &Image) -> anyhow::Result<u32> {
    let writes = image.writes();
    private_dir(&writes)?;
    let directory = layer::open_directory(&writes)?;
    // A filesystem without quotas says so here, before anything is made.
    sys::quota(&directory, FIRST).map_err(unsupported)?;
    let project = claim(store, image, &directory)?;
    let charged = charge(&directory, project);
    if charged.is_err() {
        let _ = sys::charge_to(&directory, 0);
        let _ = release(store, project);
    }
    charged.map(|()| project)
}

fn charge(directory: &OwnedFd, project: u32) -> anyhow::Result<()> {
    sys::charge_to(directory, project).map_err(unsupported)?;
    sys::set_quota(directory, project, Quota { bytes: TRIAL, inodes: 0 }).map_err(unsupported)?;
    let shown = rustix::fs::fstatvfs(directory).context("look at the store's filesystem")?;
    // Larger only by the rounding of a block.
    if shown.f_blocks * shown.f_frsize >= 2 * TRIAL {
        bail!(Fault::unsupported("the store's filesystem counts project quotas but enforces none"));
    }
    Ok(())
}

/// Sets the limit, and returns what there is before the container has written anything. That is
/// counted file by file: what is charged still has what overlay tried and removed again, as XFS frees
/// inodes in the background.
pub(super) fn seal(image: &Image, project: u32, room: Room) -> anyhow::Result<Overhead> {
    let directory = layer::open_directory(&image.writes())?;
    let own = rustix::fs::fstat(&directory).context("look at directory")?;
    let below = usage::of(&directory)?;
    let overhead = Overhead {
        empty_bytes: below.bytes + u64::try_from(own.st_blocks).unwrap_or_default() * 512,
        empty_inodes: below.inodes + 1,
        taken_bytes: 0,
    };
    limit(image, project, overhead, room).map(|()| overhead)
}

/// Sets the limit.
///
/// # Errors
/// The kernel's.
pub(super) fn limit(
    image: &Image,
    project: u32,
    overhead: Overhead,
    room: Room,
) -> anyhow::Result<()> {
    let directory = layer::open_directory(&image.writes())?;
    let bytes = match room.bytes {
        0 => 0,
        bytes => bytes.max(MINIMUM) + overhead.empty_bytes,
    };
    let inodes = if room.inodes == 0 { 0 } else { room.inodes + overhead.empty_inodes };
    sys::set_quota(&directory, project, Quota { bytes, inodes }).context("set quota")
}

/// Finds a number that nobody uses, and puts our name on it.
fn claim(store: &Store, image: &Image, directory: &OwnedFd) -> anyhow::Result<u32> {
    private_dir(&store.projects())?;
    let taken = names(&store.projects())?;
    let taken: BTreeSet<u32> = taken.iter().filter_map(number).collect();
    let free = (FIRST..u32::MAX).filter(|project| !taken.contains(project));
    let owner = image.path().file_name().context("image without a name")?;
    for project in free {
        let used = sys::quota(directory, project).context("look for a free project")?;
        if used.inodes > 0 {
            continue;
        }
        match symlink(owner, name(store, project)) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => return made.map(|()| project).context("name a project"),
        }
    }
    bail!("no project is free in {}", store.root().display())
}

/// Returns what is charged to a project beyond an empty one.
pub(super) fn content(store: &Store, project: u32, overhead: Overhead) -> anyhow::Result<Usage> {
    let directory = layer::open_directory(store.root())?;
    let used = sys::quota(&directory, project)
        .with_context(|| format!("count what project {project} uses"))?;
    Ok(Usage {
        bytes: used.bytes.saturating_sub(overhead.empty_bytes),
        inodes: used.inodes.saturating_sub(overhead.empty_inodes),
    })
}

/// Returns the project, if it is one of ours, that a directory is charged to.
pub(crate) fn of(directory: &Path) -> Option<u32> {
    let directory = layer::open_directory(directory).ok()?;
    sys::project_of(&directory).ok().filter(|project| *project >= FIRST)
}

/// Gives a project back that nothing is charged to any more.
///
/// # Errors
/// When its limit can't be lifted or its name not removed.
pub(crate) fn release(store: &Store, project: u32) -> anyhow::Result<()> {
    let directory = layer::open_directory(store.root())?;
    sys::set_quota(&directory, project, Quota::default()).context("lift quota")?;
    match std::fs::remove_file(name(store, project)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context("free a project"),
        _ => Ok(()),
    }
}

/// Gives back the projects whose images and files are gone, and returns how many those were.
///
/// # Errors
/// When something can't be read or removed.
pub(crate) fn sweep(store: &Store) -> anyhow::Result<usize> {
    let mut count = 0;
    for project in stale(store)? {
        release(store, project)?;
        count += 1;
    }
    Ok(count)
}

/// The projects that have a name but neither an image nor files.
///
/// # Errors
/// When the store can't be read.
pub(crate) fn stale(store: &Store) -> anyhow::Result<Vec<u32>> {
    let directory = layer::open_directory(store.root())?;
    let mut stale = Vec::new();
    for (project, owner) in projects(store)? {
        // In this order: who makes an image names its project before anything is charged to it.
        let is_owned = store.images().join(&owner).exists();
        if !is_owned && sys::quota(&directory, project).is_ok_and(|used| used.inodes == 0) {
            stale.push(project);
        }
    }
    Ok(stale)
}

/// The projects that have a name in the store, and the names of their images.
fn projects(store: &Store) -> anyhow::Result<Vec<(u32, PathBuf)>> {
    let mut projects = Vec::new();
    for file in names(&store.projects())? {
        let Some(project) = number(&file) else { continue };
        match std::fs::read_link(name(store, project)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            owner => projects.push((project, owner.context("read the name of a project")?)),
        }
    }
    Ok(projects)
}

fn number(file: &OsString) -> Option<u32> {
    file.to_str()?.parse().ok()
}

fn name(store: &Store, project: u32) -> PathBuf {
    store.projects().join(project.to_string())
}

fn unsupported(error: std::io::Error) -> anyhow::Error {
    let text = format!("the store's filesystem has no project quotas: {error}");
    anyhow::Error::new(error).context(Fault::unsupported(text))
}
