//! One image of the store: the writable directory of one container over the layers of its image.

use std::fs::{File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use guardian_contract::depot::Handle;
use guardian_contract::fault::Fault;
use guardian_contract::file::{private_dir, read_json, replace_json};
use serde::{Deserialize, Serialize};

use crate::disk::{self, Disk, Overhead, Room};
use crate::owner::Owner;
use crate::store::Store;
use crate::{held, layer, overlay, remove};

/// More than there is between making a directory and locking it.
pub(crate) const MOMENT: Duration = Duration::from_secs(2);

/// What we must know of an image after it was made; its presence says that it was made whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Info {
    /// Chain ids of its layers, topmost first.
    pub(crate) layers: Vec<String>,
    /// Bytes that the layers take.
    pub(crate) image_bytes: u64,
    /// Bytes that the container may write; 0 is no limit.
    pub(crate) limit_bytes: u64,
    /// Inodes that the container may write; 0 is no limit.
    pub(crate) limit_inodes: u64,
    /// Where that is kept.
    pub(crate) disk: Disk,
    /// What of it is not the container's.
    #[serde(flatten)]
    pub(crate) overhead: Overhead,
    /// Whether the limit is being changed, or who changed it died: then it may be either one.
    pub(crate) is_changing: bool,
    /// Environment of its processes, `K=V`.
    pub(crate) env: Vec<String>,
    /// Whether what the container has written has the owners that the host sees, and not those of
    /// the image.
    pub(crate) has_host_owners: bool,
}

impl Info {
    /// Returns what the container may write.
    pub(crate) fn room(&self) -> Room {
        Room { bytes: self.limit_bytes, inodes: self.limit_inodes }
    }
}

/// An image's directory, held by whoever makes or removes it.
#[derive(Debug)]
pub(crate) struct Image {
    path: PathBuf,
    /// Keeps the lock; `None` for one who only looks.
    _held: Option<File>,
}

impl Image {
    /// Makes the directory of a new image. What a dead creator left under this id is removed.
    ///
    /// # Errors
    /// `Exists` when there is such an image, or one is being made.
    pub(crate) fn claim(store: &Store, id: &Handle) -> anyhow::Result<Self> {
        let exists = || Fault::exists(format!("image for id `{id}` already exists"));
        let path = store.image(id);
        loop {
            let is_new = match std::fs::create_dir(&path) {
                Ok(()) => true,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
                Err(error) => return Err(error).with_context(|| format!("make image {id}")),
            };
            let Some(held) = held::open(&path)? else { continue };
            if held.try_lock().is_err() {
                bail!(exists());
            }
            if !held::is_still(&held, &path) {
                continue;
            }
            let image = Self { path: path.clone(), _held: Some(held) };
            if is_new {
                return Ok(image);
            }
            if image.info()?.is_some() {
                bail!(exists());
            }
            image.delete(store)?;
        }
    }

    /// Returns an image, waiting until nobody makes or removes it; `None` when there is none.
    ///
    /// # Errors
    /// When it can't be opened.
    pub(crate) fn find(store: &Store, id: &Handle) -> anyhow::Result<Option<Self>> {
        let path = store.image(id);
        loop {
            let Some(held) = held::open(&path)? else { return Ok(None) };
            held.lock().with_context(|| format!("lock {}", path.display()))?;
            if held::is_still(&held, &path) {
                return Ok(Some(Self { path, _held: Some(held) }));
            }
        }
    }

    /// Returns an image that nobody makes or removes just now. A directory of this moment does not
    /// count: its creator is about to lock it, and would take us for another one.
    ///
    /// # Errors
    /// When it can't be opened.
    pub(crate) fn find_idle(store: &Store, id: &Handle) -> anyhow::Result<Option<Self>> {
        let path = store.image(id);
        let Some(held) = held::open(&path)? else { return Ok(None) };
        let changed = held.metadata().and_then(|stat| stat.modified()).context("look at image")?;
        if changed.elapsed().is_ok_and(|age| age < MOMENT) || held.try_lock().is_err() {
            return Ok(None);
        }
        let is_still = held::is_still(&held, &path);
        Ok(is_still.then_some(Self { path, _held: Some(held) }))
    }

    /// Returns an image to look at, without a lock; there may be none.
    pub(crate) fn peek(store: &Store, id: &Handle) -> Self {
        Self { path: store.image(id), _held: None }
    }

    /// Says which layers the image is to lie on, before anybody looks for one of them: from here
    /// on they are used, so that nobody collects what its creator has found or is making.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn rely_on(&self, store: &Store, layers: &[String]) -> anyhow::Result<()> {
        replace_json(&self.path.join("layers.json"), &layers)?;
        // A collector who has not seen this is done when we get through; one who comes now sees it.
        // Writing may take long on a busy disk, so it is not done while others wait.
        store.keep_gate_open().map(drop)
    }

    /// Returns the chain ids of the layers that the image lies on, or will; none for one whose
    /// creator has only begun.
    ///
    /// # Errors
    /// When they can't be read.
    pub(crate) fn layers(&self) -> anyhow::Result<Vec<String>> {
        match read_json(&self.path.join("layers.json"))? {
            Some(layers) => Ok(layers),
            None => Ok(self.info()?.unwrap_or_default().layers),
        }
    }

    /// Makes the directories that an overlay needs; the root of the upper one looks like the
    /// topmost layer's, because it is the one that the container sees.
    ///
    /// # Errors
    /// When one can't be made.
    pub(crate) fn prepare(&self, top: &Path) -> anyhow::Result<()> {
        let writes = self.writes();
        for directory in [writes.join("upper"), writes.join("work"), self.merged()] {
            private_dir(&directory)?;
        }
        let upper = layer::open_directory(&writes.join("upper"))?;
        let stat = std::fs::metadata(top).with_context(|| format!("stat {}", top.display()))?;
        let (uid, gid) =
            (rustix::fs::Uid::from_raw(stat.uid()), rustix::fs::Gid::from_raw(stat.gid()));
        rustix::fs::fchown(&upper, Some(uid), Some(gid)).context("set owner of the root")?;
        let mode = rustix::fs::Mode::from_raw_mode(stat.mode() & 0o7777);
        rustix::fs::fchmod(&upper, mode).context("set mode of the root")
    }

    /// Returns what is known of the image; `None` when it was not made whole.
    ///
    /// # Errors
    /// When it can't be read.
    pub(crate) fn info(&self) -> anyhow::Result<Option<Info>> {
        read_json(&self.path.join("info.json"))
    }

    /// Gives the image's directory to its container's root, with whose rights a runtime looks for
    /// the root filesystem; nobody else gets in.
    ///
    /// # Errors
    /// When the owner can't be set.
    pub(crate) fn give_to(&self, owner: Owner) -> anyhow::Result<()> {
        std::fs::set_permissions(&self.path, Permissions::from_mode(0o700))
            .and_then(|()| chown(&self.path, Some(owner.uid), Some(owner.gid)))
            .with_context(|| format!("set owner of {}", self.path.display()))
    }

    /// Says that the image is whole, or that what is known of it has changed.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn finish(&self, info: &Info) -> anyhow::Result<()> {
        replace_json(&self.path.join("info.json"), info)
    }

    /// Its directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the container finds its root filesystem.
    pub(crate) fn merged(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    /// What holds overlay's `upper` and `work`: a directory of root's own, because the image's
    /// directory has an owner that does not exist in the container's id map, so that no capability
    /// would help us through it there. With a limit, another filesystem is mounted over it while
    /// the overlay is made.
    pub(crate) fn writes(&self) -> PathBuf {
        self.path.join("writes")
    }

    /// What the container has written, when that lies in the store's own filesystem.
    pub(crate) fn upper(&self) -> PathBuf {
        self.writes().join("upper")
    }

    /// The file that holds a filesystem of limited size, if there is a limit.
    pub(crate) fn disk(&self) -> PathBuf {
        self.path.join("disk.img")
    }

    /// Unmounts the image and removes it; interrupted at any point, it can be done again.
    ///
    /// # Errors
    /// When a mount or a file resists.
    pub(crate) fn delete(self, store: &Store) -> anyhow::Result<()> {
        overlay::unmount(&self.merged())?;
        overlay::unmount(&self.writes())?;
        let project = disk::project_of(&self.writes());
        let trash = store.trash();
        // Its inode number makes the name unique among what is in the trash of this filesystem.
        let inode = std::fs::metadata(&self.path).context("look at image")?.ino();
        let name = self.path.file_name().context("image without a name")?.to_string_lossy();
        let away = format!("{name}.{inode}");
        std::fs::rename(&self.path, trash.join(&away)).context("move image to the trash")?;
        remove::tree(&layer::open_directory(&trash)?, away.as_ref())?;
        project.map_or(Ok(()), |project| disk::release(store, project))
    }
}

/// Removes the store with all that is in it; a missing one is fine.
///
/// # Errors
/// When something can't be removed.
pub(crate) fn delete_store(store: &Store) -> anyhow::Result<()> {
    if !store.root().exists() {
        return Ok(());
    }
    if store.exists() {
        for path in store.list()? {
            if let Some(id) = store.id(&path.to_string_lossy())?
                && let Some(image) = Image::find(store, &id)?
            {
                image.delete(store)?;
            }
        }
    }
    let up = store.root().parent().context("the store is the root directory")?;
    let name = store.root().file_name().context("the store has no name")?;
    remove::tree(&layer::open_directory(up)?, name)
}
