//! Layers → one overlay that shows its files as a container's, in whatever way works here.
//!
//! The overlay is made in a mount namespace that ends with the thread in it, so that nothing but
//! the merged mount is ever seen. Layers are named relative to a directory there: short, because all
//! of them must fit on a page for mount(2), which every kernel since 5.12 understands.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, ensure};
use guardian_contract::ids::IdMaps;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, StatVfsMountFlags};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use serde::{Deserialize, Serialize};

use crate::owner;
use crate::probe::clone_mapped;

/// A way to show the container's owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Way {
    /// All layers are id-mapped: nothing is owned by the container's ids on disk.
    Full,
    /// The lower layers are id-mapped; the upper one is owned by the container's ids on disk.
    Lower,
    /// Owners are changed in the upper layer, which gets the attributes of every lower file but not
    /// its content.
    Metacopy,
    /// Owners are changed by copying every file up.
    Chown,
}

impl Way {
    /// Those that need not be asked for, best first.
    pub(crate) const AUTOMATIC: [Self; 3] = [Self::Full, Self::Lower, Self::Metacopy];

    /// Tells whether the owners in the upper layer are the container's ids on disk.
    pub(crate) fn owns_upper(self) -> bool {
        self != Self::Full
    }

    /// Tells whether owners are changed through the merged tree.
    pub(crate) fn changes_merged(self) -> bool {
        matches!(self, Self::Metacopy | Self::Chown)
    }
}

/// What is to be stacked.
#[derive(Debug)]
pub(crate) struct Layers<'a> {
    /// Topmost first.
    pub(crate) lower: &'a [PathBuf],
    pub(crate) upper: &'a Path,
    pub(crate) work: &'a Path,
    /// A user namespace with the container's maps, and the maps themselves.
    pub(crate) userns: Option<&'a File>,
    pub(crate) maps: &'a IdMaps,
}

/// Makes an overlay and returns its detached mount. With [`Way::Metacopy`] and [`Way::Chown`]
/// owners are still those of the layers.
///
/// # Errors
/// When this way does not work on this kernel or these filesystems.
pub(crate) fn stack(layers: &Layers<'_>, way: Way) -> anyhow::Result<OwnedFd> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| stack_aside(layers, way));
        thread.join().unwrap_or_else(|_| Err(anyhow!("the thread that mounts the overlay died")))
    })
}

/// In a thread of its own, for its mount namespace, working directory and filesystem ids.
fn stack_aside(layers: &Layers<'_>, way: Way) -> anyhow::Result<OwnedFd> {
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("make mounts private")?;
    let (layer, writes) = (way == Way::Full || way == Way::Lower, way == Way::Full);
    let lower = layers.lower.iter().map(|path| opened(path, layers, layer));
    let lower: Vec<OwnedFd> = lower.collect::<anyhow::Result<_>>()?;
    let parent = Parent::of(layers)?;
    let writes = opened(parent.path, layers, writes)?;

    // Hides a directory that every host has, here alone.
    mount(Some("tmpfs"), "/proc", Some("tmpfs"), MsFlags::empty(), Some("mode=700"))
        .context("mount a stage")?;
    std::env::set_current_dir("/proc").context("enter the stage")?;
    for (number, layer) in lower.iter().enumerate() {
        show(layer, &number.to_string())?;
    }
    show(&writes, "w")?;
    std::fs::create_dir("m").context("make the stage")?;
    let names: Vec<String> = (0..lower.len()).map(|number| number.to_string()).collect();
    let mut options = format!(
        "lowerdir={},upperdir=w/{},workdir=w/{}",
        names.join(":"),
        parent.upper,
        parent.work
    );
    if way == Way::Metacopy {
        options.push_str(",metacopy=on");
    }
    let options = options.as_str();
    let stacked = || {
        mount(Some("overlay"), "m", Some("overlay"), MsFlags::empty(), Some(options))
            .context("mount the overlay")
    };
    // The kernel makes the work directory as whoever mounts, by an id that the map must know: with
    // root's, the overlay would silently be read-only.
    match layers.userns.filter(|_| way == Way::Full) {
        Some(_) => owner::acting_as(owner::root_of(layers.maps)?, stacked)?,
        None => stacked()?,
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let merged = open_tree(CWD, "m", flags).context("detach the overlay")?;
    let flags = rustix::fs::fstatvfs(&merged).context("look at the overlay")?.f_flag;
    ensure!(!flags.contains(StatVfsMountFlags::RDONLY), "the overlay came out read-only");
    Ok(merged)
}

/// Upper and work have to be on one mount, so it is their parent that is shown.
struct Parent<'a> {
    path: &'a Path,
    upper: String,
    work: String,
}

impl<'a> Parent<'a> {
    fn of(layers: &Layers<'a>) -> anyhow::Result<Self> {
        let name = |path: &Path| -> anyhow::Result<String> {
            let name = path.file_name().and_then(|name| name.to_str());
            let is_plain = |name: &&str| !name.contains([',', ':', '\\']);
            let name = name.filter(is_plain);
            Ok(name.with_context(|| format!("{} has an odd name", path.display()))?.to_owned())
        };
        let path = layers.upper.parent().context("the upper layer has no parent")?;
        ensure!(layers.work.parent() == Some(path), "upper and work have different parents");
        Ok(Self { path, upper: name(layers.upper)?, work: name(layers.work)? })
    }
}

fn opened(path: &Path, layers: &Layers<'_>, is_mapped: bool) -> anyhow::Result<OwnedFd> {
    match layers.userns.filter(|_| is_mapped) {
        Some(userns) => clone_mapped(path, userns),
        None => {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            open_tree(CWD, path, flags)
                .with_context(|| format!("clone the mount of {}", path.display()))
        }
    }
}

fn show(mount: &OwnedFd, name: &str) -> anyhow::Result<()> {
    std::fs::create_dir(name).context("make the stage")?;
    move_mount(mount.as_fd(), "", CWD, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .context("mount a layer on the stage")
}
