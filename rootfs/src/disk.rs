//! A limit on what a container writes, in bytes and in inodes: a project quota of the store's own
//! filesystem where that enforces one, else a filesystem in a sparse file.

mod filler;
mod grow;
mod loop_device;
mod project;

use std::os::fd::OwnedFd;

use anyhow::Context;
use clap::ValueEnum;
use guardian_contract::fault::Fault;
use guardian_contract::log;
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountAttrFlags;
use serde::{Deserialize, Serialize};

pub(crate) use project::{of as project_of, release, stale, sweep};

use crate::image::{Image, Info};
use crate::layer;
use crate::store::Store;
use crate::usage::{self, Usage};

/// Of our filesystems, in bytes.
const BLOCK: u64 = 4096;

/// What a container may write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Room {
    /// Bytes; 0 is no limit.
    pub(crate) bytes: u64,
    /// Files, directories and everything else with an inode; 0 is no limit.
    pub(crate) inodes: u64,
}

/// What holds a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Way {
    /// A project quota of the store's filesystem.
    Project,
    /// A filesystem of its own in a sparse file.
    Loop,
}

/// Where what a container writes is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Disk {
    /// In the store's filesystem, without a limit.
    #[default]
    Unlimited,
    /// In the store's filesystem, charged to this project.
    Project(u32),
    /// In a filesystem of its own.
    Loop,
}

/// What an image's disk holds that its container has not written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Overhead {
    /// Bytes that it took before the container had written any.
    pub(crate) empty_bytes: u64,
    /// Inodes likewise.
    pub(crate) empty_inodes: u64,
    /// Bytes that are taken so that the container does not get them.
    pub(crate) taken_bytes: u64,
}

/// Prepares the directory that a container's writes go to.
///
/// # Errors
/// With the reason of each way that was tried.
pub(crate) fn create(
    store: &Store,
    image: &Image,
    room: Room,
    way: Option<Way>,
) -> anyhow::Result<Disk> {
    let is_unlimited = room == Room::default();
    // Without a limit too, where that can be: then one can be given later, and who measures need not
    // look at every file.
    if way != Some(Way::Loop) {
        match project::create(store, image) {
            Ok(project) => return Ok(Disk::Project(project)),
            Err(_) if is_unlimited => {}
            Err(error) if way.is_some() => return Err(error),
            Err(error) => {
                let data = serde_json::json!({"reason": format!("{error:#}")});
                log::info("no-project-quota", &data);
            }
        }
    }
    match is_unlimited {
        true => Ok(Disk::Unlimited),
        false => loop_device::create(store, image, room).map(|()| Disk::Loop),
    }
}

/// Makes the limit hold, once everything that is not the container's own has been made; returns what
/// that takes.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn seal(image: &Image, disk: Disk, room: Room) -> anyhow::Result<Overhead> {
    match disk {
        Disk::Unlimited => Ok(Overhead::default()),
        Disk::Project(project) => project::seal(image, project, room),
        Disk::Loop => loop_device::seal(image, room),
    }
}

/// Makes another limit hold for a container that is there; returns what that takes.
///
/// # Errors
/// `Unsupported` where nothing can hold it; otherwise when it is below what is used.
pub(crate) fn change(
    store: &Store,
    image: &Image,
    info: &Info,
    room: Room,
) -> anyhow::Result<Overhead> {
    match info.disk {
        Disk::Unlimited if room == Room::default() => Ok(info.overhead),
        Disk::Unlimited => Err(Fault::unsupported(
            "the container was made without a disk limit, on a filesystem without project quotas: \
             it can't be given one",
        )
        .into()),
        Disk::Project(project) => {
            project::limit(image, project, info.overhead, room).map(|()| info.overhead)
        }
        Disk::Loop => loop_device::change(store, image, info, room),
    }
}

/// Returns what a container with a limit has written, inodes too; nothing for one that can't have any.
///
/// # Errors
/// When it can't be counted.
pub(crate) fn content(store: &Store, image: &Image, info: &Info) -> anyhow::Result<Usage> {
    match info.disk {
        Disk::Unlimited => Ok(Usage::default()),
        Disk::Project(project) => project::content(store, project, info.overhead),
        Disk::Loop => loop_device::content(image, info.overhead),
    }
}

/// Returns how many bytes a container has written.
///
/// # Errors
/// When they can't be counted.
pub(crate) fn used(store: &Store, image: &Image, info: &Info) -> anyhow::Result<u64> {
    match info.disk {
        Disk::Unlimited => Ok(usage::of(&layer::open_directory(&image.upper())?)?.bytes),
        Disk::Project(project) => Ok(project::content(store, project, info.overhead)?.bytes),
        Disk::Loop => loop_device::used(image, info),
    }
}

/// Opens the directory that has what the container wrote.
///
/// # Errors
/// When it can't be opened.
pub(crate) fn upper(image: &Image, info: &Info) -> anyhow::Result<OwnedFd> {
    match info.disk {
        Disk::Unlimited | Disk::Project(_) => layer::open_directory(&image.upper()),
        Disk::Loop => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let filesystem = loop_device::reopen(image, MountAttrFlags::MOUNT_ATTR_RDONLY)?;
            rustix::fs::openat(filesystem, "upper", flags, Mode::empty()).context("open upper")
        }
    }
}
