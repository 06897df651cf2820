//! A limit on what a container writes, in bytes and in inodes: a project quota of the store's own
//! filesystem where that enforces one, else a filesystem in a sparse file.

mod loop_device;
mod project;

use std::os::fd::OwnedFd;

use anyhow::Context;
use clap::ValueEnum;
use guardian_contract::log;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

pub(crate) use project::{of as project_of, release, stale, sweep};

use crate::image::{Image, Info};
use crate::layer;
use crate::store::Store;
use crate::usage;

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
    if room == Room::default() {
        return Ok(Disk::Unlimited);
    }
    if way != Some(Way::Loop) {
        match project::create(store, image) {
            Ok(project) => return Ok(Disk::Project(project)),
            Err(error) if way.is_some() => return Err(error),
            Err(error) => {
                let data = serde_json::json!({"reason": format!("{error:#}")});
                log::info("no-project-quota", &data);
            }
        }
    }
    loop_device::create(store, image, room).map(|()| Disk::Loop)
}

/// Makes the limit hold, once everything that is not the container's own has been made; returns how
/// many bytes that takes.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn seal(image: &Image, disk: Disk, room: Room) -> anyhow::Result<u64> {
    match disk {
        Disk::Unlimited => Ok(0),
        Disk::Project(project) => project::seal(image, project, room),
        Disk::Loop => loop_device::seal(image, room),
    }
}

/// Returns how many bytes a container has written.
///
/// # Errors
/// When they can't be counted.
pub(crate) fn used(store: &Store, image: &Image, info: &Info) -> anyhow::Result<u64> {
    match info.disk {
        Disk::Unlimited => Ok(usage::of(&layer::open_directory(&image.upper())?)?.bytes),
        Disk::Project(project) => project::used(store, project, info.empty_bytes),
        Disk::Loop => loop_device::used(&image.merged(), info.empty_bytes),
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
            let filesystem = loop_device::reopen(image)?;
            rustix::fs::openat(filesystem, "upper", flags, Mode::empty()).context("open upper")
        }
    }
}
