//! Volumes: directories of ours for what can't live on an overlay, such as an engine inside the
//! container that mounts overlays itself. They begin as what the image has in their place, are
//! written back into it, and are kept until the container is removed.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, ValueEnum};
use guardian_contract::depot::Handle;
use guardian_contract::fault::{Fault, Kind};
use guardian_contract::file;
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::container::expect_live;
use crate::entry::Entry;
use crate::mounts::{self, Base, Prepare, Wanted};
use crate::record::{Record, Strategy, Volume};
use crate::request::absolute;
use crate::store::Store;
use crate::translate::Translation;
use crate::{copy, inode, owner, removal, shift, walk};

mod image;

/// `volume create`
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
pub(crate) struct Create {
    /// Name of the container
    pub(crate) id: Handle,
    /// What will live there
    #[arg(long, value_enum)]
    pub(crate) kind: Engine,
    /// Where it will be in the container [default: where that program keeps its data]
    #[arg(long = "dst", value_name = "PATH")]
    pub(crate) destination: Option<PathBuf>,
    /// Begin empty, and write nothing back into the root filesystem
    #[arg(long)]
    pub(crate) no_sync: bool,
    /// Where the root filesystem is, if that was not said before
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    pub(crate) rootfs: Option<PathBuf>,
}

/// Programs that need a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Engine {
    /// Docker
    Docker,
    /// Kubernetes' kubelet
    Kubelet,
    /// k0s
    K0s,
    /// k3s
    K3s,
    /// RKE2
    Rke2,
    /// BuildKit
    Buildkit,
    /// containerd's overlay snapshots
    Containerd,
    /// Anything else; needs a destination
    Custom,
}

impl Engine {
    /// Where the program keeps its data, and the mode that it expects there.
    fn place(self) -> (Option<&'static str>, u32) {
        match self {
            Self::Docker => (Some("/var/lib/docker"), 0o700),
            Self::Kubelet => (Some("/var/lib/kubelet"), 0o755),
            Self::K0s => (Some("/var/lib/k0s"), 0o755),
            Self::K3s => (Some("/var/lib/rancher/k3s"), 0o755),
            Self::Rke2 => (Some("/var/lib/rancher/rke2"), 0o755),
            Self::Buildkit => (Some("/var/lib/buildkit"), 0o755),
            Self::Containerd => {
                (Some("/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs"), 0o700)
            }
            Self::Custom => (None, 0o755),
        }
    }

    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// Makes a volume and prepares its mount. One that the container had before is as it was.
pub(crate) fn create(store: &Store, request: &Create) -> anyhow::Result<Value> {
    let (mut entry, mut record) = store.known(&request.id)?;
    expect_live(&request.id, &record)?;
    let (default, mode) = request.kind.place();
    let missing = || Fault::invalid("a custom volume needs --dst");
    let destination =
        request.destination.as_deref().or(default.map(Path::new)).with_context(missing)?;
    let volume = Volume {
        destination: Path::new("/").join(destination),
        kind: request.kind.name(),
        sync: !request.no_sync,
    };
    if request.rootfs.is_some() {
        record.rootfs.clone_from(&request.rootfs);
    }
    let directory = directory(store, &request.id, &volume.destination)?;
    file::private_dir(&directory)?;
    check_filesystem(&directory)?;
    record.volumes.retain(|one| one.destination != volume.destination);
    record.volumes.push(volume.clone());
    entry.document = Some(record.clone());
    entry.save()?;
    let copied = match directory.join("data").is_dir() {
        true => copy::Report::default(),
        false => fill(&directory, &record, &volume, mode)
            .with_context(|| format!("make volume {}", volume.destination.display()))?,
    };
    let mount = prepare(store, request, &volume, &directory, &mut entry)?;
    Ok(json!({"mount": mounts::shown(&mount), "copied": copied}))
}

/// It is ours, so owners may be changed where they can't be mapped.
fn prepare(
    store: &Store,
    request: &Create,
    volume: &Volume,
    directory: &Path,
    entry: &mut Entry<Record>,
) -> anyhow::Result<crate::record::Mount> {
    let mut prepare = Prepare {
        id: request.id.clone(),
        source: directory.join("data"),
        destination: volume.destination.clone(),
        exclusive: true,
        recursive: false,
        read_only: false,
        strategy: Wanted::Idmap,
        base: Base::Ids(0, 0),
    };
    match mounts::prepare_in(store, &prepare, entry) {
        Err(error) if Fault::of(&error).kind == Kind::Unsupported => {
            prepare.strategy = Wanted::Chown;
            mounts::prepare_in(store, &prepare, entry)
        }
        prepared => prepared,
    }
}

fn check_filesystem(directory: &Path) -> anyhow::Result<()> {
    let stat = statfs(directory).with_context(|| format!("look at {}", directory.display()))?;
    if stat.filesystem_type() == OVERLAYFS_SUPER_MAGIC {
        let message =
            format!("{} is on an overlay, where volumes are of no use", directory.display());
        return Err(Fault::unsupported(message).into());
    }
    Ok(())
}

/// The directory of a volume: named like its destination, with what can't be in a name escaped.
fn directory(store: &Store, id: &Handle, destination: &Path) -> anyhow::Result<PathBuf> {
    let text = destination.to_str().context("a destination that is no text")?;
    let is_sound = destination.is_absolute()
        && destination
            .components()
            .skip(1)
            .all(|one| matches!(one, std::path::Component::Normal(_)))
        && destination.components().nth(1).is_some();
    let name = text.replace('%', "%25").replace('/', "%2F");
    if !is_sound || name.len() > 255 {
        return Err(Fault::invalid(format!("volume destination '{text}' can't be used")).into());
    }
    Ok(store.volumes().join(id.as_str()).join(name))
}

/// Tells whether a container's volume was made.
pub(crate) fn exists(store: &Store, id: &Handle, destination: &Path) -> bool {
    directory(store, id, destination).is_ok_and(|directory| directory.join("data").is_dir())
}

/// Makes `data` in one step: what was begun is begun anew.
fn fill(
    directory: &Path,
    record: &Record,
    volume: &Volume,
    mode: u32,
) -> anyhow::Result<copy::Report> {
    let parent = walk::open_top(directory)?;
    removal::remove(parent.as_fd(), c"data.new")?;
    let new = copy::make_directory(parent.as_fd(), c"data.new")?;
    let mut report = copy::Report::default();
    let rootfs = record.rootfs.as_ref().filter(|_| volume.sync);
    if let Some(rootfs) = rootfs
        && let Some(source) = image::find(rootfs, &volume.destination)?
    {
        let translation = match shows_host_ids(rootfs, record)? {
            true => Translation::to_host(&record.maps).reversed(),
            false => Translation::default(),
        };
        report = copy::copy(&source, &new, &translation)?;
    }
    inode::chown(new.as_fd(), 0, 0)?;
    inode::chmod(new.as_fd(), mode)?;
    rustix::fs::renameat(&parent, c"data.new", &parent, c"data").context("name the volume")?;
    Ok(report)
}

/// Tells whether the files of a root filesystem are seen with the host's ids of the container, or
/// with those inside it.
fn shows_host_ids(rootfs: &Path, record: &Record) -> anyhow::Result<bool> {
    Ok(shift::owner(rootfs)? == owner::root_of(&record.maps)?)
}

/// Writes all volumes of a container back into its root filesystem; a failure with one of them is
/// told, and stops nothing.
pub(crate) fn sync_out(store: &Store, id: &Handle, record: &Record) -> anyhow::Result<Value> {
    let Some(rootfs) = record.rootfs.as_ref().filter(|rootfs| rootfs.is_dir()) else {
        return Ok(json!([]));
    };
    let sync = |volume: &Volume| match write_back(store, id, record, volume, rootfs) {
        Ok(report) => json!({"destination": volume.destination, "copied": report}),
        Err(error) => json!({"destination": volume.destination, "error": format!("{error:#}")}),
    };
    Ok(record.volumes.iter().filter(|volume| volume.sync).map(sync).collect())
}

fn write_back(
    store: &Store,
    id: &Handle,
    record: &Record,
    volume: &Volume,
    rootfs: &Path,
) -> anyhow::Result<copy::Report> {
    let data = directory(store, id, &volume.destination)?.join("data");
    if !data.is_dir() {
        return Ok(copy::Report::default());
    }
    let is_empty = std::fs::read_dir(&data).with_context(|| format!("read {}", data.display()))?;
    if is_empty.count() == 0 && image::find(rootfs, &volume.destination)?.is_none() {
        return Ok(copy::Report::default());
    }
    let mount = record.mounts.iter().find(|mount| mount.destination == volume.destination);
    let is_chowned = mount.is_some_and(|mount| mount.strategy == Strategy::Chown);
    let to_host = Translation::to_host(&record.maps);
    let is_host = shows_host_ids(rootfs, record)?;
    let translation = match (is_chowned, is_host) {
        (false, true) => to_host,
        (true, false) => to_host.reversed(),
        _ => Translation::default(),
    };
    let actor = if is_host { owner::root_of(&record.maps)? } else { (0, 0) };
    let from = walk::open_top(&data)?;
    owner::acting_as(actor, || {
        image::replace(rootfs, &volume.destination, |to: &OwnedFd| {
            copy::copy(&from, to, &translation)
        })
    })
}

/// Removes all volumes of a container.
pub(crate) fn remove_all(store: &Store, id: &Handle) -> anyhow::Result<()> {
    let volumes = store.volumes();
    if !volumes.is_dir() {
        return Ok(());
    }
    let parent = walk::open_top(&volumes)?;
    let name = copy::c_name(id.as_str().as_ref())?;
    removal::remove(parent.as_fd(), &name).with_context(|| format!("remove volumes of '{id}'"))
}

/// Answers `volume sync`.
pub(crate) fn sync(store: &Store, id: &Handle) -> anyhow::Result<Value> {
    let (_entry, record) = store.known(id)?;
    Ok(json!({"synced": sync_out(store, id, &record)?}))
}
