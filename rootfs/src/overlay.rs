//! Lower, upper and work directories → one overlay mount, all of it by descriptors.
//!
//! Nothing becomes visible but the merged mount: layers are taken from detached clones, so a crash
//! at any line leaves no mount behind. With id maps the clone is id-mapped, so one canonical copy
//! of a layer on disk serves every container, and no file is ever chowned.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use guardian_contract::fault::Fault;
use guardian_contract::ids::IdMaps;
use guardian_contract::log;
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

use crate::owner::{self, Owner};
use crate::{sys, userns};

/// What is to be stacked.
#[derive(Debug)]
pub(crate) struct Overlay<'a> {
    /// The directory that holds every layer.
    pub(crate) layers: &'a Path,
    /// Names below `layers`, topmost first.
    pub(crate) lower: &'a [String],
    /// The directory that holds `upper` and `work`.
    pub(crate) writes: &'a Path,
    /// Where the merged tree is to appear.
    pub(crate) merged: &'a Path,
    /// The container's id maps; empty ones make a plain overlay.
    pub(crate) maps: &'a IdMaps,
    /// The only way to try; `None` tries all, best first.
    pub(crate) way: Option<Way>,
}

/// A way to show canonical owners through the container's id map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Way {
    /// Lower, upper and work are mapped, layers are given as detached mounts.
    Detached,
    /// The same, with the mapped mount attached in a private mount namespace, for kernels whose
    /// overlay takes no detached layers.
    Attached,
    /// Only the lower layers are mapped; the empty upper directory is chowned.
    LowerOnly,
}

const WAYS: [Way; 3] = [Way::Detached, Way::Attached, Way::LowerOnly];

impl Overlay<'_> {
    /// Mounts it and returns the way that worked; a plain one needs none.
    ///
    /// # Errors
    /// `Unsupported` when no way of id mapping works on this kernel and filesystem.
    pub(crate) fn mount(&self) -> anyhow::Result<Option<Way>> {
        let (merged, way) = if self.maps.uid.is_empty() && self.maps.gid.is_empty() {
            (self.plain().context("mount overlay")?, None)
        } else {
            self.mapped()?
        };
        attach(&merged, self.merged).map(|()| way)
    }

    fn plain(&self) -> anyhow::Result<OwnedFd> {
        let layers = Base::directory(self.layers)?;
        let writes = Base::directory(self.writes)?;
        self.stack(&layers, &writes)
    }

    /// Tries each way in turn; what a kernel can do is seen only by doing it.
    fn mapped(&self) -> anyhow::Result<(OwnedFd, Option<Way>)> {
        let owner = Owner::root_of(self.maps)?;
        let userns = userns::with_maps(self.maps)?;
        let mut reasons = Vec::new();
        let only = self.way.map(|way| [way]);
        for &way in only.as_ref().map_or(&WAYS[..], |only| &only[..]) {
            match self.mapped_by(way, owner, &userns) {
                Ok(merged) => return Ok((merged, Some(way))),
                Err(error) => {
                    let reason = format!("{way:?}: {error:#}");
                    log::info("overlay-way-failed", &serde_json::json!({"reason": reason}));
                    reasons.push(reason);
                }
            }
        }
        bail!(Fault::unsupported(format!(
            "overlay over id-mapped layers in {} is not supported here: {}",
            self.layers.display(),
            reasons.join("; ")
        )))
    }

    fn mapped_by(&self, way: Way, owner: Owner, userns: &OwnedFd) -> anyhow::Result<OwnedFd> {
        let layers = clone_mapped(self.layers, userns)?;
        let merged = match way {
            Way::Detached => {
                let writes = clone_mapped(self.writes, userns)?;
                let (layers, writes) = (Base::Descriptor(layers), Base::Descriptor(writes));
                owner::acting_as(owner, || self.stack(&layers, &writes))?
            }
            Way::Attached => {
                let writes = clone_mapped(self.writes, userns)?;
                self.attached(owner, &layers, &writes)?
            }
            Way::LowerOnly => {
                let upper = self.writes.join("upper");
                rustix::fs::chownat(
                    CWD,
                    &upper,
                    Some(Uid::from_raw(owner.uid)),
                    Some(Gid::from_raw(owner.gid)),
                    AtFlags::SYMLINK_NOFOLLOW,
                )
                .with_context(|| format!("chown {}", upper.display()))?;
                self.stack(&Base::Descriptor(layers), &Base::directory(self.writes)?)?
            }
        };
        probe(&merged, owner)?;
        Ok(merged)
    }

    /// Attaches the mapped mounts over the directories they show, but in a mount namespace of our
    /// own, which dies with us.
    fn attached(
        &self,
        owner: Owner,
        layers: &OwnedFd,
        writes: &OwnedFd,
    ) -> anyhow::Result<OwnedFd> {
        let before = std::fs::File::open("/proc/self/ns/mnt").context("open mount namespace")?;
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
            .context("unshare mount namespace")?;
        let stacked = (|| {
            rustix::mount::mount_change(
                "/",
                rustix::mount::MountPropagationFlags::PRIVATE
                    | rustix::mount::MountPropagationFlags::REC,
            )
            .context("make mounts private")?;
            attach(layers, self.layers)?;
            attach(writes, self.writes)?;
            let layers = Base::Path(self.layers.into());
            let writes = Base::Path(self.writes.into());
            owner::acting_as(owner, || self.stack(&layers, &writes))
        })();
        nix::sched::setns(&before, nix::sched::CloneFlags::CLONE_NEWNS)
            .context("return to the mount namespace")?;
        stacked
    }

    /// Makes one overlay and returns its detached mount. Kernels before 6.8 don't know how we give
    /// lower directories; some say so only in the end.
    fn stack(&self, layers: &Base, writes: &Base) -> anyhow::Result<OwnedFd> {
        match self.stack_by_parameter(layers, writes) {
            Err(error) if is_unknown(&error) => self
                .stack_by_mount(layers, writes)
                .map_err(|other| other.context(format!("{error:#}; by mount(2)"))),
            stacked => stacked,
        }
    }

    fn stack_by_parameter(&self, layers: &Base, writes: &Base) -> anyhow::Result<OwnedFd> {
        let overlay = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
            .context("open overlay filesystem")?;
        for name in self.lower {
            layers.give(&overlay, "lowerdir+", name)?;
        }
        writes.give(&overlay, "upperdir", "upper")?;
        writes.give(&overlay, "workdir", "work")?;
        // A container's writes need not outlive a crash of the host, because the container
        // doesn't; without this every unmount writes back the whole filesystem
        // (kernel: Documentation/filesystems/overlayfs.rst, "Volatile mount").
        let _ = rustix::mount::fsconfig_set_flag(&overlay, "volatile");
        rustix::mount::fsconfig_set_string(&overlay, "source", "overlay")
            .context("name overlay")?;
        rustix::mount::fsconfig_create(&overlay).context("create overlay")?;
        rustix::mount::fsmount(&overlay, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
            .context("mount overlay")
    }

    /// The same by mount(2), which has no detached mounts, so the overlay is taken
    /// off again from where it is to be in the end. All paths are those of open descriptors: short,
    /// because together they must fit on a page, and without a character that would need quoting.
    fn stack_by_mount(&self, layers: &Base, writes: &Base) -> anyhow::Result<OwnedFd> {
        let lower: Vec<OwnedFd> =
            self.lower.iter().map(|name| layers.open(name)).collect::<anyhow::Result<_>>()?;
        let (upper, work) = (writes.open("upper")?, writes.open("work")?);
        let path = |directory| owner::descriptor_path(directory).display().to_string();
        let lower: Vec<String> = lower.iter().map(path).collect();
        let options = format!(
            "lowerdir={},upperdir={},workdir={},volatile",
            lower.join(":"),
            path(&upper),
            path(&work)
        );
        if options.len() >= rustix::param::page_size() {
            let count = lower.len();
            bail!(Fault::unsupported(format!("image with {count} layers on a kernel before 6.8")));
        }
        let options = CString::new(options)?;
        rustix::mount::mount(
            c"overlay",
            self.merged,
            c"overlay",
            MountFlags::empty(),
            options.as_c_str(),
        )
        .context("mount overlay")?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let merged = rustix::mount::open_tree(CWD, self.merged, flags).context("detach overlay");
        unmount(self.merged)?;
        merged
    }
}

/// Where directories of an overlay are found.
enum Base {
    /// Below an open directory or a detached mount.
    Descriptor(OwnedFd),
    /// Below a path of the current mount namespace.
    Path(PathBuf),
}

impl Base {
    fn directory(path: &Path) -> anyhow::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .with_context(|| format!("open {}", path.display()))?;
        Ok(Self::Descriptor(fd))
    }

    fn open(&self, name: &str) -> anyhow::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = match self {
            Self::Descriptor(base) => rustix::fs::openat(base, name, flags, Mode::empty()),
            Self::Path(base) => rustix::fs::open(base.join(name), flags, Mode::empty()),
        };
        opened.with_context(|| format!("open {name}"))
    }

    /// Gives the directory `name` to the overlay under `key`. Where the kernel takes no
    /// descriptors (before 6.13), an ordinary directory is given by its path in /proc.
    fn give(&self, overlay: &OwnedFd, key: &str, name: &str) -> anyhow::Result<()> {
        let given = match self {
            Self::Path(base) => {
                rustix::mount::fsconfig_set_string(overlay, key, base.join(name).as_path())
            }
            Self::Descriptor(_) => {
                let directory = self.open(name)?;
                match rustix::mount::fsconfig_set_fd(overlay, key, &directory) {
                    Err(Errno::INVAL) => {
                        let path = owner::descriptor_path(&directory);
                        rustix::mount::fsconfig_set_string(overlay, key, path)
                    }
                    answer => answer,
                }
            }
        };
        given.with_context(|| format!("give overlay {key} {name}"))
    }
}

/// Returns a detached clone of the mount at `path` that shows owners through `userns`.
fn clone_mapped(path: &Path, userns: &OwnedFd) -> anyhow::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = rustix::mount::open_tree(CWD, path, flags)
        .with_context(|| format!("clone mount of {}", path.display()))?;
    sys::map_owners(&clone, userns.as_fd())
        .with_context(|| format!("map the owners of {}", path.display()))?;
    Ok(clone)
}

/// Tells whether the kernel does not know what it was given.
fn is_unknown(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(&Errno::INVAL | &Errno::OPNOTSUPP))
}

/// Tells whether a mapped overlay is what it should be: an overlay that could not make its work
/// directory is mounted all the same, read-only and without an error.
fn probe(merged: &OwnedFd, owner: Owner) -> anyhow::Result<()> {
    let flags = rustix::fs::fstatvfs(merged).context("look at overlay")?.f_flag;
    if flags.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        bail!("overlay came out read-only");
    }
    let root = rustix::fs::fstat(merged).context("look at overlay's root")?;
    if (root.st_uid, root.st_gid) != (owner.uid, owner.gid) {
        bail!("overlay's root belongs to {}:{}", root.st_uid, root.st_gid);
    }
    Ok(())
}

fn attach(mount: &OwnedFd, path: &Path) -> anyhow::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", CWD, path, flags)
        .with_context(|| format!("attach mount at {}", path.display()))
}

/// Unmounts everything that is mounted at `path`; nothing mounted or no such path is fine.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn unmount(path: &Path) -> anyhow::Result<()> {
    loop {
        match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(error) => return Err(anyhow!(error).context(format!("unmount {}", path.display()))),
        }
    }
}
