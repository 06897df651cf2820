//! The store's layout on disk. Every path below it is made here and nowhere else.
//!
//! ```text
//! STORE/                    0711, as is images
//! STORE/layers/CHAIN        an unpacked layer; owners as in the image
//! STORE/meta/CHAIN.json     its size
//! STORE/meta/CHAIN.recipe   how to make its archive of it again
//! STORE/images/ID/          0700, owned by the container's root: rootfs (the merged tree),
//!                           writes/upper, writes/work, layers.json, info.json
//! STORE/locks/CHAIN         held while the layer is unpacked
//! STORE/locks/gate          held shared by who is about to use layers, alone by who collects them
//! STORE/partial/CHAIN       a layer being unpacked, or what a dead process left of it
//! STORE/maps.json           the id maps that `init-store` was given
//! STORE/size.json           the size that it was given
//! STORE/blobs/DIGEST        a layer's archive being downloaded, or what a dead process left of it
//! STORE/projects/N          whose the project N of the filesystem is: a link with an image's id
//! STORE/trash/…             images and layers being removed, or what a dead process left of them
//! ```

use std::fs::{File, OpenOptions, Permissions, ReadDir, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use guardian_contract::depot::Handle;
use guardian_contract::fault::Fault;
use guardian_contract::file::{lock, private_dir};
use rustix::fs::{Access, AtFlags, CWD};

/// The one that says that there is a store comes last: who sees it finds the others.
const DIRECTORIES: [&str; 6] = ["layers", "meta", "locks", "partial", "trash", "images"];

/// An image store.
#[derive(Debug, Clone)]
pub(crate) struct Store(PathBuf);

impl Store {
    /// Returns the store at `path`; nothing is touched yet.
    ///
    /// # Errors
    /// When a relative path can't be made absolute.
    pub(crate) fn at(path: &Path) -> anyhow::Result<Self> {
        Ok(Self(std::path::absolute(path).context("find the store")?))
    }

    /// Makes the store where it is missing. An image's set-id programs are not for the host's
    /// users, so layers are root's alone; but a runtime looks for the container's root filesystem
    /// with the rights of that container's root, so it must get as far as to its own image.
    ///
    /// # Errors
    /// When a directory can't be made.
    pub(crate) fn create(&self) -> anyhow::Result<()> {
        // Opened up last, so that its mode says that all is there.
        let images = std::fs::metadata(self.images());
        if images.is_ok_and(|stat| stat.permissions().mode() & 0o777 == 0o711) {
            return self.check_access();
        }
        // Parents with the usual mode: a container's root must get through them, too.
        if let Some(parent) = self.0.parent() {
            std::fs::create_dir_all(parent)
                .with_context(|| format!("make directory {}", parent.display()))?;
        }
        private_dir(&self.0)?;
        for directory in DIRECTORIES {
            private_dir(&self.path(directory))?;
        }
        for passage in [&self.0, &self.images()] {
            std::fs::set_permissions(passage, Permissions::from_mode(0o711))
                .with_context(|| format!("set mode of {}", passage.display()))?;
        }
        Ok(())
    }

    /// Anybody may look for the store, but not use it.
    fn check_access(&self) -> anyhow::Result<()> {
        let access = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
        rustix::fs::accessat(CWD, self.images(), access, AtFlags::EACCESS)
            .with_context(|| format!("use store {}", self.0.display()))
    }

    /// Tells whether there is a store.
    pub(crate) fn exists(&self) -> bool {
        self.path("images").is_dir()
    }

    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.path("layers")
    }

    pub(crate) fn layer(&self, chain_id: &str) -> PathBuf {
        self.layers().join(chain_id)
    }

    pub(crate) fn meta(&self, chain_id: &str) -> PathBuf {
        self.path("meta").join(format!("{chain_id}.json"))
    }

    pub(crate) fn recipe(&self, chain_id: &str) -> PathBuf {
        self.path("meta").join(format!("{chain_id}.recipe"))
    }

    /// Removes what is known of a layer that has no name any more.
    ///
    /// # Errors
    /// When it can't be removed.
    pub(crate) fn forget_layer(&self, chain_id: &str) -> anyhow::Result<()> {
        for path in [self.meta(chain_id), self.recipe(chain_id)] {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                removed => removed.with_context(|| format!("remove {}", path.display()))?,
            }
        }
        Ok(())
    }

    pub(crate) fn maps(&self) -> PathBuf {
        self.path("maps.json")
    }

    pub(crate) fn size(&self) -> PathBuf {
        self.path("size.json")
    }

    pub(crate) fn partial(&self) -> PathBuf {
        self.path("partial")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.path("blobs")
    }

    pub(crate) fn blob(&self, digest: &str) -> PathBuf {
        self.blobs().join(digest)
    }

    pub(crate) fn projects(&self) -> PathBuf {
        self.path("projects")
    }

    pub(crate) fn trash(&self) -> PathBuf {
        self.path("trash")
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.path("images")
    }

    pub(crate) fn image(&self, id: &Handle) -> PathBuf {
        self.images().join(id.as_str())
    }

    /// Waits for the lock of one layer; the kernel frees it when its holder dies.
    ///
    /// # Errors
    /// When the lock's file can't be made.
    pub(crate) fn lock_layer(&self, chain_id: &str) -> anyhow::Result<File> {
        lock(&self.path("locks").join(chain_id))
    }

    /// Takes the lock of one layer; `None` when somebody has it.
    ///
    /// # Errors
    /// When the lock's file can't be made.
    pub(crate) fn try_lock_layer(&self, chain_id: &str) -> anyhow::Result<Option<File>> {
        let file = self.lock_file(chain_id)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error).context("lock layer"),
        }
    }

    /// Keeps layers from being collected until the returned file is dropped. Whoever needs layers
    /// that no image names yet holds it; collectors wait.
    ///
    /// # Errors
    /// When the lock's file can't be made.
    pub(crate) fn keep_gate_open(&self) -> anyhow::Result<File> {
        let gate = self.gate()?;
        gate.lock_shared().context("lock the store's gate")?;
        Ok(gate)
    }

    /// Keeps everybody from beginning to use layers until the returned file is dropped; `None`
    /// when somebody holds the gate open for longer than `patience`. Asking again and again keeps
    /// nobody else waiting.
    ///
    /// # Errors
    /// When the lock's file can't be made.
    pub(crate) fn close_gate(&self, patience: Duration) -> anyhow::Result<Option<File>> {
        let gate = self.gate()?;
        let deadline = Instant::now() + patience;
        loop {
            match gate.try_lock() {
                Ok(()) => return Ok(Some(gate)),
                Err(TryLockError::Error(error)) => {
                    return Err(error).context("lock the store's gate");
                }
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return Ok(None),
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    fn gate(&self) -> anyhow::Result<File> {
        self.lock_file("gate")
    }

    fn lock_file(&self, name: &str) -> anyhow::Result<File> {
        let path = self.path("locks").join(name);
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        options.open(&path).with_context(|| format!("open lock {}", path.display()))
    }

    /// Lists images, sorted. A missing store is an error, as in grootfs.
    ///
    /// # Errors
    /// When there is no store, or it can't be read.
    pub(crate) fn list(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in self.entries()? {
            paths.push(entry.context("read the store")?.path());
        }
        paths.sort();
        Ok(paths)
    }

    /// Refuses to look at a store that is not there: who mistyped its path must not be told that all is
    /// well.
    ///
    /// # Errors
    /// As [`Store::list`].
    pub(crate) fn expect(&self) -> anyhow::Result<()> {
        self.entries().map(drop)
    }

    fn entries(&self) -> anyhow::Result<ReadDir> {
        let images = self.images();
        match std::fs::read_dir(&images) {
            // The text is grootfs'.
            Err(error) if error.kind() == ErrorKind::NotFound => Err(Fault::not_found(format!(
                "Store path is not initialized ({}): {error}",
                images.display()
            ))
            .into()),
            entries => entries.with_context(|| format!("read store {}", images.display())),
        }
    }

    /// Returns the id of an image that is named by id or by path; `None` for a path elsewhere.
    ///
    /// # Errors
    /// When it can't be an id.
    pub(crate) fn id(&self, name: &str) -> anyhow::Result<Option<Handle>> {
        match name.starts_with('/') {
            true => match Path::new(name).strip_prefix(self.images()) {
                Ok(id) => Ok(Some(parse_id(&id.to_string_lossy())?)),
                Err(_) => Ok(None),
            },
            false => Ok(Some(parse_id(name)?)),
        }
    }

    fn path(&self, directory: &str) -> PathBuf {
        self.0.join(directory)
    }
}

/// Parses an image's id, with grootfs' words for the mistake it knows.
///
/// # Errors
/// When it can't be an id.
pub(crate) fn parse_id(text: &str) -> anyhow::Result<Handle> {
    if text.contains('/') {
        return Err(Fault::invalid(format!("id `{text}` contains invalid characters: `/`")).into());
    }
    Ok(text.parse::<Handle>()?)
}
